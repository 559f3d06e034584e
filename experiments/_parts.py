import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

import architectures as nets
import objectives as obj
from crlx import AbstractArchitecture, AbstractEnergy

T = TypeVar("T")

ENERGIES: Mapping[str, Callable[[], AbstractEnergy]] = {
    "norm": nets.Norm,
    "squared-norm": nets.SquaredNorm,
    "l1": nets.L1,
    "dot": nets.Dot,
    "scaled-dot": nets.ScaledDot,
    "cosine": nets.Cosine,
}
CONTRASTS: Mapping[str, Callable[[], obj.AbstractContrast]] = {
    "forward": obj.Forward,
    "backward": obj.Backward,
    "symmetric": obj.Symmetric,
    "binary": obj.Binary,
}
ACTORS: Mapping[str, Callable[[], obj.AbstractActorTerm]] = {
    "ddpgbc": obj.DDPGBC,
    "awr": obj.AWR,
    "maxent": obj.MaxEntropy,
}
ARCHITECTURES: Mapping[str, Callable[[], AbstractArchitecture]] = {
    "residual": nets.ResidualNetworks,
    "mlp": nets.MLPNetworks,
}


def choose(kind: str, name: str, choices: Mapping[str, T]) -> T:
    """The choice of that name; an unknown one is refused with the nearest."""
    if name in choices:
        return choices[name]
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0)
    known = ", ".join(choices)
    raise ValueError(f"Unknown {kind} {name!r}; did you mean {near[0]!r}? Known: {known}.")
