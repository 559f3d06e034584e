import dataclasses
import warnings
from typing import Any

import gymnasium
import numpy as np
import ogbench
from jaxtyping import Float32
from numpy.random import mtrand

# Pixels and discrete actions need another evaluation; single tasks ignore the number of a task.
_UNSUPPORTED = {"visual", "powderworld", "singletask"}


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """How one episode went.

    **Arguments:**

    - `task`: name of the task.
    - `success`: 1 if the goal was reached, else 0.
    - `path`: x and y of the agent at the start and after each action; None outside mazes.
    - `start`, `goal`: the first observation and the goal. In mazes both begin with x and y.
    """

    task: str
    success: float
    path: Float32[np.ndarray, "time 2"] | None
    start: Float32[np.ndarray, " obs"]
    goal: Float32[np.ndarray, " goal"]


class Running:
    """An episode that has not ended."""

    def __init__(self, env: gymnasium.Env, task: int, number: int, seeds: np.random.SeedSequence):
        self.env = env
        self.task = task
        self.number = number
        self.noise = seed_generators(env, seeds)
        mtrand.set_bit_generator(self.noise)
        observation, info = env.reset(options={"task_id": task + 1})
        self.goal = info["goal"].astype(np.float32)
        self.observations = [observation.astype(np.float32)]

    def step(self, action: np.ndarray) -> float | None:
        """Acts once; returns the success when that ended the episode."""
        mtrand.set_bit_generator(self.noise)
        observation, _, terminated, truncated, info = self.env.step(action)
        self.observations.append(observation.astype(np.float32))
        return float(info["success"]) if terminated or truncated else None

    def record(self, name: str, success: float, in_maze: bool) -> Episode:
        path = np.stack([x[:2] for x in self.observations]) if in_maze else None
        return Episode(name, success, path, self.observations[0], self.goal)


def seed_generators(env: gymnasium.Env, seeds: np.random.SeedSequence) -> np.random.MT19937:
    """Seeds the generators that belong to an environment.

    **Returns:** the one to put in the place of numpy's global generator before each step.
    """
    # Noise on start and goal, and teleports, come from numpy's global generator, and so does all
    # that oracles draw; poses come from the environment's own; the goal's pose also from actions
    # sampled from the action space. The second is not seeded through `reset`, which would use the
    # seed twice and give start and goal the same noise.
    noise, poses, actions = seeds.spawn(3)
    env.np_random = np.random.Generator(np.random.PCG64(poses))
    env.action_space.seed(int(actions.generate_state(1)[0]))
    return np.random.MT19937(noise)


def make(name: str, *, collecting: bool = False) -> gymnasium.Env:
    """Builds the environment of an official dataset.

    **Arguments:**

    - `name`: the dataset.
    - `collecting`: whether a manipulation environment sets target after target, as data are
      collected, instead of tasks with a goal.
    """
    unsupported = sorted(_UNSUPPORTED & set(name.split("-")))
    if unsupported:
        raise ValueError(f"{unsupported[0]} environments cannot be evaluated; got {name!r}.")
    options = {"mode": "data_collection", "terminate_at_goal": False} if collecting else {}
    with warnings.catch_warnings():
        # Of a missing display, though nothing is drawn, and of rounded bounds of actions.
        warnings.simplefilter("ignore", UserWarning)
        try:
            env: Any = ogbench.make_env_and_datasets(
                name, env_only=True, disable_env_checker=True, **options
            )
        except gymnasium.error.Error as error:
            raise ValueError(
                f"{name!r} names no environment of OGBench: {error} Give the name of a dataset, "
                "such as 'pointmaze-medium-navigate-v0'."
            ) from error
        bare = env.unwrapped
        space = bare.action_space
        if bare.action_space is not space:
            # Built anew whenever it is asked for, so that seeding it had no effect: hold on to one.
            kind = type(bare)
            bare.__class__ = type(kind.__name__, (kind,), {"action_space": space})
    return env
