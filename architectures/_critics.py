from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import (
    AbstractEncoder,
    AbstractEnergy,
    AbstractLearnedEnergy,
    AbstractQuasimetric,
    AbstractSharedCritic,
    AbstractTowers,
    AbstractUnits,
    Spec,
    check_instance,
    pairwise,
)

_LARGEST_SCALE = 100.0


class TwoTower(AbstractTowers):
    """Scores a state-action pair with a goal by the energy of their two embeddings.

    **Arguments:**

    - `state_action`: encoder of the concatenated observation and action.
    - `goal`: encoder of the goal.
    - `energy`: compares the embeddings.
    - `observation_units`, `goal_units`: rescaling of the inputs.
    - `log_scale`: trainable logarithm of a factor on the scores (of their inverse temperature),
      capped at 100; or None.
    """

    state_action: AbstractEncoder
    goal: AbstractEncoder
    energy: AbstractEnergy
    observation_units: AbstractUnits
    goal_units: AbstractUnits
    log_scale: Float[Array, ""] | None = None

    def __call__(
        self,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        return self.compare(self.embed(observation, action), self.embed_goal(goal))

    def pairs(
        self,
        observations: Float[Array, "rows obs"],
        actions: Float[Array, "rows act"],
        goals: Float[Array, "goals goal"],
    ) -> Float[Array, "rows goals"]:
        rows = jax.vmap(self.embed)(observations, actions)
        columns = jax.vmap(self.embed_goal)(goals)
        return scaled(pairwise(self.energy, rows, columns), self.log_scale)

    @property
    def towers(self) -> tuple[AbstractEncoder, AbstractEncoder]:
        return self.state_action, self.goal

    def inputs(
        self, observation: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> Float[Array, " size"]:
        return jnp.concatenate([self.observation_units(observation), action])

    def goal_inputs(self, goal: Float[Array, " goal"]) -> Float[Array, " size"]:
        return self.goal_units(goal)

    def embed(
        self, observation: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> Float[Array, " dim"]:
        """The embedding of a state and an action."""
        return self.state_action(self.inputs(observation, action))

    def embed_goal(self, goal: Float[Array, " goal"]) -> Float[Array, " dim"]:
        """The embedding of a goal."""
        return self.goal(self.goal_inputs(goal))

    def compare(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        return scaled(self.energy(x, y), self.log_scale)


class SharedTower(AbstractTowers, AbstractSharedCritic):
    r"""Minus the quasimetric distance from one state and action to another, both embedded by one
    encoder: $-d(\phi(s, a), \phi(s', a'))$. A goal is the concatenation of $s'$ and $a'$.

    **Arguments:**

    - `encoder`: of a concatenated observation and action.
    - `energy`: the quasimetric.
    - `observation_units`: rescaling of observations.
    - `observation_size`: where the action begins in a goal.
    - `log_scale`: as for `TwoTower`.

    ??? cite
        Myers et al., Learning Temporal Distances: Contrastive Successor Features Can Provide a
        Metric Structure for Decision-Making (ICML 2024).
    """

    encoder: AbstractEncoder
    energy: AbstractQuasimetric
    observation_units: AbstractUnits
    observation_size: int = eqx.field(static=True)
    log_scale: Float[Array, ""] | None = None

    def __call__(
        self,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, ""]:
        return self._towers(observation, action, goal)

    def pairs(
        self,
        observations: Float[Array, "rows obs"],
        actions: Float[Array, "rows act"],
        goals: Float[Array, "goals goal"],
    ) -> Float[Array, "rows goals"]:
        return self._towers.pairs(observations, actions, goals)

    @property
    def towers(self) -> tuple[AbstractEncoder, AbstractEncoder]:
        return self.encoder, self.encoder

    def inputs(
        self, observation: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> Float[Array, " size"]:
        return self._towers.inputs(observation, action)

    def goal_inputs(self, goal: Float[Array, " goal"]) -> Float[Array, " size"]:
        return self._towers.goal_inputs(goal)

    def embed(
        self, observation: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> Float[Array, " dim"]:
        return self._towers.embed(observation, action)

    def compare(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        return self._towers.compare(x, y)

    @property
    def _towers(self) -> TwoTower:
        """Two towers that are one: only here, since as a field it would hold all arrays twice."""
        units = self.observation_units
        goal_units = _StateUnits(units, self.observation_size)
        return TwoTower(self.encoder, self.encoder, self.energy, units, goal_units, self.log_scale)


class _StateUnits(AbstractUnits):
    """Rescales the state in a concatenated state and action, and leaves the action."""

    units: AbstractUnits
    size: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " size"]:
        return jnp.concatenate([self.units(x[: self.size]), x[self.size :]])


def scaled(scores: Array, log_scale: Float[Array, ""] | None) -> Array:
    """Scores times their trainable factor, where there is one."""
    if log_scale is None:
        return scores
    return jnp.exp(jnp.minimum(log_scale, jnp.log(_LARGEST_SCALE))) * scores


def tower_critic(
    spec: Spec,
    make: Callable[..., AbstractEncoder],
    energy: AbstractEnergy,
    *,
    dim: int,
    shared: bool = False,
    scale: float | None = None,
    key: PRNGKeyArray,
) -> TwoTower | SharedTower:
    """A critic whose encoders, of the sizes that `spec` asks for, are made by `make`.

    **Arguments:**

    - `spec`: of the task.
    - `make`: builds an encoder from the sizes of its input and output and `key`.
    - `energy`: compares embeddings.
    - `dim`: size of the embeddings.
    - `shared`: one encoder for states and actions, present and future.
    - `scale`: where a trainable factor on the scores starts; None for no factor.
    """
    skey, gkey, ekey = jr.split(key, 3)
    if isinstance(energy, AbstractLearnedEnergy):
        energy = energy.init(dim, key=ekey)
    check_energy_fits(energy, dim)
    log_scale = None if scale is None else jnp.log(jnp.asarray(scale, jnp.float32))
    size = spec.observation_size + spec.action_size
    if not shared:
        goal = make(spec.goal_size, dim, key=gkey)
        units = spec.observation_units, spec.goal_units
        return TwoTower(make(size, dim, key=skey), goal, energy, *units, log_scale)
    if spec.goal_size != size:
        raise ValueError(
            f"A shared encoder takes a future state and action of {size} numbers as a goal, but "
            f"this objective's goals have {spec.goal_size}: use an objective that passes the "
            "future action too, Contrastive(future_actions=True), or shared=False."
        )
    if not isinstance(energy, AbstractQuasimetric):
        raise ValueError(
            f"A shared encoder needs a quasimetric such as MRN or IQE; got {energy}, for which "
            "a distance of zero from a state to itself means nothing."
        )
    return SharedTower(
        make(size, dim, key=skey), energy, spec.observation_units, spec.observation_size, log_scale
    )


def check_energy_fits(energy: AbstractEnergy, dim: int) -> None:
    """Raises `ValueError`, the energy's own if it cannot compare embeddings of that size, or if it
    does not make one number of two of them."""
    check_instance("energy", energy)
    embedding = jax.ShapeDtypeStruct((dim,), jnp.float32)
    score = jax.eval_shape(energy, embedding, embedding)
    scalar = isinstance(score, jax.ShapeDtypeStruct) and score.shape == ()
    if not (scalar and jnp.issubdtype(score.dtype, jnp.floating)):
        raise ValueError(
            f"{type(energy).__name__} makes {score} of two embeddings of {dim} numbers; return one "
            "float32 number for each pair, such as a sum."
        )
