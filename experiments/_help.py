import dataclasses
import inspect
import re
import typing
from typing import Any

import equinox as eqx
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

registry = ConstructorRegistry()


@registry.struct_rule
def _module_flags(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Makes flags of a module's fields, with the help that its docstring gives to each."""
    module = info.default
    if not isinstance(module, eqx.Module):
        return None
    texts = _argument_texts(type(module))

    def field(name: str, declared: Any) -> StructFieldSpec:
        value = getattr(module, name)
        nested = isinstance(value, eqx.Module)
        return StructFieldSpec(
            name=name,
            type=type(value) if nested else declared,
            default=value,
            helptext=_first_sentence(type(value)) if nested else texts.get(name, ""),
        )

    fields = dataclasses.fields(module)
    return StructConstructorSpec(
        instantiate=lambda **values: dataclasses.replace(module, **values),
        fields=tuple(field(f.name, f.type) for f in fields if _is_flag(module, f)),
    )


def _is_flag(module: eqx.Module, field: "dataclasses.Field[Any]") -> bool:
    """Tuples of parts and parts that are left out are chosen in Python, not by flags."""
    value = getattr(module, field.name)
    parts = (t for t in typing.get_args(field.type) if isinstance(t, type))
    absent = value is None and any(issubclass(t, eqx.Module) for t in parts)
    return not absent and not isinstance(value, tuple)


def _first_sentence(cls: type) -> str:
    text = inspect.getdoc(cls) or ""
    return re.split(r"(?<=[.:])\s", " ".join(text.split("\n\n")[0].split()))[0].rstrip(":")


def _argument_texts(cls: type) -> dict[str, str]:
    """What the docstring's lines "- `name`: text" say of each argument."""
    body = (inspect.getdoc(cls) or "").partition("**Arguments:**")[2].partition("\n??? cite")[0]
    texts = {}
    for item in re.split(r"\n- ", body)[1:]:
        names, _, text = item.partition(": ")
        text = " ".join(text.split("\n\n")[0].split()).replace("`", "")
        text = re.sub(r",? ?\$[^$]*\$", "", text)  # Symbols mean nothing to a terminal.
        texts |= {name: text[:1].upper() + text[1:] for name in re.findall(r"`(\w+)`", names)}
    return texts
