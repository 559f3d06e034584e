import dataclasses
from typing import Any

import equinox as eqx


def check_parts(module: eqx.Module) -> None:
    """Raises `ValueError` where a field holds a class of modules in place of a module."""
    for field in dataclasses.fields(module):
        value: Any = getattr(module, field.name, None)
        if isinstance(value, type) and issubclass(value, eqx.Module):
            raise ValueError(
                f"`{field.name}` of {type(module).__name__} is the class {value.__name__}; give "
                f"one of its instances, such as {value.__name__}()."
            )
