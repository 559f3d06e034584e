import collections
import copy
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..gymnasium import Batch, Policy, numpy_untouched
from ._episodes import Episode, Running, make
from ._maze import Maze


class EvaluationStopped(Exception):
    """An evaluation was stopped before its last episode had ended; it has no result."""


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
        with numpy_untouched():
            self._envs = [make(environment)]
            observation, info = self._envs[0].reset(options={"task_id": 1})
        bare: Any = self._envs[0].unwrapped
        self._tasks: list[str] = [task["task_name"] for task in bare.task_infos]
        self.observation_size = len(observation)
        self.action_size: int = bare.action_space.shape[0]
        self.goal_size = len(info["goal"])
        self.maze = Maze.of(self._envs[0])
        most = 50 if self.maze is not None else 8
        in_all = episodes * len(self._tasks)
        self._num_envs = min(in_all, most) if num_envs is None else num_envs

    def reseeded(self, seed: int) -> "Evaluator":
        """The same with another seed. Both use the same environments, so one at a time."""
        other = copy.copy(self)
        other._seed = seed
        return other

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
        batch: Batch[Running] = Batch(self._num_envs, self.observation_size, self.goal_size)
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

    def _fill(self, batch: Batch[Running], queue: collections.deque[tuple[int, int]], step: int):
        """Lets every environment without an episode take the next of the queue."""
        free = [row for row in range(self._num_envs) if row not in batch.running][: len(queue)]
        if not free:
            return
        with numpy_untouched():
            for row in free:
                if row == len(self._envs):
                    self._envs.append(make(self._environment))
                number, task = queue.popleft()
                seeds = np.random.SeedSequence([self._seed, step, task, number])
                batch.start(row, Running(self._envs[row], task, number, seeds))


def _summary(step: int, episodes: list[Episode]) -> Evaluation:
    successes: dict[str, list[float]] = {}
    for episode in episodes:
        successes.setdefault(episode.task, []).append(episode.success)
    tasks = {task: sum(values) / len(values) for task, values in successes.items()}
    return Evaluation(step, tasks, episodes)
