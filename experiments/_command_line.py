"""How a run is read from a command line or from the folder of an earlier one."""

import dataclasses
import pathlib
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import tyro

from crlx import decode

from ._help import registry
from ._run_directory import read_json

Names = TypeVar("Names")
Options = TypeVar("Options")


def parse(
    arguments: list[str],
    names: type[Names],
    options: type[Options],
    compose: Callable[[Names], Options],
) -> Options:
    """The run that a command line asks for.

    The first pass reads the names of parts, the second everything, with those parts as defaults.
    A run that is resumed starts from its own configuration.

    **Arguments:**

    - `arguments`: without the program's name.
    - `names`: the flags that choose parts, `out` and `resume` among them.
    - `options`: all flags; a subclass of `names`.
    - `compose`: the run that names stand for.
    """
    chosen: Any = _names(arguments, names)
    default = _stored(chosen, arguments, options, compose) if chosen.resume else compose(chosen)
    return tyro.cli(options, args=arguments, default=default, registry=registry)


def read(run: pathlib.Path, options: type[Options]) -> Options:
    """The options of the run in a folder, to resume it."""
    config = read_json(run / "config.json")
    hints = typing.get_type_hints(options)
    if not isinstance(config, dict):
        raise ValueError(f"{run / 'config.json'} does not describe a run.")
    missing = sorted({"objective", *hints} - {"resume"} - config.keys())
    if missing:
        raise ValueError(
            f"{run / 'config.json'} lacks {', '.join(missing)}: another script began the run, or "
            "another version of crlx, whose commit the first line of its metrics.jsonl tells. "
            "Resume it with that."
        )
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(options):  # pyright: ignore
        value = decode(config.get(field.name))
        hint = hints[field.name]
        is_path = pathlib.Path in (hint, *typing.get_args(hint))
        fields[field.name] = pathlib.Path(str(value)) if is_path and value is not None else value
    return options(**{**fields, "out": run, "resume": True})


def _names(arguments: list[str], names: type[Names], default: Names | None = None) -> Names:
    start = names() if default is None else default
    return tyro.cli(names, args=arguments, return_unknown_args=True, add_help=False, default=start)[
        0
    ]


def _stored(
    chosen: Any,
    arguments: list[str],
    options: type[Options],
    compose: Callable[[Any], Options],
) -> Options:
    if chosen.out is None:
        raise ValueError("--resume continues the run in --out; name its folder.")
    stored: Any = read(chosen.out, options)
    kind = type(chosen)
    own = {f.name: getattr(stored, f.name) for f in dataclasses.fields(kind)}
    asked = _names(arguments, kind, kind(**own))
    if asked == kind(**own):
        return stored
    # Flags that name parts were repeated: the parts are composed anew, all else is as it was.
    composed: Any = compose(asked)
    fields = {f.name: getattr(composed, f.name) for f in dataclasses.fields(composed)}
    parts = {name: value for name, value in fields.items() if isinstance(value, eqx.Module)}
    return dataclasses.replace(stored, **{name: fields[name] for name in own}, **parts)
