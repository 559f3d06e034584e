import dataclasses

import jax.numpy as jnp
import numpy as np
from brax import base
from jaxtyping import Array, Bool, Float, Int

from ._box_contacts import Contact, Corner, capsule_box, sphere_box
from ._vectors import Vector

_SPHERE, _CAPSULE = 2, 3  # As in `mujoco.mjtGeom`.


@dataclasses.dataclass(frozen=True, eq=False)
class Geoms:
    """Some spheres, or some capsules, of a model.

    **Arguments:**

    - `link`: the link of each that it moves with.
    - `position`: `[geoms, 3]`, of their centres, in the link's frame.
    - `axis`: `[geoms, 3]`, of the capsules, in the link's frame and of length 1.
    - `half`: half the length of the capsules' segments; zero for spheres.
    - `radius`: of the spheres or the caps.
    """

    link: Int[np.ndarray, " geoms"]
    position: Float[np.ndarray, "geoms 3"]
    axis: Float[np.ndarray, "geoms 3"]
    half: Float[np.ndarray, " geoms"]
    radius: Float[np.ndarray, " geoms"]

    def __len__(self) -> int:
        return len(self.link)

    @classmethod
    def of(cls, sys: base.System, index: Int[np.ndarray, " geoms"]) -> "Geoms":
        """The geoms of a model with given indices."""
        kind, size = np.asarray(sys.geom_type)[index], np.asarray(sys.geom_size)[index]
        w, x, y, z = np.asarray(sys.geom_quat)[index].T
        axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
        half = np.where(kind == _CAPSULE, size[:, 1], np.float32(0))
        link = np.asarray(sys.geom_bodyid)[index] - 1
        return cls(link, np.asarray(sys.geom_pos)[index], axis, half, size[:, 0])


@dataclasses.dataclass(frozen=True, eq=False)
class Walls:
    """A maze's walls: a box for each wall cell, as wide as the cell and half as high.

    Cell $(i, j)$ has its centre at $(i s, j s)$. A geom smaller than half a cell can only touch
    the four cells around the corner of cells that is nearest to its centre, so only these are
    looked at: all walls that it touches are among them.

    **Arguments:**

    - `cells`: `[rows, columns]`, true for walls. There are none outside. A program that takes them
      as an array serves every maze of that shape.
    - `scale`: $s$, the side of a cell.
    - `friction`, `elasticity`: of the boxes.
    """

    cells: Bool[np.ndarray | Array, "rows columns"]
    scale: float
    friction: float = 1.0
    elasticity: float = 0.0

    def spheres(self, centre: Vector, radius: Float[Array, "..."]) -> tuple[Vector, Contact]:
        """The contacts of spheres with the walls.

        **Arguments:**

        - `centre`: of shape `[geoms, *batch]`.
        - `radius`: of shape `[geoms, *ones]`.

        **Returns:** the corners, of the shape of `centre`, and the contacts in the frame of their
        corner, of shape `[2, 2, geoms, *batch]`.
        """
        corner, here, box, absent = self._around(centre)
        return corner, sphere_box(here, radius[None, None], box).unless(absent)

    def capsules(
        self,
        centre: Vector,
        axis: Vector,
        half: Float[Array, "..."],
        radius: Float[Array, "..."],
    ) -> tuple[Vector, tuple[Contact, Contact]]:
        """The contacts of capsules with the walls, two for each; otherwise as for spheres."""
        corner, here, box, absent = self._around(centre)
        axis = axis[0][None, None], axis[1][None, None], axis[2][None, None]
        first, second = capsule_box(here, axis, half[None, None], radius[None, None], box)
        return corner, (first.unless(absent), second.unless(absent))

    def _around(self, centre: Vector) -> tuple[Vector, Vector, Corner, Bool[Array, "..."]]:
        x, y, z = centre
        rows, columns = self.cells.shape
        row, column = jnp.floor(x / self.scale), jnp.floor(y / self.scale)
        corner = (row + 0.5) * self.scale, (column + 0.5) * self.scale, jnp.zeros_like(z)
        here = (x - corner[0])[None, None], (y - corner[1])[None, None], z[None, None]
        row = jnp.clip(row.astype(jnp.int32) + 2, 0, rows + 2)
        column = jnp.clip(column.astype(jnp.int32) + 2, 0, columns + 2)
        code = self._codes[row * (columns + 3) + column]
        sides = jnp.asarray([-1.0, 1.0], jnp.float32)
        ones = (1,) * x.ndim
        bits = jnp.asarray([[1, 2], [4, 8]], jnp.int32).reshape(2, 2, *ones)
        absent = (code[None, None] & bits) == 0
        side_x, side_y = sides.reshape(2, 1, *ones), sides.reshape(1, 2, *ones)
        return corner, here, Corner(side_x, side_y, self.scale, 0.5 * self.scale), absent

    @property
    def _codes(self) -> Int[Array, " corners"]:
        """Four bits for each corner of cells: which of the cells around it are walls."""
        cells = jnp.pad(
            jnp.asarray(self.cells, jnp.int32), 2
        )  # The outermost corners have no walls.
        code = cells[:-1, :-1] + 2 * cells[:-1, 1:] + 4 * cells[1:, :-1] + 8 * cells[1:, 1:]
        return code.reshape(-1)
