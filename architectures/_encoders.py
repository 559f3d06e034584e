import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import AbstractEncoder

from ._blocks import NormalizedDense, Plain, Residual, gelu
from ._layers import dense, fan_average_uniform, layer_norm
from ._stack import Remat, stacked


class ResidualTrunk(AbstractEncoder):
    """The paper's network without its output layer: `NormalizedDense`, then residual blocks.

    `depth` counts the dense layers inside blocks, four to a block, as the paper does; the stem
    is not counted.
    """

    stem: NormalizedDense
    stack: AbstractEncoder

    def __init__(
        self, in_size: int, width: int, depth: int, *, remat: Remat, unroll: int, key: PRNGKeyArray
    ):
        skey, bkey = jr.split(key)
        self.stem = NormalizedDense(in_size, width, key=skey)
        self.stack = stacked(
            lambda key: Residual(width, key=key), depth // 4, remat=remat, unroll=unroll, key=bkey
        )

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        return self.stack(self.stem(x))


class PlainTrunk(AbstractEncoder):
    """OGBench's multi-layer perceptron without its output layer.

    `depth` counts the hidden layers; each is dense, then GELU, then (where enabled) LayerNorm.
    """

    stem: eqx.nn.Linear
    norm: eqx.nn.LayerNorm | None
    stack: AbstractEncoder | None

    def __init__(
        self,
        in_size: int,
        width: int,
        depth: int,
        *,
        normalize: bool,
        remat: Remat,
        unroll: int,
        key: PRNGKeyArray,
    ):
        skey, bkey = jr.split(key)
        initializer = fan_average_uniform()
        self.stem = dense(in_size, width, initializer, key=skey)
        self.norm = layer_norm(width) if normalize else None

        def make(key: PRNGKeyArray) -> Plain:
            return Plain(width, normalize=normalize, initializer=initializer, key=key)

        self.stack = None
        if depth > 1:
            self.stack = stacked(make, depth - 1, remat=remat, unroll=unroll, key=bkey)

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        h = gelu(self.stem(x))
        h = h if self.norm is None else self.norm(h)
        return h if self.stack is None else self.stack(h)


class Encoder(AbstractEncoder):
    """A trunk and a linear output layer."""

    trunk: AbstractEncoder
    output: eqx.nn.Linear

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " dim"]:
        return self.output(self.trunk(x))
