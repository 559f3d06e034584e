import dataclasses
from collections.abc import Mapping
from typing import Annotated

import jax
import tyro

from crlx import DeviceMesh


@dataclasses.dataclass(frozen=True)
class Extent:
    """The flags that say over how much one program spreads."""

    mesh: Annotated[str | None, tyro.conf.arg(metavar="AXES")] = None
    """Train on all devices: data=8 shares out environments, replay and minibatches; data=4,layers=2
    keeps the layers and the optimizer's state in two parts, too. By default the first device."""

    def devices(self, split: Mapping[str, int]) -> DeviceMesh:
        """The devices to train on.

        **Arguments:**

        - `split`: sizes that are to be shared out evenly, by their flags.

        Raises `ValueError` for a mesh that does not fit the devices, or sizes that do not fit it.
        """
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
