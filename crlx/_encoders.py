import abc
from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ._types import Scalar


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
    energy: Callable[[Array, Array], Array],
    x: Float[Array, "rows dim"],
    y: Float[Array, "goals dim"],
) -> Float[Array, "rows goals"]:
    """All pairs: entry `[i, j]` is `energy(x[i], y[j])`."""
    return jax.vmap(jax.vmap(energy, (None, 0)), (0, None))(x, y)
