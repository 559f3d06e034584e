import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

Seen = Mapping[str, np.ndarray]


def told(seen: Seen, info: Mapping[str, Any]) -> bool:
    """Success as Gymnasium-Robotics' environments tell it, some by the one name, some by the
    other."""
    del seen
    for name in ("is_success", "success"):
        if name in info:
            return bool(info[name])
    raise ValueError("The environment does not tell of success: give `reached`, which decides it.")


def observed(seen: Seen) -> np.ndarray:
    """The observation, which may leave out what is achieved."""
    return seen["observation"]


@dataclasses.dataclass(eq=False)
class Trial:
    """An episode, up to now.

    **Arguments:**

    - `env`, `seed`: where it runs, and what its start and its goal are drawn with.
    - `observe`, `reached`: see `GoalEvaluator`.

    `successes` and `distances` tell, after each action, whether the goal is reached and how far
    from it is what is achieved; the first distance is the start's.
    """

    env: gymnasium.Env
    seed: int
    observe: Callable[[Seen], np.ndarray]
    reached: Callable[[Seen, Mapping[str, Any]], bool]

    def __post_init__(self):
        seen, _ = self.env.reset(seed=self.seed)
        self.successes: list[bool] = []
        self.observations: list[np.ndarray] = []
        self.distances: list[float] = []
        self._see(seen)

    def step(self, action: np.ndarray) -> float | None:
        """Acts once, with what of [-1, 1] becomes of the bounds of actions; returns whether the
        goal was ever reached when that ended the episode."""
        space: Any = self.env.action_space
        scaled = space.low + 0.5 * (action + 1.0) * (space.high - space.low)
        scaled = np.clip(scaled.astype(space.dtype), space.low, space.high)
        seen, _, terminated, truncated, info = self.env.step(scaled)
        self._see(seen)
        self.successes.append(self.reached(seen, info))
        return float(any(self.successes)) if terminated or truncated else None

    def _see(self, seen: Seen) -> None:
        # Goals may move within an episode.
        self.goal = np.asarray(seen["desired_goal"], np.float32)
        self.observations.append(np.asarray(self.observe(seen), np.float32))
        distance = np.linalg.norm(seen["achieved_goal"] - seen["desired_goal"])
        self.distances.append(float(distance))


def scores(trials: list[Trial]) -> dict[str, float]:
    """Means over episodes, by the names that `crlx.envs.wrappers.scores` gives them:
    `episode_success` is the time at the goal in steps, `episode_success_any` the share that ever
    reached it, `final_dist` the distance at the end."""
    return {
        "episode_success": float(np.mean([sum(trial.successes) for trial in trials])),
        "episode_success_any": float(np.mean([any(trial.successes) for trial in trials])),
        "episode_length": float(np.mean([len(trial.successes) for trial in trials])),
        "final_dist": float(np.mean([trial.distances[-1] for trial in trials])),
    }
