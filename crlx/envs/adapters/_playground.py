from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, PRNGKeyArray

from ..tasks import Reward, TaskSpec, Timing
from ._adapted import Adapted
from ._aims import Aims


@runtime_checkable
class PlaygroundEnv(Protocol):
    """What is needed of an environment of MuJoCo Playground, which need not be installed.

    Its states have `data`, `obs`, `reward`, `done`, `metrics`, `info` and `replace`.
    """

    @property
    def action_size(self) -> int: ...

    @property
    def dt(self) -> float: ...

    @property
    def sim_dt(self) -> float: ...

    def reset(self, rng: PRNGKeyArray) -> Any: ...

    def step(self, state: Any, action: Array) -> Any: ...


class FromPlayground(Adapted):
    """An environment of MuJoCo Playground, with goals, as an environment of Brax.

    All is as in `FromBrax`; `pipeline_state` is the environment's `data`.
    """

    physics = "data"

    def __init__(
        self,
        name: str,
        env: PlaygroundEnv,
        aims: Aims,
        *,
        reward: Reward = "sparse",
        episode_length: int = 1000,
    ):
        """**Arguments:**

        - `name`: what to call it.
        - `env`: not wrapped.
        - `aims`: what to reach in it; its functions get Playground's states.
        - `reward`: "sparse", 1 at the goal and 0 elsewhere, or "dense", the environment's own.
        - `episode_length`: control steps.
        """
        self.env, self.aims = env, aims
        state, goal, where = aims.sizes(self.begin)
        self.spec = TaskSpec(
            name=name,
            state_size=state,
            goal_size=goal,
            action_size=env.action_size,
            goal_indices=where,
            episode_length=episode_length,
            timing=Timing(float(env.sim_dt), round(env.dt / env.sim_dt)),
            backend="mjx",
            radii=aims.radii,
            reward=reward,
        )
