import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import tyro

import architectures as nets
import objectives as obj
from crlx import AbstractArchitecture, AbstractEnergy

T = TypeVar("T")

QUASIMETRICS: Mapping[str, Callable[[], AbstractEnergy]] = {
    "mrn": nets.MRN,
    "iqe": nets.IQE,
    "pqe": nets.PQE,
}
ENERGIES: Mapping[str, Callable[[], AbstractEnergy]] = {
    "norm": nets.Norm,
    "squared-norm": nets.SquaredNorm,
    "l1": nets.L1,
    "dot": nets.Dot,
    "scaled-dot": nets.ScaledDot,
    "cosine": nets.Cosine,
    **QUASIMETRICS,
}
CONTRASTS: Mapping[str, Callable[[], obj.AbstractContrast]] = {
    "forward": obj.Forward,
    "backward": obj.Backward,
    "symmetric": obj.Symmetric,
    "binary": obj.Binary,
    "flat": obj.FlatNCE,
    "forward-backward": obj.ForwardBackward,
    "dpo": obj.DPO,
    "ipo": obj.IPO,
    "sppo": obj.SPPO,
}
ACTORS: Mapping[str, Callable[[], obj.AbstractActorTerm]] = {
    "ddpgbc": obj.DDPGBC,
    "awr": obj.AWR,
    "maxent": obj.MaxEntropy,
    "deterministic": obj.Deterministic,
}
ARCHITECTURES: Mapping[str, Callable[[], AbstractArchitecture]] = {
    "residual": nets.ResidualNetworks,
    "mlp": nets.MLPNetworks,
    "stable": partial(
        nets.ResidualNetworks,
        style=nets.ResidualStyle(residual_scale=nets.ResidualScale.RSQRT, final_norm=True),
    ),
    "prenorm": partial(
        nets.ResidualNetworks, style=nets.ResidualStyle(prenorm=True, final_norm=True)
    ),
    "tied": partial(nets.ResidualNetworks, style=nets.ResidualStyle(tied=True)),
    "hyperspherical": nets.HypersphericalNetworks,
    "hyperspherical-residual": partial(
        nets.HypersphericalNetworks, block=nets.SphereBlock.RESIDUAL
    ),
    "mrn": partial(nets.ResidualNetworks, energy=nets.MRN()),
    "iqe": partial(nets.ResidualNetworks, energy=nets.IQE()),
    "pqe": partial(nets.ResidualNetworks, energy=nets.PQE()),
    "shared-mrn": partial(nets.ResidualNetworks, energy=nets.MRN(groups=16), shared=True),
}
# These differ from "residual" in the critic alone.
CRITICS = (*QUASIMETRICS, "shared-mrn")


def sized(
    architecture: AbstractArchitecture, *, depth: int | None, width: int | None
) -> AbstractArchitecture:
    """The same architecture with another depth and width; None leaves them as they are."""
    changes = {"depth": depth, "width": width}
    asked = {name: size for name, size in changes.items() if size is not None}
    return dataclasses.replace(architecture, **asked)


def choose(kind: str, name: str, choices: Mapping[str, T]) -> T:
    """The choice of that name; an unknown one is refused with the nearest."""
    if name in choices:
        return choices[name]
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0)
    known = ", ".join(choices)
    raise ValueError(f"Unknown {kind} {name!r}; did you mean {near[0]!r}? Known: {known}.")


def listed(name: str, choices: Iterable[str]):
    """What a flag of that name shows of its choices in the help; `choose` refuses others."""
    return tyro.conf.arg(name=name, metavar="{" + ",".join(choices) + "}")
