from collections.abc import Callable

import equinox as eqx
import jax
import jax.random as jr
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import AbstractEncoder

from ._layers import dense, fan_in_uniform, layer_norm
from ._stack import AbstractBlock

Activation = Callable[[Float[Array, " width"]], Float[Array, " width"]]


def gelu(x: Float[Array, " width"]) -> Float[Array, " width"]:
    """The tanh approximation of GELU, as OGBench uses it."""
    return jax.nn.gelu(x, approximate=True)


class NormalizedDense(AbstractEncoder):
    """`swish(LayerNorm(W x + b))`: the unit of which the paper's networks are made."""

    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, in_size: int, width: int, *, key: PRNGKeyArray):
        self.linear = dense(in_size, width, fan_in_uniform(), key=key)
        self.norm = layer_norm(width)

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        return jax.nn.swish(self.norm(self.linear(x)))


class Residual(AbstractBlock):
    """The paper's block, `x + F(x)`, where `F` is four times `NormalizedDense`.

    The sum comes after the last swish; the residual stream is never normalized.

    ??? cite
        Wang et al., 1000 Layer Networks for Self-Supervised RL (NeurIPS 2025), section 4.
    """

    layers: tuple[NormalizedDense, ...]

    def __init__(self, width: int, *, key: PRNGKeyArray):
        self.layers = tuple(NormalizedDense(width, width, key=k) for k in jr.split(key, 4))

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        h = x
        for layer in self.layers:
            h = layer(h)
        return x + h


class Plain(AbstractBlock):
    """A hidden layer of OGBench's networks: `LayerNorm(gelu(W x + b))`, or without the norm."""

    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm | None

    def __init__(self, width: int, *, normalize: bool, initializer: Initializer, key: PRNGKeyArray):
        self.linear = dense(width, width, initializer, key=key)
        self.norm = layer_norm(width) if normalize else None

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        h = gelu(self.linear(x))
        return h if self.norm is None else self.norm(h)
