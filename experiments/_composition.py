"""How flags that name parts become an architecture that suits the objective."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import architectures as nets
from crlx import AbstractArchitecture

from ._objectives import Entry
from ._parts import ARCHITECTURES, CRITICS, ENERGIES, choose


def check_flags(
    objective: str,
    entry: Entry[Any],
    *,
    contrast: str | None,
    energy: str | None,
    architecture: str,
) -> None:
    """Refuses flags that mean nothing for the objective."""
    name = f"--objective {objective}"
    if contrast is not None and not entry.contrast:
        raise ValueError(f"{name} has a loss of its own; leave --contrast out.")
    if energy is not None and not entry.towers:
        raise ValueError(f"{name} compares no embeddings, so --energy means nothing.")
    if architecture in CRITICS and not entry.towers:
        raise ValueError(
            f"--architecture {architecture} differs from residual in how embeddings are "
            f"compared, and {name} compares none: use --architecture residual."
        )


def build_architecture(
    name: str,
    entry: Entry[Any],
    sizes: Mapping[str, int | None],
    *,
    energy: str | None,
    squashed: bool,
) -> AbstractArchitecture:
    """The architecture of that name, as the objective needs it.

    **Arguments:**

    - `name`, `energy`: what the flags say.
    - `entry`: the objective's.
    - `sizes`: fields of the architecture; None leaves them as they are.
    - `squashed`: whether the actor must be, beside what the objective says.

    Raises `ValueError` for sizes that the architecture does not have.
    """
    architecture = choose("architecture", name, ARCHITECTURES)()
    fields = {f.name for f in dataclasses.fields(architecture)}
    asked = {field: size for field, size in sizes.items() if size is not None}
    for field in asked.keys() - fields:
        raise ValueError(
            f"--architecture {name} has no {field.replace('_', ' ')} of its own; use --depth."
        )
    architecture = dataclasses.replace(architecture, **asked)
    changes = dict(entry.changes)
    wanted = None
    if energy is not None:
        wanted = choose("energy", energy, ENERGIES)()
    elif name in CRITICS and isinstance(architecture, nets.ResidualNetworks):
        wanted = architecture.energy
    # An energy that is asked for by name has the settings that suit the objective.
    if wanted is not None and type(wanted) is not type(changes.get("energy")):
        changes["energy"] = wanted
    if squashed:
        changes["squashed"] = True
    # What is lacking is refused by the objective.
    known = fields & changes.keys()
    return dataclasses.replace(architecture, **{name: changes[name] for name in known})
