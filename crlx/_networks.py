import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ._stacking import AbstractStacked
from ._types import Scalar, Spec


class AbstractEncoder(eqx.Module):
    """Maps one vector to another."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " dim"]: ...


class AbstractEnergy(eqx.Module):
    """Scores one pair of embeddings; higher means that the goal is easier to reach."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Scalar: ...


class AbstractDistance(AbstractEnergy):
    """Minus a distance, so never positive; objectives that need scores of both signs refuse it."""

    @abc.abstractmethod
    def distance(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Scalar:
        """How far it is from `x` to `y`: 0 or more."""

    def __call__(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Scalar:
        return -self.distance(x, y)


class AbstractQuasimetric(AbstractDistance):
    """Minus a quasimetric: a distance that need not be symmetric.

    `d(x, x) = 0`, `d(x, y) >= 0` and `d(x, z) <= d(x, y) + d(y, z)`. Objectives that rely on
    these laws ask for this type; `crlx.testing.check_quasimetric` checks them.
    """


class AbstractLearnedEnergy(AbstractEnergy):
    """An energy with parameters of its own, written as numbers until a critic is built."""

    @abc.abstractmethod
    def init(self, dim: int, *, key: PRNGKeyArray) -> AbstractEnergy:
        """The same energy with arrays, which a gradient moves, in place of numbers."""


def pairwise(
    energy: AbstractEnergy, x: Float[Array, "rows dim"], y: Float[Array, "goals dim"]
) -> Float[Array, "rows goals"]:
    """All pairs: entry `[i, j]` is `energy(x[i], y[j])`."""
    return jax.vmap(jax.vmap(energy, (None, 0)), (0, None))(x, y)


class AbstractCritic(eqx.Module):
    """Scores how well an action, taken in a state, leads to a goal."""

    @abc.abstractmethod
    def __call__(
        self,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Scalar:
        """The score of one example."""

    @abc.abstractmethod
    def pairs(
        self,
        observations: Float[Array, "rows obs"],
        actions: Float[Array, "rows act"],
        goals: Float[Array, "goals goal"],
    ) -> Float[Array, "rows goals"]:
        """Entry `[i, j]` scores state and action `i` with goal `j`."""


class AbstractSharedCritic(AbstractCritic):
    """A critic whose goals are future states with the actions taken there, concatenated, and which
    embeds them as it embeds the present: minus a quasimetric on states and actions.

    Without actions it is minus a quasimetric on states.
    """

    @abc.abstractmethod
    def embed(
        self, observation: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> Float[Array, " dim"]:
        """The embedding of a state and an action, present or future."""

    @abc.abstractmethod
    def compare(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Scalar:
        """The score of two embeddings: minus the distance from `x` to `y`."""


class Ensemble(AbstractStacked):
    """Independently initialized copies of a critic, stacked on a leading axis.

    **Arguments:**

    - `make`: builds one critic from `key`.
    - `size`: number of copies.
    """

    members: AbstractCritic  # Arrays have a leading axis: never call directly.

    def __init__(self, make: Callable[..., AbstractCritic], size: int, *, key: PRNGKeyArray):
        if size < 1:
            raise ValueError(f"An ensemble needs at least one member; got {size}.")
        self.members = eqx.filter_vmap(lambda k: make(key=k))(jr.split(key, size))

    def __call__(
        self,
        observation: Float[Array, " obs"],
        action: Float[Array, " act"],
        goal: Float[Array, " goal"],
    ) -> Float[Array, " members"]:
        """Each member's score of one example."""
        return self._each(lambda m: m(observation, action, goal))

    def pairs(
        self,
        observations: Float[Array, "rows obs"],
        actions: Float[Array, "rows act"],
        goals: Float[Array, "goals goal"],
    ) -> Float[Array, "members rows goals"]:
        """Each member's scores of all pairs."""
        return self._each(lambda m: m.pairs(observations, actions, goals))

    def _each(self, apply: Callable[[Any], Array]) -> Array:
        arrays, static = eqx.partition(self.members, eqx.is_array)
        if jax.tree.leaves(arrays)[0].shape[0] > 1:
            return jax.vmap(lambda a: apply(eqx.combine(a, static)))(arrays)
        # On CPUs a batched matrix product is half as fast as a plain one, even a batch of one.
        return apply(eqx.combine(jax.tree.map(lambda a: a[0], arrays), static))[None]


class AbstractDistribution(eqx.Module):
    """A distribution over one action."""

    @abc.abstractmethod
    def mode(self) -> Float[Array, " act"]:
        """The action to take without noise."""

    @abc.abstractmethod
    def log_prob(self, action: Float[Array, " act"]) -> Scalar:
        """Log-density of an action."""

    @abc.abstractmethod
    def sample_and_log_prob(self, *, key: PRNGKeyArray) -> tuple[Float[Array, " act"], Scalar]:
        """A reparameterized sample and its log-density, computed without inverting a squash."""


class AbstractChoice(AbstractDistribution):
    """A distribution over finitely many actions, each a one-hot vector."""


class AbstractActor(eqx.Module):
    """A goal-conditioned policy."""

    @abc.abstractmethod
    def __call__(
        self, observation: Float[Array, " obs"], goal: Float[Array, " goal"]
    ) -> AbstractDistribution: ...


class AbstractConstantEntropy(AbstractActor):
    """A policy whose entropy no training changes; maximum-entropy objectives refuse it."""


class AbstractArchitecture(eqx.Module):
    """Builds the networks that objectives ask for; its fields are sizes and choices.

    An objective asks only for what it trains, so that imitation never pays for a critic.
    """

    @abc.abstractmethod
    def critic(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractCritic:
        """A critic over states, actions (none if `spec.action_size` is 0) and goals."""

    @abc.abstractmethod
    def actor(self, spec: Spec, *, key: PRNGKeyArray) -> AbstractActor:
        """A goal-conditioned policy over actions of the kind `spec.actions`: never squashed for
        `REAL`, and an `AbstractChoice` for `CHOICE`."""

    @abc.abstractmethod
    def encoder(self, in_size: int, out_size: int, *, key: PRNGKeyArray) -> AbstractEncoder:
        """A network from vectors of one length to vectors of another, for whatever else an
        objective trains: values, a model of the dynamics, a representation of goals."""
