import jax
import jax.numpy as jnp
import jax.random as jr
from brax import envs

from crlx.envs.tasks import Radii, TaskSpec, Timing


class Walk(envs.Env):
    """A point on a line, which ends where it is more than 2 from the origin. Starts and goals are
    uniform on (-1, 1)."""

    def __init__(self, length=4, at_reset=lambda x: None):
        timing, radii = Timing(0.01, 1), Radii(0.5, easy=1.0)
        self.spec = TaskSpec("walk", 1, 1, 1, (0, 1), length, timing, "spring", radii, "sparse")
        self.at_reset = at_reset

    def reset(self, rng):
        x, goal = jr.uniform(rng, (2, 1), minval=-1.0)
        jax.debug.callback(self.at_reset, x)
        zero = jnp.zeros((), jnp.float32)
        metrics = {name: zero for name in ("dist", "success", "success_easy")}
        info = {"goal": goal, "pushes": jnp.zeros((), jnp.int32)}
        return envs.State(x, jnp.concatenate([x, goal]), zero, zero, metrics, info)

    def step(self, state, action):
        x, goal = state.pipeline_state + action, state.info["goal"]
        dist = jnp.abs(x - goal)[0]
        near = {"success": dist < 0.5, "success_easy": dist < 1.0}
        metrics = {"dist": dist, **{k: v.astype(jnp.float32) for k, v in near.items()}}
        return state.replace(
            pipeline_state=x,
            obs=jnp.concatenate([x, goal]),
            reward=-dist,
            done=(jnp.abs(x[0]) > 2.0).astype(jnp.float32),
            metrics=metrics,
            info={**state.info, "pushes": state.info["pushes"] + 1},
        )

    observation_size, action_size, backend = 2, 1, "spring"
