import typing
import warnings

import numpy as np
import numpy.typing as npt
import ogbench
from ogbench.locomaze.point import PointEnv

from ._grid import Grid

_SPEED = 0.2  # Distance per unit of action.
_SLACK = 1e-6  # Agents this close to a contact go to MuJoCo as well.
_move: typing.Any = PointEnv.step  # Not the maze's: portals and goals are our business.
_NEIGHBOURS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]


class PointMaze:
    """Many agents in one pointmaze of OGBench, stepped at once.

    OGBench adds `0.2 * action` to the position, sets the velocity to zero and lets MuJoCo take
    five steps. At zero velocity these move only what touches a wall, so OGBench itself is asked
    about those agents alone, one after the other; the others move by exactly `0.2 * action`.

    Source: `PointEnv` and `MazeEnv` in `ogbench.locomaze`, where all other constants are read.
    """

    grid: Grid
    tolerance: float
    """Distance from the goal that counts as success."""
    noise: float
    """Starts and goals lie within this of the centre of their cell, per axis."""
    xy: npt.NDArray[np.float64]
    """`[agents, 2]`, positions."""
    velocity: npt.NDArray[np.float64]
    """`[agents, 2]`, velocities. The next step ignores them, but OGBench records them."""

    def __init__(self, maze: str):
        """**Arguments:**

        - `maze`: `medium`, `large`, `giant` or `teleport`.
        """
        self._env = env = _make(maze)
        self._radius = float(env.model.geom("pointbody").size[0])
        self.grid = Grid(env.maze_map == 1, float(env._maze_unit), float(env._offset_x))
        self.tolerance = float(env._goal_tol)
        self.noise = float(env._noise * env._maze_unit / 4)
        portals = env._teleport_info or {}
        self._entries = np.array(portals.get("teleport_in_xys", ()), float).reshape(-1, 2)
        self._exits = np.array(portals.get("teleport_out_xys", ()), float).reshape(-1, 2)
        self._reach = 1.5 * portals.get("teleport_radius", 0)
        self.place(np.zeros((0, 2)), np.zeros((0, 2)))

    def place(self, xy: npt.NDArray[np.float64], velocity: npt.NDArray[np.float64]) -> None:
        """Starts anew with other agents.

        **Arguments:**

        - `xy`: `[agents, 2]`, positions clear of the walls.
        - `velocity`: `[agents, 2]`.
        """
        self.xy = xy.copy()
        self.velocity = velocity.copy()
        self._warm = np.zeros_like(xy)  # Where MuJoCo's solver starts; zero without a contact.

    def step(
        self, actions: npt.NDArray[np.float64], *, rng: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Moves every agent once.

        **Arguments:**

        - `actions`: `[agents, 2]`, in -1 ... 1.
        - `rng`: chooses the exits of portals.

        **Returns:** `[agents, 2]`, the observations. They are `xy` except for agents that a
        portal has moved: as in OGBench, these are still observed at its entry.
        """
        if not (np.abs(actions) <= 1).all():
            raise ValueError("Actions must lie in -1 ... 1, or walls can be crossed; clip them.")
        before, self.xy = self.xy, self.xy + _SPEED * actions
        self.velocity = np.zeros_like(self.xy)
        touching = self._touching()
        self._warm[~touching] = 0
        for agent in np.flatnonzero(touching):
            self._resolve(int(agent), before[agent], actions[agent])
        observations = self.xy.copy()
        self._teleport(rng)
        return observations

    def _touching(self) -> npt.NDArray[np.bool_]:
        cell = self.grid.cells(self.xy)
        half = 0.5 * self.grid.unit
        offset = self.xy - self.grid.centres(cell)
        touching = np.zeros(len(cell), bool)
        edge = np.flatnonzero((np.abs(offset) > half - self._radius - _SLACK).any(axis=1))
        cell, offset = cell[edge], offset[edge]
        for i, j in _NEIGHBOURS:
            wall = self.grid.walls[cell[:, 0] + i, cell[:, 1] + j]
            centre = np.array([j, i]) * self.grid.unit
            gap = np.maximum(np.abs(offset - centre) - half, 0)
            near = (gap**2).sum(axis=1) < (self._radius + _SLACK) ** 2
            touching[edge] |= wall & near
        return touching

    def _resolve(
        self, agent: int, xy: npt.NDArray[np.float64], action: npt.NDArray[np.float64]
    ) -> None:
        data = self._env.data
        data.qpos[:] = xy
        data.qacc_warmstart[:] = self._warm[agent]
        _move(self._env, action)
        self.xy[agent] = data.qpos
        self.velocity[agent] = data.qvel
        self._warm[agent] = data.qacc_warmstart

    def _teleport(self, rng: np.random.Generator) -> None:
        if not len(self._entries):
            return
        away = np.linalg.norm(self.xy[:, None] - self._entries, axis=-1)
        moved = np.flatnonzero((away <= self._reach).any(axis=1))
        self.xy[moved] = self._exits[rng.integers(len(self._exits), size=len(moved))]


def _make(maze: str) -> typing.Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Of a missing display; nothing is drawn.
        env: typing.Any = ogbench.make_env_and_datasets(
            f"pointmaze-{maze}-navigate-v0", env_only=True, disable_env_checker=True
        )
    return env.unwrapped
