import dataclasses

import numpy as np
import numpy.typing as npt

from ._files import OnProgress
from ._pointmaze import PointMaze

_NOISE = 0.5  # Standard deviation added to each component of an action.
_STITCH = 4  # Cells from start to goal.


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """What was seen and done at each step of some episodes, in full precision.

    **Arguments:**

    - `observations`, `qpos`, `qvel`: `[episodes, rows, 2]`, before the action. The first two
      differ where a portal has just moved the agent.
    - `goals`: `[episodes, rows, 2]`, the positions the agents were heading for.
    - `actions`: `[episodes, rows, 2]`.
    - `success`: `[episodes, rows]`, whether the action led to the goal.
    """

    observations: npt.NDArray[np.float64]
    qpos: npt.NDArray[np.float64]
    qvel: npt.NDArray[np.float64]
    goals: npt.NDArray[np.float64]
    actions: npt.NDArray[np.float64]
    success: npt.NDArray[np.bool_]


def rollout(
    maze: PointMaze,
    style: str,
    *,
    episodes: int,
    rows: int,
    rng: np.random.Generator,
    noise: float = _NOISE,
    progress: OnProgress | None = None,
) -> Record:
    """Lets OGBench's oracle walk through a maze, all episodes side by side.

    `navigate` draws a new goal whenever one is reached; `stitch` starts four cells from its goal
    and stays there. Source: OGBench, arXiv 2410.20092, appendix on datasets.

    **Arguments:**

    - `maze`: where to walk.
    - `style`: `navigate` or `stitch`.
    - `episodes`, `rows`: how many, and the steps of each.
    - `rng`: the only source of randomness.
    - `noise`: standard deviation of what is added to the oracle's unit vector.
    - `progress`: called with the rows so far and in all.
    """
    goal = _start(maze, style, episodes, rng)
    record = _blank(episodes, rows)
    observation = maze.xy
    for t in range(rows):
        record.observations[:, t], record.goals[:, t] = observation, goal
        record.qpos[:, t], record.qvel[:, t] = maze.xy, maze.velocity
        record.actions[:, t] = action = _act(maze, goal, noise, rng)
        observation = maze.step(action, rng=rng)
        success = np.linalg.norm(observation - goal, axis=1) <= maze.tolerance
        record.success[:, t] = success
        if style == "navigate":
            goal[success] = _near(maze, _choose(maze.grid.corners, int(success.sum()), rng), rng)
        if progress is not None:
            progress((t + 1) * episodes, rows * episodes)
    return record


def _blank(episodes: int, rows: int) -> Record:
    observations, qpos, qvel, goals, actions = np.empty((5, episodes, rows, 2))
    return Record(observations, qpos, qvel, goals, actions, np.empty((episodes, rows), bool))


def _start(
    maze: PointMaze, style: str, episodes: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Places the agents and gives their first goals."""
    cells = _choose(maze.grid.free, episodes, rng)
    velocity = 0.1 * rng.standard_normal((episodes, 2))  # As OGBench's reset: recorded, not used.
    maze.place(_near(maze, cells, rng), velocity)
    if style == "navigate":
        return _near(maze, _choose(maze.grid.corners, episodes, rng), rng)
    return _near(maze, np.array([_four_away(maze, cell, rng) for cell in cells]), rng)


def _act(
    maze: PointMaze, goal: npt.NDArray[np.float64], noise: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """`clip(unit(subgoal - xy) + noise * normal, -1, 1)`."""
    way = maze.grid.subgoals(maze.xy, goal) - maze.xy
    unit = way / (np.linalg.norm(way, axis=1, keepdims=True) + 1e-6)  # OGBench's floor.
    return np.clip(unit + noise * rng.standard_normal(unit.shape), -1, 1)


def _four_away(
    maze: PointMaze, cell: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    candidates = np.argwhere(maze.grid.distances[cell[0], cell[1]] == _STITCH)
    return _choose(candidates, 1, rng)[0] if len(candidates) else cell


def _choose(
    cells: npt.NDArray[np.int64], size: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    return cells[rng.integers(len(cells), size=size)]


def _near(
    maze: PointMaze, cells: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    centres = maze.grid.centres(cells)
    return centres + rng.uniform(-maze.noise, maze.noise, centres.shape)
