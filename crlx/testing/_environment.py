import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._require import require, require_close, require_finite, require_same_structure


@runtime_checkable
class _State(Protocol):
    """What the environments of Brax give, as far as it is looked at."""

    obs: Float[Array, "*batch obs"]
    reward: Float[Array, "*batch"]
    done: Float[Array, "*batch"]
    metrics: Mapping[str, Array]
    info: Mapping[str, Any]


@runtime_checkable
class _Spec(Protocol):
    @property
    def observation_size(self) -> int: ...
    @property
    def state_size(self) -> int: ...
    @property
    def goal_size(self) -> int: ...
    @property
    def action_size(self) -> int: ...
    def achieved(self, state: Array) -> Array: ...


@runtime_checkable
class _Environment(Protocol):
    @property
    def spec(self) -> _Spec: ...
    def reset(self, rng: PRNGKeyArray) -> _State: ...
    def step(self, state: _State, action: Array) -> _State: ...


def check_environment(
    env: _Environment, *, batch: int = 4, steps: int = 100, key: PRNGKeyArray
) -> None:
    """A goal-conditioned environment with Brax's interface keeps its promises.

    - Observations have the sizes that its `spec` tells, and hold the goal after the state.
    - `reset` depends on the key alone; `step` is a function.
    - A step keeps the structure, the shapes and the types of a state, so that it can be scanned,
      and what wrappers wrote into its `info`.
    - Under random actions everything stays finite, without a step that is undone as one of NaN is,
      and rewards, `done` and metrics are scalars; flags are 0 or 1, and one of a smaller radius
      implies that of a larger.
    - An action of NaN ends its own environment, leaves a finite observation, and changes nothing in
      the others of a batch.

    **Arguments:**

    - `env`: not wrapped; one environment.
    - `batch`: how many to run by `jax.vmap`.
    - `steps`: length of the random episode.

    **Raises:** `AssertionError`, with what to do.
    """
    rkey, akey = jr.split(key)
    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    start = reset(jr.split(rkey, batch))
    require_close(start.obs, reset(jr.split(rkey, batch)).obs, "obs after the same key", atol=0.0)
    _check_sizes(env, start)
    shape = (steps, batch, env.spec.action_size)
    actions = jr.uniform(akey, shape, minval=-1.0, maxval=1.0)
    # As a wrapper would.
    info: Any = type(start.info)
    start = dataclasses.replace(start, info=info({**start.info, "account": jnp.zeros(batch)}))
    state = step(start, actions[0])
    require(
        "account" in state.info,
        "A step drops what a wrapper wrote into `info`: return `state.replace(...)`.",
    )
    require_same_structure(start, state, "state after a step")
    require_close(state.obs, step(start, actions[0]).obs, "obs after the same step", atol=0.0)
    for action in actions[1:]:
        before, state = state, step(state, action)
        require_finite((state.obs, state.reward, state.metrics), "after a random step: ")
        _check_flags(state.metrics)
        _check_progress(before, state)
    _check_containment(step, start, actions[0])


def _check_sizes(env: _Environment, state: _State) -> None:
    spec, batch = env.spec, state.obs.shape[0]
    sizes = spec.state_size, spec.goal_size
    require(
        state.obs.shape[1] == sum(sizes) == spec.observation_size,
        f"Observations have {state.obs.shape[1]} numbers, but the spec tells of {sizes[0]} for the "
        f"state and {sizes[1]} for the goal.",
    )
    require(
        state.obs.dtype == jnp.float32,
        f"Observations are {state.obs.dtype}; replay and networks take float32.",
    )
    require(
        {"dist", "success"} <= state.metrics.keys(),
        f"Metrics are {sorted(state.metrics)}; evaluation reads `dist` and `success`.",
    )
    achieved = spec.achieved(state.obs[:, : spec.state_size])
    require(
        achieved.shape[1] == spec.goal_size,
        f"`goal_indices` give goals of {achieved.shape[1]} numbers, not {spec.goal_size}.",
    )
    for name, value in {"reward": state.reward, "done": state.done, **state.metrics}.items():
        require(
            value.shape == (batch,) and value.dtype == jnp.float32,
            f"{name} is {value.dtype}{list(value.shape[1:])}; it must be a float32 scalar.",
        )


def _check_flags(metrics: Mapping[str, Array]) -> None:
    flags = {name: np.asarray(value) for name, value in metrics.items() if "success" in name}
    for name, flag in flags.items():
        require(np.isin(flag, (0, 1)).all(), f"{name} is neither 0 nor 1.")
    order = [flags[name] for name in ("success_hard", "success", "success_easy") if name in flags]
    for small, large in itertools.pairwise(order):
        require((small <= large).all(), "Success within a smaller radius implies a larger one's.")


def _check_progress(before: _State, after: _State) -> None:
    """Physics that is not finite must not hide behind the containment of NaN."""
    same = np.all(np.asarray(before.obs) == np.asarray(after.obs), axis=1)
    undone = same & (np.asarray(after.done) == 1)
    require(
        not undone.any(),
        f"A random action was undone and ended {undone.sum()} of {len(undone)} environments, as "
        "NaN would: its physics was not finite. Take shorter steps of physics.",
    )


def _check_containment(step, start: _State, action: Float[Array, "batch act"]) -> None:
    clean, broken = step(start, action), step(start, action.at[0].set(jnp.nan))
    require_finite(broken.obs, "obs after an action of NaN")
    require_finite(broken.reward, "reward after an action of NaN")
    require(
        broken.done[0] == 1,
        "An action of NaN must end its environment: set `done` where the physics is not finite.",
    )
    require_close(
        broken.obs[1:], clean.obs[1:], "obs of the others after an action of NaN", atol=0.0
    )
