import collections
import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import ogbench
from jaxtyping import Float32
from numpy.random import mtrand
from numpy.typing import ArrayLike

from ._maze import Maze

Policy = Callable[[Float32[np.ndarray, "envs obs"], Float32[np.ndarray, "envs goal"]], ArrayLike]

# Pixels and discrete actions need another evaluation; single tasks ignore the number of a task.
_UNSUPPORTED = {"visual", "powderworld", "singletask"}


class EvaluationStopped(Exception):
    """An evaluation was stopped before its last episode had ended; it has no result."""


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


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of one evaluation.

    **Arguments:**

    - `step`: number of gradient steps after which the policy was evaluated.
    - `tasks`: mean success of each task, between 0 and 1, by the task's name.
    - `episodes`: all episodes, task by task.
    """

    step: int
    tasks: dict[str, float]
    episodes: list[Episode]

    @property
    def overall_success(self) -> float:
        """The unweighted mean over the tasks."""
        return sum(self.tasks.values()) / len(self.tasks)


class Evaluator:
    """Measures how often a policy reaches the goals that OGBench sets.

    Every task is tried in `episodes` episodes, each from a noisy start to a noisy goal until
    success or the time limit, with actions clipped to [-1, 1]. The score is the mean over tasks.

    An episode depends on the policy and on (`seed`, `step`, task, episode) alone: not on
    `num_envs` nor on what ran before, as long as the policy treats rows alike. (A compiled network
    may round differently at another batch size.) Environments draw from numpy's global generator,
    which is put back as it was.

    **Arguments:**

    - `environment`: name of a dataset, such as `pointmaze-medium-navigate-v0`.
    - `episodes`: episodes per task; the results published for the benchmark use 50.
    - `num_envs`: environments, and so the size of the policy's batch. By default at most 50 in
      mazes and 8 elsewhere, where each takes about a second to build.
    - `seed`: chooses starts and goals.

    `observation_size`, `action_size` and `goal_size` are the lengths of the vectors, and `maze` is
    the maze to draw paths in, or None.

    Source: OGBench (Park et al., arXiv 2410.20092), whose evaluation script this follows.
    """

    def __init__(
        self,
        environment: str,
        *,
        episodes: int = 50,
        num_envs: int | None = None,
        seed: int = 0,
    ):
        if episodes < 1 or (num_envs is not None and num_envs < 1):
            raise ValueError(
                "An evaluation needs at least one episode and one environment; got "
                f"{episodes} and {num_envs}."
            )
        self._environment = environment
        self._episodes = episodes
        self._seed = seed
        # One now, so that a wrong name is found before hours of training; the others once they
        # are needed. None is built twice, since each keeps a file open for good.
        with _numpy_untouched():
            self._envs = [_make(environment)]
            observation, info = self._envs[0].reset(options={"task_id": 1})
        bare: Any = self._envs[0].unwrapped
        self._tasks: list[str] = [task["task_name"] for task in bare.task_infos]
        self.observation_size = len(observation)
        self.action_size: int = bare.action_space.shape[0]
        self.goal_size = len(info["goal"])
        self.maze = Maze.of(self._envs[0])
        most = 50 if self.maze is not None else 8
        self._num_envs = min(episodes, most) if num_envs is None else num_envs

    def __call__(
        self,
        policy: Policy,
        *,
        step: int,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Evaluation:
        """Runs all episodes of all tasks.

        **Arguments:**

        - `policy`: maps observations `[num_envs, obs]` and goals `[num_envs, goal]` to actions
          `[num_envs, act]`. The batch never changes its size; rows without a running episode hold
          zeros or old values, and their actions are ignored.
        - `step`: number of gradient steps so far; it varies starts and goals, as `seed` does.
        - `stop`: asked before every time step; when it is true, `EvaluationStopped` is raised.
        - `progress`: told how many episodes have ended, and of how many.

        **Returns:**

        The success of every task, and the episodes behind it.
        """
        tasks = range(len(self._tasks))
        queue = collections.deque(itertools.product(range(self._episodes), tasks))
        total = len(queue)
        episodes: dict[tuple[int, int], Episode] = {}
        batch = _Batch(self._num_envs, self.observation_size, self.goal_size)
        self._fill(batch, queue, step)
        while batch.running:
            if stop():
                raise EvaluationStopped(f"Stopped after {len(episodes)} of {total} episodes.")
            ended = batch.step(batch.act(policy, self.action_size))
            for running, success in ended:
                episode = running.record(self._tasks[running.task], success, self.maze is not None)
                episodes[running.task, running.number] = episode
            self._fill(batch, queue, step)
            if progress is not None and ended:
                progress(len(episodes), total)
        return _summary(step, [episodes[key] for key in sorted(episodes)])

    def _fill(self, batch: "_Batch", queue: "collections.deque[tuple[int, int]]", step: int):
        """Lets every environment without an episode take the next of the queue."""
        free = [row for row in range(self._num_envs) if row not in batch.running][: len(queue)]
        if not free:
            return
        with _numpy_untouched():
            for row in free:
                if row == len(self._envs):
                    self._envs.append(_make(self._environment))
                number, task = queue.popleft()
                seeds = np.random.SeedSequence([self._seed, step, task, number])
                batch.start(row, _Running(self._envs[row], task, number, seeds))


class _Running:
    """An episode that has not ended."""

    def __init__(self, env: gymnasium.Env, task: int, number: int, seeds: np.random.SeedSequence):
        self.env = env
        self.task = task
        self.number = number
        # Noise on start and goal, and teleports, come from numpy's global generator; poses from
        # the environment's own; the goal's pose also from actions sampled from the action space.
        # The second is not seeded through `reset`, which would use the seed twice and give start
        # and goal the same noise.
        noise, poses, actions = seeds.spawn(3)
        self.noise = np.random.MT19937(noise)
        env.np_random = np.random.Generator(np.random.PCG64(poses))
        env.action_space.seed(int(actions.generate_state(1)[0]))
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


class _Batch:
    """The running episodes by row, and what the policy sees of them."""

    def __init__(self, rows: int, observation_size: int, goal_size: int):
        self.observations = np.zeros((rows, observation_size), np.float32)
        self.goals = np.zeros((rows, goal_size), np.float32)
        self.running: dict[int, _Running] = {}

    def start(self, row: int, episode: _Running):
        self.running[row] = episode
        self.observations[row] = episode.observations[0]
        self.goals[row] = episode.goal

    def act(self, policy: Policy, action_size: int) -> np.ndarray:
        # Copies, since the policy may keep its arguments, or read them later.
        actions = np.asarray(policy(self.observations.copy(), self.goals.copy()), np.float32)
        shape = len(self.goals), action_size
        if actions.shape != shape:
            raise ValueError(
                f"The policy must return actions of shape {shape}; got {actions.shape}."
            )
        # Clipping lets NaN through, and the simulator answers it with a reset of its own.
        if not np.isfinite(actions[list(self.running)]).all():
            raise ValueError("The policy returned actions that are not finite numbers.")
        return np.clip(actions, -1.0, 1.0)

    def step(self, actions: np.ndarray) -> list[tuple[_Running, float]]:
        """Acts once in every running episode; returns those that ended, with their success."""
        ended = []
        with _numpy_untouched():
            for row, episode in list(self.running.items()):
                success = episode.step(actions[row])
                self.observations[row] = episode.observations[-1]
                if success is not None:
                    ended.append((self.running.pop(row), success))
        return ended


def _summary(step: int, episodes: list[Episode]) -> Evaluation:
    successes: dict[str, list[float]] = {}
    for episode in episodes:
        successes.setdefault(episode.task, []).append(episode.success)
    tasks = {task: sum(values) / len(values) for task, values in successes.items()}
    return Evaluation(step, tasks, episodes)


def _make(name: str) -> gymnasium.Env:
    unsupported = sorted(_UNSUPPORTED & set(name.split("-")))
    if unsupported:
        raise ValueError(f"{unsupported[0]} environments cannot be evaluated; got {name!r}.")
    with warnings.catch_warnings():
        # Of a missing display, though nothing is drawn, and of rounded bounds of actions.
        warnings.simplefilter("ignore", UserWarning)
        try:
            env: Any = ogbench.make_env_and_datasets(name, env_only=True, disable_env_checker=True)
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


@contextlib.contextmanager
def _numpy_untouched() -> Iterator[None]:
    """Restores the global generator of numpy, which must not notice what happens inside."""
    generator = mtrand.get_bit_generator()
    state = np.random.get_state(legacy=False)  # noqa: NPY002 (this is the one to restore)
    try:
        yield
    finally:
        mtrand.set_bit_generator(generator)
        np.random.set_state(state)  # noqa: NPY002
