"""Settings of an online run that go together."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import architectures as nets
from crlx import AbstractArchitecture, Exploration


@dataclasses.dataclass(frozen=True)
class Preset:
    """What holds unless a flag says otherwise.

    **Arguments:**

    - `depth`, `width`: of the networks.
    - `inputs`: the flag of that name.
    - `elsewhere`: the share of the policy's goals that come from other episodes.
    - `distance_dim`: size of embeddings of residual networks whose plain distance is the score;
      None for the architecture's own.
    - `settings`: fields of `Options`.
    """

    depth: int
    width: int
    inputs: str
    elsewhere: float
    distance_dim: int | None
    settings: Mapping[str, Any]

    def suit(self, architecture: AbstractArchitecture) -> AbstractArchitecture:
        """The architecture, if it is residual with `Norm`, with embeddings of the preset's size."""
        if self.distance_dim is None or not isinstance(architecture, nets.ResidualNetworks):
            return architecture
        if not isinstance(architecture.energy, nets.Norm):
            return architecture
        return dataclasses.replace(architecture, dim=self.distance_dim)


PRESETS: Mapping[str, Preset] = {
    "laptop": Preset(
        depth=4,
        width=64,
        inputs="scaled",
        elsewhere=0.5,
        # With narrow networks the distances of all pairs are the most of an update.
        distance_dim=16,
        settings={
            "learning_rate": 5e-4,
            "decay": True,
            "episode_length": 300,
            "exploration": Exploration(greedy=0.5, pushed=0.25),
        },
    ),
    # The paper's table 7 and its code.
    "paper": Preset(
        depth=64,
        width=256,
        inputs="raw",
        elsewhere=0.0,
        distance_dim=None,
        settings={
            "steps": 100_000_000,
            "num_envs": 512,
            "warm_up": 1000,
            "unroll": 62,
            "updates": 800,
            "batch_size": 512,
            "replay": 10_000,
            "eval_episodes": 128,
        },
    ),
}
