import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from brax import envs
from brax.envs.wrappers.training import VmapWrapper
from jaxtyping import Array, Float

from ..tasks import TaskSpec
from ._autoreset import AutoReset, Keys
from ._scores import Scored


@runtime_checkable
class Specified(Protocol):
    """An environment that says what it is: a `GoalEnv`, or an adapter of another library's."""

    @property
    def spec(self) -> TaskSpec: ...


class TimeLimit(envs.Wrapper):
    """Ends the episodes of a batch after a number of steps.

    It adds to `info`: `steps`, how many an episode has had, and `truncation`, 1 in a step whose
    `done` comes of the limit alone. Brax's own takes the shape of a batch from old-style keys, and
    counts in floating point.
    """

    def __init__(self, env: envs.Env, length: int):
        """**Arguments:**

        - `env`: whose states are batches.
        - `length`: steps of an episode.
        """
        self.env = env
        self.length = length

    def reset(self, rng: Keys) -> envs.State:
        """The starts of episodes, from one key each."""
        state = self.env.reset(rng)
        steps = jnp.zeros(state.done.shape, jnp.int32)
        clock = {"steps": steps, "truncation": jnp.zeros_like(state.done)}
        return dataclasses.replace(state, info={**state.info, **clock})

    def step(self, state: envs.State, action: Float[Array, "envs act"]) -> envs.State:
        """One step of all environments."""
        after = self.env.step(state, action)
        steps = after.info["steps"] + 1
        over = steps >= self.length
        truncation = jnp.where(over, 1.0 - after.done, 0.0)
        clock = {"steps": steps, "truncation": truncation}
        return dataclasses.replace(
            after, done=jnp.where(over, 1.0, after.done), info={**after.info, **clock}
        )


def training(env: Specified, *, repeat_first: bool = False) -> envs.Wrapper:
    """A batch of environments, one for each key that `reset` is given, that never ends.

    An episode ends where the environment says so or after `env.spec.episode_length` steps, as
    `truncation` in `info` tells, and the next one begins: see `AutoReset`.

    **Arguments:**

    - `env`: from `make` or an adapter.
    - `repeat_first`: whether each environment keeps its first start and goal for good, as in the
      paper's code.
    """
    return AutoReset(_limited(env), repeat_first=repeat_first)


def evaluation(env: Specified) -> envs.Wrapper:
    """A batch of environments for one episode each: `scores` reads how they went.

    There is no reset, since nothing counts after the end of an episode: take
    `env.spec.episode_length` steps, or fewer once `info["scores"].active` is 0 everywhere.

    **Arguments:**

    - `env`: from `make` or an adapter.
    """
    return Scored(_limited(env))


def _limited(env: Specified) -> envs.Wrapper:
    if not isinstance(env, envs.Env):
        raise TypeError(
            f"{type(env).__name__} is no environment of Brax; crlx.envs.adapters makes one of it."
        )
    return TimeLimit(VmapWrapper(env), env.spec.episode_length)
