import dataclasses
import math
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Bool


@dataclasses.dataclass(frozen=True, eq=False)
class Maze:
    """Where the walls of a maze stand: a grid of square cells, row `i` along y, column `j` along x.

    Cell `(i, j)` has its centre at `offset + cell * (j, i)`.

    **Arguments:**

    - `walls`: true where a cell is a wall, `[i, j]`.
    - `cell`: side of a cell, in the environment's units of length.
    - `offset`: x and y of the centre of cell (0, 0).
    - `tolerance`: an episode succeeds within this distance of its goal, in the same units.
    """

    walls: Bool[np.ndarray, "i j"]
    cell: float
    offset: tuple[float, float]
    tolerance: float

    @classmethod
    def of(cls, env: gymnasium.Env) -> "Maze | None":
        """The maze that an OGBench environment is built around, or None if it has none.

        **Arguments:**

        - `env`: an environment, wrapped or not.
        """
        bare: Any = env.unwrapped
        walls = getattr(bare, "maze_map", None)
        if walls is None:
            return None
        x, y = bare.ij_to_xy((0, 0))
        neighbour, _ = bare.ij_to_xy((0, 1))
        return cls(
            walls=np.asarray(walls) == 1,
            cell=float(neighbour - x),
            offset=(float(x), float(y)),
            # The package has no public name for it.
            tolerance=float(bare._goal_tol),
        )

    def cell_centre(self, i: int, j: int) -> tuple[float, float]:
        """The x and y of the centre of cell `(i, j)`."""
        return self.offset[0] + self.cell * j, self.offset[1] + self.cell * i

    def cell_of(self, x: float | np.floating, y: float | np.floating) -> tuple[int, int]:
        """The cell `(i, j)` that holds the point `(x, y)`; it may lie outside the grid."""
        i = math.floor((y - self.offset[1]) / self.cell + 0.5)
        j = math.floor((x - self.offset[0]) / self.cell + 0.5)
        return i, j
