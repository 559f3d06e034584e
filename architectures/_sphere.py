import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import AbstractEncoder, AbstractProjected

from ._layers import check_layer
from ._orthogonal import orthogonal
from ._products import product

_FLOOR = 1e-8


def unit(x: Float[Array, "*stack size"]) -> Float[Array, "*stack size"]:
    """Vectors along the last axis divided by their Euclidean norm, which has a floor of 1e-8.

    Shorter vectors pass no gradient: a factor of 1e8 per layer would overflow after a few.
    """
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    x = jnp.where(square > _FLOOR**2, x, jax.lax.stop_gradient(x))
    return x / jnp.sqrt(jnp.maximum(square, _FLOOR**2))


class HyperDense(AbstractProjected, AbstractEncoder):
    """`W x` where each row of `W` is a unit vector; there is no bias.

    Rows start orthonormal where there are at most `in_size` of them. Gradient steps leave the
    sphere; the learner brings the rows back after each.

    ??? cite
        Lee et al., Hyperspherical Normalization for Scalable Deep RL (ICML 2025).
    """

    weight: Float[Array, "*stack out in"]

    def __init__(self, in_size: int, out_size: int, *, key: PRNGKeyArray):
        check_layer(in_size, out_size)
        self.weight = unit(orthogonal()(key, (out_size, in_size), jnp.float32))

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " dim"]:
        return product(x, self.weight)

    def project(self) -> "HyperDense":
        return eqx.tree_at(lambda m: m.weight, self, unit(self.weight))


class Scaler(AbstractEncoder):
    r"""Trainable factors, one per coordinate: $x \odot p \cdot start / step$.

    The parameter $p$ is filled with `step`, so that the factors are `start` at first and move
    `start / step` times as fast as the parameter.
    """

    factor: Float[Array, "*stack size"]
    start: float
    step: float

    def __init__(self, size: int, start: float, step: float):
        if not (start > 0 and step > 0):
            raise ValueError(f"A scaler's start and step are positive; got {start} and {step}.")
        self.factor = jnp.full(size, step, jnp.float32)
        self.start, self.step = start, step

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " dim"]:
        return x * (self.factor * (self.start / self.step))


class HyperStem(AbstractEncoder):
    """From a vector to a point on the sphere of the hidden layers.

    `shift` is appended before the vector is normalized, so that its length is not lost:
    `unit(Scaler(HyperDense(unit([x, shift]))))`.
    """

    dense: HyperDense
    scaler: Scaler
    shift: float

    def __init__(self, in_size: int, width: int, *, shift: float = 3.0, key: PRNGKeyArray):
        if not shift > 0:
            raise ValueError(f"`shift` must be positive, or zero has no direction; got {shift}.")
        size = math.sqrt(2 / width)
        self.dense = HyperDense(in_size + 1, width, key=key)
        self.scaler = Scaler(width, size, size)
        self.shift = shift

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        x = unit(jnp.append(x, jnp.asarray(self.shift, x.dtype)))
        return unit(self.scaler(self.dense(x)))


class HyperHead(AbstractEncoder):
    """An output layer: `HyperDense`, `Scaler`, `HyperDense`, and a bias that starts at zero."""

    hidden: HyperDense
    scaler: Scaler
    output: HyperDense
    bias: Float[Array, "*stack out"]

    def __init__(self, width: int, out_size: int, *, key: PRNGKeyArray):
        hkey, okey = jr.split(key)
        self.hidden = HyperDense(width, width, key=hkey)
        self.scaler = Scaler(width, 1.0, 1.0)
        self.output = HyperDense(width, out_size, key=okey)
        self.bias = jnp.zeros(out_size, jnp.float32)

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " dim"]:
        return self.output(self.scaler(self.hidden(x))) + self.bias


class Lerp(eqx.Module):
    r"""A step on the sphere from `x` towards `y`: $unit(x + \alpha \odot (y - x))$, with trainable
    $\alpha$ that start at `start`."""

    alpha: Scaler

    def __init__(self, width: int, start: float):
        self.alpha = Scaler(width, start, 1 / math.sqrt(width))

    def __call__(
        self, x: Float[Array, " width"], y: Float[Array, " width"]
    ) -> Float[Array, " width"]:
        return unit(x + self.alpha(y - x))

    def silenced(self) -> "Lerp":
        """No step at all."""
        return eqx.tree_at(lambda m: m.alpha.factor, self, replace_fn=jnp.zeros_like)


def relu_on_sphere(x: Float[Array, " width"]) -> Float[Array, " width"]:
    """ReLU plus 1e-8, so that some direction is left where all units are off."""
    return jax.nn.relu(x) + _FLOOR
