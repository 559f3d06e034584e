import abc
import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import AbstractEncoder

from ._choices import Activation
from ._layers import apply, dense, fan_in_uniform, layer_norm
from ._stack import AbstractBlock


class AbstractResidualBlock(AbstractBlock):
    """A block that adds to its input, and so can start as the identity."""

    @abc.abstractmethod
    def silenced(self) -> "AbstractResidualBlock":
        """The same block with as few parameters changed as make it the identity, which gradients
        still reach. Works on stacked arrays, too.

        Raises `ValueError` where no such change exists.
        """


class NormalizedDense(AbstractEncoder):
    """`swish(LayerNorm(W x + b))`: the unit of which the paper's networks are made.

    **Arguments:**

    - `in_size`, `width`: sizes of the input and the output.
    - `activation`: in place of swish.
    - `normalize`: False for `swish(W x + b)`.
    - `initializer`: of `W`; None for `fan_in_uniform`.
    """

    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm | None
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        width: int,
        *,
        activation: Activation = Activation.SWISH,
        normalize: bool = True,
        initializer: Initializer | None = None,
        key: PRNGKeyArray,
    ):
        initializer = fan_in_uniform() if initializer is None else initializer
        self.linear = dense(in_size, width, initializer, key=key)
        self.norm = layer_norm(width) if normalize else None
        self.activation = activation

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        h = apply(self.linear, x)
        return self.activation(h if self.norm is None else self.norm(h))


class Residual(AbstractResidualBlock):
    """The paper's block, `x + F(x)`, where `F` is four times `NormalizedDense`.

    The sum comes after the last swish; the residual stream is never normalized.

    **Arguments:**

    - `width`: size of the input and the output.
    - `scale`: factor on `F`.
    - `learn_scale`: train that factor.
    - `skip`: False for `F(x)` alone, the paper's ablation.
    - `prenorm`: `x + F(LayerNorm(x))`.
    - `activation`, `normalize`, `initializer`: as for `NormalizedDense`.

    ??? cite
        Wang et al., 1000 Layer Networks for Self-Supervised RL (NeurIPS 2025), section 4.
    """

    layers: tuple[NormalizedDense, ...]
    norm: eqx.nn.LayerNorm | None
    scale: Float[Array, "*layers"] | float
    skip: bool = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        *,
        scale: float = 1.0,
        learn_scale: bool = False,
        skip: bool = True,
        prenorm: bool = False,
        activation: Activation = Activation.SWISH,
        normalize: bool = True,
        initializer: Initializer | None = None,
        key: PRNGKeyArray,
    ):
        if not math.isfinite(scale):
            raise ValueError(f"The factor on a residual branch must be finite; got {scale}.")
        if not skip and (learn_scale or scale != 1):
            raise ValueError("Without a skip connection there is no branch to scale.")
        self.layers = tuple(
            NormalizedDense(
                width,
                width,
                activation=activation,
                normalize=normalize,
                initializer=initializer,
                key=k,
            )
            for k in jr.split(key, 4)
        )
        self.norm = layer_norm(width) if prenorm else None
        self.scale = jnp.asarray(scale, jnp.float32) if learn_scale else scale
        self.skip = skip

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        h = x if self.norm is None else self.norm(x)
        for layer in self.layers:
            h = layer(h)
        return x + self.scale * h if self.skip else h

    def silenced(self) -> "Residual":
        if not self.skip:
            raise ValueError("A block without a skip connection cannot be the identity.")
        if eqx.is_array(self.scale):
            return eqx.tree_at(lambda b: b.scale, self, jnp.zeros_like(self.scale))
        if self.layers[-1].activation is Activation.RELU:
            raise ValueError(
                "ReLU has no slope where its block would be the identity, so that the new layers "
                "would never learn. Use another activation, or ResidualScale.LEARNED."
            )

        def where(block: Residual):
            unit = block.layers[-1]
            part = unit.linear if unit.norm is None else unit.norm
            return part.weight, part.bias

        return eqx.tree_at(where, self, replace_fn=jnp.zeros_like)
