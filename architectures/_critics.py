from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import AbstractCritic, AbstractEncoder, AbstractEnergy, Affine, Spec, pairwise


class TwoTower(AbstractCritic):
    """Scores a state-action pair with a goal by the energy of their two embeddings.

    **Arguments:**

    - `state_action`: encoder of the concatenated observation and action.
    - `goal`: encoder of the goal.
    - `energy`: compares the embeddings.
    - `observation_units`, `goal_units`: rescaling of the inputs.
    - `log_scale`: trainable logarithm of a factor on the scores, capped at 100; or None.
    """

    state_action: AbstractEncoder
    goal: AbstractEncoder
    energy: AbstractEnergy
    observation_units: Affine
    goal_units: Affine
    log_scale: Float[Array, ""] | None = None

    def __call__(
        self,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        score = self.energy(self.embed(observation, action), self.embed_goal(goal))
        return self._scale() * score

    def pairs(
        self,
        observations: Float[Array, "rows obs"],
        actions: Float[Array, "rows act"],
        goals: Float[Array, "goals goal"],
    ) -> Float[Array, "rows goals"]:
        rows = jax.vmap(self.embed)(observations, actions)
        columns = jax.vmap(self.embed_goal)(goals)
        return self._scale() * pairwise(self.energy, rows, columns)

    def embed(
        self, observation: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> Float[Array, " dim"]:
        """The embedding of a state and an action."""
        return self.state_action(jnp.concatenate([self.observation_units(observation), action]))

    def embed_goal(self, goal: Float[Array, " goal"]) -> Float[Array, " dim"]:
        """The embedding of a goal."""
        return self.goal(self.goal_units(goal))

    def _scale(self) -> Float[Array, ""] | float:
        if self.log_scale is None:
            return 1.0
        return jnp.exp(jnp.minimum(self.log_scale, jnp.log(100.0)))


def two_tower(
    spec: Spec,
    make: Callable[..., AbstractEncoder],
    energy: AbstractEnergy,
    log_scale: Float[Array, ""] | None = None,
    *,
    key: PRNGKeyArray,
) -> TwoTower:
    """A critic whose two encoders, of the sizes that `spec` asks for, are made by `make`."""
    skey, gkey = jr.split(key)
    return TwoTower(
        make(spec.observation_size + spec.action_size, key=skey),
        make(spec.goal_size, key=gkey),
        energy,
        spec.observation_units,
        spec.goal_units,
        log_scale,
    )
