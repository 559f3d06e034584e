import dataclasses
import types
import typing
from typing import Any

import equinox as eqx


def check_parts(module: eqx.Module) -> None:
    """Raises `ValueError` where a field that takes a module holds a class of modules."""
    for field in dataclasses.fields(module):
        value: Any = getattr(module, field.name, None)
        if _takes_module(field.type) and _is_module_class(value):
            raise ValueError(
                f"`{field.name}` of {type(module).__name__} is the class {value.__name__}; give "
                f"one of its instances, such as {value.__name__}()."
            )


def _takes_module(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(map(_takes_module, typing.get_args(hint)))
    return _is_module_class(origin or hint)


def _is_module_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, eqx.Module)
