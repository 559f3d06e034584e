import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import jax.random as jr
from brax import envs
from jaxtyping import Array, Float, PRNGKeyArray

from ..tasks import TaskSpec, loose_types
from ._aims import Aims, judge, settle, strong


class Adapted(envs.Env):
    """What the adapters share: an environment `env` whose states are dataclasses, the `aims` in it,
    the `spec` that comes of both, and the name of what its states call their physics."""

    spec: TaskSpec
    aims: Aims
    env: Any
    physics: Literal["pipeline_state", "data"]

    def reset(self, rng: PRNGKeyArray) -> envs.State:
        """The start of an episode, drawn with the key `rng`."""
        skey, gkey = jr.split(rng)
        state = self._join(self.begin(skey), self.aims.goals(gkey))
        return dataclasses.replace(
            state,
            reward=jnp.zeros_like(state.reward),
            metrics={name: jnp.zeros_like(value) for name, value in state.metrics.items()},
        )

    def step(self, state: envs.State, action: Float[Array, " act"]) -> envs.State:
        """One control step. Actions are clipped to [-1, 1]."""
        before = dataclasses.replace(state.info["inner"], **{self.physics: state.pipeline_state})
        # The libraries' environments write into the dictionaries that they are given.
        own = {"metrics": dict(before.metrics), "info": dict(before.info)}
        given = dataclasses.replace(before, **own)
        with loose_types():
            after = strong(self.env.step(given, jnp.clip(action, -1.0, 1.0)))
        inner, done = settle(before, after, self.aims.observed(after))
        joined = self._join(inner, state.info["goal"])
        return dataclasses.replace(joined, done=done, info={**state.info, **joined.info})

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return self.spec.observation_size

    @property
    def action_size(self) -> int:
        """Length of an action."""
        return self.spec.action_size

    @property
    def backend(self) -> str:
        """Brax's name of the physics."""
        return self.spec.backend

    @property
    def dt(self) -> float:
        """Seconds between two actions."""
        return self.spec.control_dt

    def begin(self, key: PRNGKeyArray) -> Any:
        """The environment's own start."""
        with loose_types():
            return strong(self.env.reset(key))

    def _join(self, inner: Any, goal: Float[Array, " goal"]) -> envs.State:
        observation = jnp.concatenate([self.aims.observed(inner), goal])
        reward, metrics = judge(self.spec, observation, inner)
        info = {"goal": goal, "inner": dataclasses.replace(inner, **{self.physics: None})}
        done = inner.done.astype(jnp.float32)
        return envs.State(getattr(inner, self.physics), observation, reward, done, metrics, info)
