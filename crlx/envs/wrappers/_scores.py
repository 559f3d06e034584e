import dataclasses

import equinox as eqx
import jax.numpy as jnp
from brax import envs
from jaxtyping import Array, Float, Int

from ._autoreset import Keys

_SUMMED = ("success", "success_easy", "success_hard", "dist", "distance_from_origin")


class Scores(eqx.Module):
    """How the first episode of each environment of a batch went, up to now.

    **Arguments:**

    - `active`: 1 until that episode has ended, then 0.
    - `length`: its steps.
    - `reached`: 1 once the goal was reached.
    - `dist`: distance to the goal after its last step, in metres.
    - `sums`: sums over its steps of the reward and of metrics, by name.
    """

    active: Float[Array, " envs"]
    length: Int[Array, " envs"]
    reached: Float[Array, " envs"]
    dist: Float[Array, " envs"]
    sums: dict[str, Float[Array, " envs"]]

    def means(self) -> dict[str, Float[Array, ""]]:
        """What an evaluation reports: means over the environments of a batch.

        `episode_success` is the time at the goal in steps: the score of the paper. Likewise
        `episode_reward`, and where the environment has them `episode_success_easy`,
        `_success_hard`, `_dist` and `_distance_from_origin`, are sums over an episode.
        `episode_success_any` is the share of episodes that reach the goal, `episode_length` counts
        steps, and `final_dist` is the distance to the goal after the last one. An episode that has
        not ended counts as it stands.
        """
        means = {f"episode_{name}": jnp.mean(value) for name, value in self.sums.items()}
        return means | {
            "episode_success_any": jnp.mean(self.reached),
            "episode_length": jnp.mean(self.length.astype(jnp.float32)),
            "final_dist": jnp.mean(self.dist),
        }


class Scored(envs.Wrapper):
    """Keeps `Scores` in `info["scores"]`. The step that ends an episode counts, later ones do
    not."""

    def __init__(self, env: envs.Env):
        """**Arguments:**

        - `env`: whose states are batches, with metrics `dist` and `success`.
        """
        self.env = env

    def reset(self, rng: Keys) -> envs.State:
        """The starts of the episodes, from one key each."""
        state = self.env.reset(rng)
        zero, steps = jnp.zeros_like(state.done), jnp.zeros(state.done.shape, jnp.int32)
        sums = {name: zero for name in _counted(state)}
        start = Scores(jnp.ones_like(state.done), steps, zero, zero, sums)
        return dataclasses.replace(state, info={**state.info, "scores": start})

    def step(self, state: envs.State, action: Float[Array, "envs act"]) -> envs.State:
        """One step of all environments."""
        after = self.env.step(state, action)
        old, metrics = after.info["scores"], after.metrics
        active = old.active > 0
        new = Scores(
            active=jnp.where(active, 1.0 - after.done, 0.0),
            length=old.length + active.astype(jnp.int32),
            reached=jnp.where(active, jnp.maximum(old.reached, metrics["success"]), old.reached),
            dist=jnp.where(active, metrics["dist"], old.dist),
            # Chosen, not multiplied by `active`, which would let NaN through.
            sums={
                name: old.sums[name] + jnp.where(active, value, 0.0)
                for name, value in _counted(after).items()
            },
        )
        return dataclasses.replace(after, info={**after.info, "scores": new})


def scores(state: envs.State) -> dict[str, Float[Array, ""]]:
    """What an evaluation reports of the states of an environment from `evaluation`: see
    `Scores.means`."""
    return state.info["scores"].means()


def _counted(state: envs.State) -> dict[str, Float[Array, " envs"]]:
    metrics = {name: state.metrics[name] for name in _SUMMED if name in state.metrics}
    return {"reward": state.reward, **metrics}
