import dataclasses
from collections.abc import Mapping
from typing import Annotated

import jax
import tyro

from crlx import JSON, DeviceMesh


@dataclasses.dataclass(frozen=True)
class Extent:
    """The flags that say over how much one program spreads, and how it is compiled."""

    mesh: Annotated[str | None, tyro.conf.arg(metavar="AXES")] = None
    """Train on all devices: data=8 shares out environments, replay and minibatches; data=4,layers=2
    keeps layers and their optimizer's state in two parts, too. By default the first device."""
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Runs with as many seeds, from --seed on, as one program on one device. Results are those of
    each seed, and mean and standard deviation."""
    xla: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE...")] = ()
    """Options of the compiler for what is trained, such as
    xla_gpu_enable_latency_hiding_scheduler=true; by default XLA's own. A run that is resumed has
    those that it began with, unless it is given others."""

    def devices(self, split: Mapping[str, int]) -> DeviceMesh:
        """The devices to train on.

        **Arguments:**

        - `split`: sizes that are to be shared out evenly, by their flags.

        Raises `ValueError` for a mesh that does not fit the devices, or sizes that do not fit it.
        """
        if self.seeds < 1:
            raise ValueError(f"--seeds must be positive; got {self.seeds}.")
        if self.seeds > 1 and (self.mesh is not None or jax.process_count() > 1):
            raise ValueError(
                f"--seeds {self.seeds} trains on one device in one process: leave --mesh out, or "
                "train one seed after the other."
            )
        if self.mesh is None:
            if jax.process_count() > 1:
                raise ValueError(
                    f"{jax.process_count()} processes train together on all devices: add --mesh "
                    f"data={jax.device_count()}."
                )
            return DeviceMesh()
        mesh = DeviceMesh.parse(self.mesh)
        for flag, number in split.items():
            mesh.check_split(flag, number)
        return mesh

    def by_name(self, first: int) -> dict[str, int]:
        """The seeds of the runs that are trained together, by the runs' names."""
        return {f"seed-{seed}": seed for seed in range(first, first + self.seeds)}

    def parts(self, first: int) -> dict[str, dict[str, JSON]]:
        """What is each run's own of the settings, by its name; nothing if there is one alone."""
        if self.seeds == 1:
            return {}
        return {name: {"seed": seed, "seeds": 1} for name, seed in self.by_name(first).items()}
