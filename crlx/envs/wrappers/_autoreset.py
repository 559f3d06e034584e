import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from brax import envs
from jaxtyping import Array, Bool, Float, Key, UInt32

# One for each environment, of the new kind or the old.
Keys = Key[Array, " envs"] | UInt32[Array, "envs _"]

_OF_THE_STEP = ("steps", "truncation")  # They tell of the step that ended the episode.


class AutoReset(envs.Wrapper):
    """Begins a new episode in each environment of a batch that is done.

    After the step that ends an episode, `pipeline_state`, `obs` and what the environment keeps in
    `info` are those of the next start, while `reward`, `done`, `metrics`, `steps` and `truncation`
    still tell of that step. By default each episode has a start and a goal of its own. Those of the
    whole batch are drawn, but only in a step in which an environment is done. (Under a further
    `jax.vmap` they are drawn in every step.)

    It adds to `info`:

    - `trajectory`: `[envs]`, the number of the episode that `obs` belongs to, from 0.
    - `last_observation`: `[envs, obs]`, the observation after the step, also where it ended an
      episode: the successor of what was observed before.
    - `key`: `[envs]`, from which starts are drawn, or `first`: what is repeated.
    """

    def __init__(self, env: envs.Env, *, repeat_first: bool):
        """**Arguments:**

        - `env`: whose states are batches with `steps` in `info`.
        - `repeat_first`: whether each environment starts all its episodes as it did the first, as
          Brax and the paper's code do, and draws no more.
        """
        self.env = env
        self.repeat_first = repeat_first

    def reset(self, rng: Keys) -> envs.State:
        """The first episodes, from one key each."""
        if self.repeat_first:
            state = self.env.reset(rng)
            memory = {"first": _start(state)}
        else:
            keys = jax.vmap(jr.split)(rng)
            state = self.env.reset(keys[:, 0])
            memory = {"key": keys[:, 1]}
        trajectory = jnp.zeros(state.done.shape, jnp.int32)
        memory |= {"trajectory": trajectory, "last_observation": state.obs}
        return dataclasses.replace(state, info={**state.info, **memory})

    def step(self, state: envs.State, action: Float[Array, "envs act"]) -> envs.State:
        """One step of all environments, and new starts for those that it ends."""
        steps = jnp.where(state.done > 0, 0, state.info["steps"])
        state = dataclasses.replace(
            state, done=jnp.zeros_like(state.done), info={**state.info, "steps": steps}
        )
        after = self.env.step(state, action)
        done = after.done > 0
        trajectory = after.info["trajectory"] + done.astype(jnp.int32)
        after = dataclasses.replace(
            after, info={**after.info, "trajectory": trajectory, "last_observation": after.obs}
        )
        physics, obs, info = jax.lax.cond(
            jnp.any(done),
            lambda old: self._renew(done, old),
            lambda old: old,
            (after.pipeline_state, after.obs, after.info),
        )
        return dataclasses.replace(after, pipeline_state=physics, obs=obs, info=info)

    def _renew(self, done: Bool[Array, " envs"], old: tuple[Any, Any, dict[str, Any]]):
        info = old[2]
        if self.repeat_first:
            start = info["first"]
        else:
            start = _start(self.env.reset(jax.vmap(jr.fold_in)(info["key"], info["trajectory"])))
        # Of `info`, the environment's own; the rest goes on.
        own = {name: info[name] for name in start[2]}
        physics, obs, own = _choose(done, start, (old[0], old[1], own))
        return physics, obs, {**info, **own}


def _start(state: envs.State) -> tuple[Any, Any, dict[str, Any]]:
    """What a new episode replaces."""
    own = {name: value for name, value in state.info.items() if name not in _OF_THE_STEP}
    return state.pipeline_state, state.obs, own


def _choose(condition: Bool[Array, " envs"], yes, no):
    def choose(a, b):
        return jnp.where(jnp.expand_dims(condition, tuple(range(1, jnp.ndim(a)))), a, b)

    return jax.tree.map(choose, yes, no)
