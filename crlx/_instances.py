import dataclasses
import types
import typing
from typing import Any

import equinox as eqx


def check_instance(name: str, value: object) -> None:
    """Raises `ValueError` where `value`, the argument of that name, is a class of modules in place
    of a module."""
    if _is_module_class(value):
        kind: Any = value
        raise ValueError(
            f"`{name}` is the class {kind.__name__}; give one of its instances, such as "
            f"{kind.__name__}()."
        )


def check_parts(module: eqx.Module) -> None:
    """`check_instance` of all fields that take a module."""
    for field in dataclasses.fields(module):
        if _takes_module(field.type):
            check_instance(field.name, getattr(module, field.name, None))


def _takes_module(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(map(_takes_module, typing.get_args(hint)))
    return _is_module_class(origin or hint)


def _is_module_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, eqx.Module)
