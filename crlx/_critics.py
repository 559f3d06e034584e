import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ._encoders import AbstractEncoder
from ._stacking import AbstractStacked
from ._types import Scalar


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


class AbstractTowers(AbstractCritic):
    """A critic that compares the embeddings of two encoders, one of states and actions and one of
    goals: `compare(towers[0](inputs(observation, action)), towers[1](goal_inputs(goal)))`.

    What is embedded once can be compared again and again, and both encoders can run in one loop.
    """

    @property
    @abc.abstractmethod
    def towers(self) -> tuple[AbstractEncoder, AbstractEncoder]:
        """The encoder of states and actions, and that of goals."""

    @abc.abstractmethod
    def inputs(
        self, observation: Float[Array, " obs"], action: Float[Array, " act"]
    ) -> Float[Array, " size"]:
        """What the first encoder is given."""

    @abc.abstractmethod
    def goal_inputs(self, goal: Float[Array, " goal"]) -> Float[Array, " size"]:
        """What the second encoder is given."""

    @abc.abstractmethod
    def compare(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Scalar:
        """The score of two embeddings."""


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

    def split(self) -> list[AbstractCritic]:
        """The members, one by one."""
        arrays, static = eqx.partition(self.members, eqx.is_array)
        size = jax.tree.leaves(arrays)[0].shape[0]
        return [eqx.combine(jax.tree.map(lambda a, i=i: a[i], arrays), static) for i in range(size)]

    def _each(self, apply: Callable[[Any], Array]) -> Array:
        arrays, static = eqx.partition(self.members, eqx.is_array)
        if jax.tree.leaves(arrays)[0].shape[0] > 1:
            return jax.vmap(lambda a: apply(eqx.combine(a, static)))(arrays)
        # On CPUs a batched matrix product is half as fast as a plain one, even a batch of one.
        (member,) = self.split()
        return apply(member)[None]
