import dataclasses
import math

import mujoco
import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class View:
    """Where a camera is: it looks at a point from a distance in metres, at angles in radians. At
    azimuth 0 it stands in the direction of +x."""

    look: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float

    @property
    def chequer(self) -> float:
        """Side of the chequers of a floor that are neither too fine nor too coarse from there."""
        return 2.0 ** round(math.log2(self.distance / 15))


def framed(model: mujoco.MjModel, poses: Float[np.ndarray, "steps links 7"]) -> View:
    """A view of all links at all times, and of all that does not move but planes.

    Mazes are seen from above, with +x, in which their rows follow one another, downwards.
    """
    still = (model.geom_bodyid == 0) & (model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)
    reach = model.geom_rbound[still, None]
    fixed = model.geom_pos[still]
    points = np.concatenate([poses[..., :3].reshape(-1, 3), fixed - reach, fixed + reach])
    low, high = points.min(0), points.max(0)
    low[2], high[2] = max(low[2], 0.0), min(high[2], 2.0)
    extent = float(np.linalg.norm(high - low))
    x, y, z = (float(value) for value in (low + high) / 2)
    if still.sum() > 4:
        return View((x, y, z), 1.08 * extent, 0.0, 1.05)
    return View((x, y, z), 1.3 * extent + 1.2, 0.9, 0.4)
