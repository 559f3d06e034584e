from brax import envs

from ..tasks import Backend, Reward, TaskSpec, Timing
from ._adapted import Adapted
from ._aims import Aims

_BACKENDS: dict[str, Backend] = {"spring": "spring", "mjx": "mjx", "generalized": "generalized"}


class FromBrax(Adapted):
    """An environment of Brax, with goals.

    Observations are the state followed by the commanded goal. `info` holds the commanded `goal`
    and, as `inner`, all of the environment's own state but its physics, which is
    `pipeline_state`. Metrics are its own and `dist`, `success`, and where radii are given
    `success_easy` and `success_hard`. A step whose observation is not finite is undone and ends
    the episode.
    """

    physics = "pipeline_state"

    def __init__(
        self,
        name: str,
        env: envs.PipelineEnv,
        aims: Aims[envs.State],
        *,
        reward: Reward = "sparse",
        episode_length: int = 1000,
    ):
        """**Arguments:**

        - `name`: what to call it.
        - `env`: not wrapped.
        - `aims`: what to reach in it.
        - `reward`: "sparse", 1 at the goal and 0 elsewhere, or "dense", the environment's own.
        - `episode_length`: control steps.
        """
        backend = _BACKENDS.get(env.backend)
        if backend is None:
            raise ValueError(f"{name} must run on {' or '.join(_BACKENDS)}, not on {env.backend}.")
        self.env, self.aims, self.sys = env, aims, env.sys
        state, goal, where = aims.sizes(self.begin)
        timestep = float(env.sys.opt.timestep)
        self.spec = TaskSpec(
            name=name,
            state_size=state,
            goal_size=goal,
            action_size=env.action_size,
            goal_indices=where,
            episode_length=episode_length,
            timing=Timing(timestep, round(float(env.dt) / timestep)),
            backend=backend,
            radii=aims.radii,
            reward=reward,
        )
