from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from ._batch import Batch, Policy, numpy_untouched
from ._trial import Seen, Trial, observed, told


class GoalEvaluator:
    """Runs a policy in a goal-conditioned environment of gymnasium.

    As in Gymnasium-Robotics, its observations are dictionaries with `observation`, `achieved_goal`
    and `desired_goal`, all of them vectors, and its actions have bounds. An episode depends on the
    policy and on (`seed`, `step`, episode) alone.

    **Arguments:**

    - `make`: builds one environment, whose episodes end, as by gymnasium's `TimeLimit`.
    - `episodes`: how many.
    - `num_envs`: environments, and so the size of the policy's batch.
    - `seed`: chooses starts and goals.
    - `observe`: what the policy sees beside the goal. Mazes of Gymnasium-Robotics leave the place
      out of `observation`.
    - `reached`: whether an action led to the goal, by the observation and the info after it.

    `observation_size`, `action_size` and `goal_size` are the lengths of the vectors.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env],
        *,
        episodes: int = 50,
        num_envs: int = 8,
        seed: int = 0,
        observe: Callable[[Seen], np.ndarray] = observed,
        reached: Callable[[Seen, Mapping[str, Any]], bool] = told,
    ):
        if episodes < 1 or num_envs < 1:
            raise ValueError(f"Give one episode and environment or more, not {episodes, num_envs}.")
        self._episodes, self._seed = episodes, seed
        self._observe, self._reached = observe, reached
        self._envs = [make() for _ in range(min(num_envs, episodes))]
        space = self._envs[0].action_space
        if (
            not isinstance(space, gymnasium.spaces.Box)
            or len(space.shape) != 1
            or not space.is_bounded()
        ):
            raise ValueError(f"Actions must be vectors with bounds, not of {space}.")
        first = self._begin(0, 0, 0)
        self.observation_size, self.goal_size = len(first.observations[0]), len(first.goal)
        self.action_size = len(space.low)

    def __call__(self, policy: Policy, *, step: int) -> list[Trial]:
        """Runs all episodes.

        **Arguments:**

        - `policy`: maps observations and goals, one a row, to actions in [-1, 1], beyond which they
          are clipped. The batch never changes its size; actions of rows whose episodes have ended
          are ignored.
        - `step`: number of gradient steps so far; it varies starts and goals, as `seed` does.

        **Returns:** the episodes, of which `scores` makes means.
        """
        trials: list[Trial] = []
        batch: Batch[Trial] = Batch(len(self._envs), self.observation_size, self.goal_size)
        while batch.running or len(trials) < self._episodes:
            for row in range(len(self._envs)):
                if row not in batch.running and len(trials) < self._episodes:
                    trials.append(self._begin(row, step, len(trials)))
                    batch.start(row, trials[-1])
            batch.step(batch.act(policy, self.action_size))
        return trials

    def _begin(self, row: int, *numbers: int) -> Trial:
        seed = int(np.random.SeedSequence([self._seed, *numbers]).generate_state(1)[0])
        with numpy_untouched():
            return Trial(self._envs[row], seed, self._observe, self._reached)
