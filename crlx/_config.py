import dataclasses
import enum
import importlib
import pathlib
from typing import Any, TypeAlias

JSON: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None


def encode(value: object) -> JSON:
    """Turns a configuration into JSON: dataclasses and modules become their fields and the
    public name of their type.

    **Returns:** what `json.dumps` takes and `decode` reverses (lists come back as tuples, paths
    as strings).

    Raises `TypeError` for anything that is not a number, text, path, enum, sequence, dictionary
    with text keys or dataclass: arrays do not belong in a configuration.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, tuple | list):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise TypeError(f"Keys of a configuration are text; got {list(value)}.")
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, enum.Enum):
        return {"type": _public_name(type(value)), "member": value.name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": _public_name(type(value)), **fields}
    raise TypeError(f"A configuration cannot hold a {type(value).__name__}: {value!r}.")


def decode(value: JSON) -> object:
    """Rebuilds what `encode` wrote, importing each type by its name.

    Only dataclasses and enums are ever built. Raises `ValueError` where a type is not to be
    found, naming it.
    """
    if isinstance(value, list):
        return tuple(decode(v) for v in value)
    if not isinstance(value, dict):
        return value
    if "type" not in value:
        return {k: decode(v) for k, v in value.items()}
    cls = _find(str(value["type"]))
    fields = {k: decode(v) for k, v in value.items() if k != "type"}
    if issubclass(cls, enum.Enum):
        return cls[str(fields["member"])]
    if not dataclasses.is_dataclass(cls):
        raise ValueError(f"{value['type']} is neither a dataclass nor an enum.")
    try:
        return cls(**fields)
    except TypeError as error:
        raise ValueError(
            f"{value['type']} no longer takes the fields {sorted(fields)}: {error}."
        ) from error


def _public_name(cls: type) -> str:
    """`package.Name` where the package exports the type, so that files may move within it."""
    package = cls.__module__.split("._")[0]
    exported = getattr(importlib.import_module(package), cls.__qualname__, None)
    return f"{package if exported is cls else cls.__module__}.{cls.__qualname__}"


def _find(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The configuration names {name!r}, which cannot be imported here: {error}. "
            "Put its module on the Python path; if that is __main__, move the type from the script "
            "into a module of its own."
        ) from error
    if not isinstance(cls, type):
        raise ValueError(f"{name!r} in the configuration is not a type.")
    return cls
