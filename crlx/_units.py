import abc
import dataclasses
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._moments import Moments
from ._stacking import AbstractStacked

T = TypeVar("T")


class AbstractUnits(eqx.Module):
    """Rescaling of a vector to order one, which networks apply to what they read.

    No gradient moves its numbers.
    """

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " size"]: ...


class Affine(AbstractUnits):
    """Fixed rescaling of a vector to order one: `(x - shift) / scale`.

    The numbers are static, so no optimizer can move them.

    **Arguments:**

    - `shift`, `scale`: one number per coordinate, in the units of `x`; empty tuples are the
      identity. A scale must be positive.
    """

    shift: tuple[float, ...] = eqx.field(default=(), static=True)
    scale: tuple[float, ...] = eqx.field(default=(), static=True)

    def __check_init__(self):
        if len(self.shift) != len(self.scale):
            raise ValueError(
                f"`shift` has {len(self.shift)} numbers and `scale` {len(self.scale)}; "
                "give one of each per coordinate."
            )
        if any(not s > 0 for s in self.scale):
            raise ValueError(f"Every scale must be positive; got {self.scale}.")

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " size"]:
        if not self.shift:
            return x
        shift = jnp.asarray(self.shift, x.dtype)
        scale = jnp.asarray(self.scale, x.dtype)
        return (x - shift) / scale


class RunningUnits(AbstractUnits):
    r"""Rescaling by statistics that grow with experience:
    `(x - mean) / sqrt(variance + 1e-8)`.

    Networks are built with the place for statistics and without any, so that parameters hold
    none; `with_moments` supplies them for each use.

    **Arguments:**

    - `columns`: for each coordinate of `x`, the coordinate of observations whose statistics it
      uses, counted from 0, as for goals that copy a part of the state; None for all, in order.
    - `moments`: statistics of observations; None in parameters.

    ??? cite
        RSNorm of Lee et al., Hyperspherical Normalization for Scalable Deep RL (ICML 2025).
    """

    columns: tuple[int, ...] | None = eqx.field(default=None, static=True)
    moments: Moments | None = None

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " size"]:
        if self.moments is None:
            raise ValueError(
                "This network scales its input by running statistics, which are no parameters: "
                "take the policy by `objective.policy(params, state)`, other networks through "
                "`crlx.with_moments(network, state.moments)`."
            )
        mean, variance = self.moments.mean, self.moments.variance
        if self.columns is not None:
            columns = np.asarray(self.columns)
            mean, variance = mean[columns], variance[columns]
        mean, variance = jax.lax.stop_gradient((mean, variance))
        return (x - mean) / jnp.sqrt(variance + 1e-8)


def standardization(data: np.ndarray) -> Affine:
    """The rescaling of `[rows, size]` to mean zero and standard deviation one.

    A coordinate that never changes keeps its scale.
    """
    mean, std = data.mean(0, dtype=np.float64), data.std(0, dtype=np.float64)
    std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1), std, 1.0)
    return Affine(tuple(mean.tolist()), tuple(std.tolist()))


def with_moments(tree: T, moments: Moments) -> T:
    """`tree` with these statistics in every `RunningUnits`; all else is untouched.

    The units are found by their type. Those of a stacked module get a copy for each of its parts.
    """
    return _supply(tree, moments, ())


def _supply(tree: T, moments: Moments, sizes: tuple[int, ...]) -> T:
    """The same within stacked modules of so many parts each, the outermost first."""
    if isinstance(tree, AbstractStacked):
        arrays = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
        if not arrays:
            return tree
        sizes = (*sizes, arrays[0].shape[len(sizes)])

    def is_whole(node: object) -> bool:
        return isinstance(node, RunningUnits) or (
            isinstance(node, AbstractStacked) and node is not tree
        )

    def supply(node: object) -> object:
        if isinstance(node, RunningUnits):
            copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (*sizes, *x.shape)), moments)
            return dataclasses.replace(node, moments=copies)
        return _supply(node, moments, sizes) if isinstance(node, AbstractStacked) else node

    return jax.tree.map(supply, tree, is_leaf=is_whole)
