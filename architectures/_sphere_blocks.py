import math

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ._blocks import AbstractResidualBlock
from ._sphere import HyperDense, Lerp, Scaler, relu_on_sphere, unit


class HyperLerp(AbstractResidualBlock):
    """SimbaV2's block: a step on the sphere towards the output of an inverted bottleneck,
    `unit(HyperDense(relu(Scaler(HyperDense(x)))))`, of four times the width.

    Two dense layers deep.

    **Arguments:**

    - `width`: size of the input, a unit vector, and of the output, another.
    - `step`: the share of the way that is gone at initialization.

    ??? cite
        Lee et al., Hyperspherical Normalization for Scalable Deep RL (ICML 2025).
    """

    wide: HyperDense
    scaler: Scaler
    narrow: HyperDense
    lerp: Lerp

    def __init__(self, width: int, *, step: float, key: PRNGKeyArray):
        wkey, nkey = jr.split(key)
        size = math.sqrt(2 / width) / 2
        self.wide = HyperDense(width, 4 * width, key=wkey)
        self.scaler = Scaler(4 * width, size, size)
        self.narrow = HyperDense(4 * width, width, key=nkey)
        self.lerp = Lerp(width, step)

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        h = relu_on_sphere(self.scaler(self.wide(x)))
        return self.lerp(x, unit(self.narrow(h)))

    def silenced(self) -> "HyperLerp":
        return eqx.tree_at(lambda b: b.lerp, self, self.lerp.silenced())


class HyperUnit(eqx.Module):
    r"""`swish(Scaler(unit(HyperDense(x))))`: the paper's unit with the projection of weights and
    features in place of LayerNorm.

    The scaler starts at $\sqrt{width}$, which brings entries to order one: at the scale of a unit
    vector swish is linear.
    """

    dense: HyperDense
    scaler: Scaler

    def __init__(self, width: int, *, key: PRNGKeyArray):
        self.dense = HyperDense(width, width, key=key)
        self.scaler = Scaler(width, math.sqrt(width), 1.0)

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        return jax.nn.swish(self.scaler(unit(self.dense(x))))


class HyperResidual(AbstractResidualBlock):
    """The paper's block of four layers on the sphere: a step from `x` towards `unit(F(x))`, where
    `F` is four times `HyperUnit`.

    **Arguments:**

    - `width`: size of the input, a unit vector, and of the output, another.
    - `step`: the share of the way that is gone at initialization.

    ??? cite
        Wang et al., 1000 Layer Networks for Self-Supervised RL (NeurIPS 2025), appendix A.6, in
        the reading closest to its sentence; its code is not published.
    """

    layers: tuple[HyperUnit, ...]
    lerp: Lerp

    def __init__(self, width: int, *, step: float, key: PRNGKeyArray):
        self.layers = tuple(HyperUnit(width, key=k) for k in jr.split(key, 4))
        self.lerp = Lerp(width, step)

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        h = x
        for layer in self.layers:
            h = layer(h)
        return self.lerp(x, unit(h))

    def silenced(self) -> "HyperResidual":
        return eqx.tree_at(lambda b: b.lerp, self, self.lerp.silenced())
