import collections

import numpy as np
import numpy.typing as npt

_STEPS = ((-1, 0), (0, -1), (1, 0), (0, 1))  # OGBench's order, which settles ties.


class Grid:
    """The cells of a maze, and the shortest way between any two of them.

    Cell `(i, j)` has its centre at `(x, y) = (unit * j - offset, unit * i - offset)`.
    Source: `MazeEnv` in `ogbench.locomaze.maze`.
    """

    walls: npt.NDArray[np.bool_]
    """`[height, width]`."""
    free: npt.NDArray[np.int64]
    """`[cells, 2]`, the cells that are no walls."""
    corners: npt.NDArray[np.int64]
    """`[corners, 2]`, the free cells that are no straight corridors."""
    distances: npt.NDArray[np.int64]
    """`[height, width, height, width]`, steps to a goal cell (the first two axes) from a start
    cell (the others); -1 for walls and where there is no way."""

    def __init__(self, walls: npt.NDArray[np.bool_], unit: float, offset: float):
        """**Arguments:**

        - `walls`: `[height, width]`, true for walls, which must surround the maze.
        - `unit`: side of a cell.
        - `offset`: see above.
        """
        self.walls = walls
        self.unit = unit
        self.offset = offset
        self.free = np.argwhere(~walls)
        self.corners = self.free[~_corridors(walls, self.free)]
        self.distances = np.full(walls.shape * 2, -1)
        for i, j in self.free:
            self.distances[i, j] = _distances(walls, (int(i), int(j)))
        self._next = _next_cells(walls, self.distances)

    def cells(self, xy: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """`[agents, 2]` positions to `[agents, 2]` cells."""
        # In OGBench's order of operations, so that borders round alike.
        return ((xy[:, ::-1] + self.offset + 0.5 * self.unit) / self.unit).astype(np.int64)

    def centres(self, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """`[agents, 2]` cells to `[agents, 2]` positions."""
        return cells[:, ::-1].astype(np.float64) * self.unit - self.offset

    def subgoals(
        self, xy: npt.NDArray[np.float64], goal: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """The centre of the next cell on the way to each goal, as OGBench's oracle gives it.

        It is the centre of the agent's own cell if the goal is in it or cannot be reached.

        **Arguments:**

        - `xy`: `[agents, 2]`, positions.
        - `goal`: `[agents, 2]`, positions of the goals.

        **Returns:** `[agents, 2]`, positions.
        """
        start, end = self.cells(xy), self.cells(goal)
        return self.centres(self._next[end[:, 0], end[:, 1], start[:, 0], start[:, 1]])


def _corridors(walls: npt.NDArray[np.bool_], free: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    up, left, down, right = (walls[free[:, 0] + di, free[:, 1] + dj] for di, dj in _STEPS)
    return (up & down & ~left & ~right) | (~up & ~down & left & right)


def _distances(walls: npt.NDArray[np.bool_], goal: tuple[int, int]) -> npt.NDArray[np.int64]:
    distance = np.full(walls.shape, -1)
    distance[goal] = 0
    queue = collections.deque([goal])
    while queue:
        i, j = queue.popleft()
        for di, dj in _STEPS:
            cell = i + di, j + dj
            if not walls[cell] and distance[cell] == -1:
                distance[cell] = distance[i, j] + 1
                queue.append(cell)
    return distance


def _next_cells(
    walls: npt.NDArray[np.bool_], distances: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """For each goal and start, the nearest to the goal among the start and its free neighbours."""
    height, width = walls.shape
    frame = ((0, 0), (0, 0), (1, 1), (1, 1))
    # A wall costs more than any way, so that it is never chosen.
    cost = np.pad(np.where(walls, walls.size, distances), frame, constant_values=walls.size)
    around = [cost[:, :, 1 + i : 1 + i + height, 1 + j : 1 + j + width] for i, j in _STEPS]
    choice = np.argmin(np.stack([distances, *around]), axis=0)  # The first of equals.
    here = np.moveaxis(np.indices(walls.shape), 0, -1)
    return here + np.array([(0, 0), *_STEPS])[choice]
