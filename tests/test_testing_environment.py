import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from crlx.testing import check_environment


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    metrics: dict
    info: dict


@dataclasses.dataclass
class Spec:
    observation_size: int = 2
    state_size: int = 1
    goal_size: int = 1
    action_size: int = 1

    def achieved(self, state):
        return state[..., :1]


@dataclasses.dataclass
class Growing:
    """A place that grows by a factor, beside its goal; what is not finite is undone."""

    factor: float
    dtype: type = jnp.float32
    metrics: tuple = ("dist", "success")
    forgets: bool = False
    spec: Spec = dataclasses.field(default_factory=Spec)

    def reset(self, rng):
        zero = jnp.zeros((), jnp.float32)
        obs = jr.normal(rng, (2,)).astype(self.dtype)
        return State(obs, zero, zero, dict.fromkeys(self.metrics, zero), {})

    def step(self, state, action):
        place = self.factor * state.obs[0] + action[0]
        finite = jnp.isfinite(place)
        done = 1.0 - finite.astype(jnp.float32)
        obs = state.obs.at[0].set(jnp.where(finite, place, state.obs[0]))
        info = {} if self.forgets else state.info
        return dataclasses.replace(state, obs=obs, done=done, info=info)


def test_physics_that_is_finite_is_accepted():
    check_environment(Growing(0.5), steps=20, key=jr.key(0))


def test_physics_that_fails_does_not_hide_behind_containment():
    with pytest.raises(AssertionError, match="undone and ended 4 of 4"):
        check_environment(Growing(1e20), steps=20, key=jr.key(0))


def test_what_training_and_evaluation_cannot_take_is_refused():
    with pytest.raises(AssertionError, match=r"Observations are float16; .* take float32"):
        check_environment(Growing(0.5, dtype=jnp.float16), steps=2, key=jr.key(0))
    with pytest.raises(
        AssertionError, match=r"Metrics are \['dist'\]; .* reads `dist` and `success`"
    ):
        check_environment(Growing(0.5, metrics=("dist",)), steps=2, key=jr.key(0))
    with pytest.raises(AssertionError, match=r"drops what a wrapper wrote into `info`"):
        check_environment(Growing(0.5, forgets=True), steps=2, key=jr.key(0))
