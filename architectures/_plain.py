import equinox as eqx
import jax.random as jr
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, PRNGKeyArray

from ._choices import Activation, Initialization
from ._encoders import Trunk
from ._fold import Remat
from ._layers import apply, dense, layer_norm
from ._precision import Precision
from ._stack import AbstractBlock, stacked


class Plain(AbstractBlock):
    """A hidden layer of OGBench's networks: `LayerNorm(gelu(W x + b))`, or without the norm, or
    with another activation.

    A block where `in_size` is `width`.
    """

    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm | None
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        width: int,
        *,
        normalize: bool,
        activation: Activation = Activation.GELU,
        initializer: Initializer,
        key: PRNGKeyArray,
    ):
        self.activation = activation
        self.linear = dense(in_size, width, initializer, key=key)
        self.norm = layer_norm(width) if normalize else None

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        h = self.activation(apply(self.linear, x))
        return h if self.norm is None else self.norm(h)


def plain_trunk(
    in_size: int,
    width: int,
    depth: int,
    *,
    normalize: bool,
    activation: Activation = Activation.GELU,
    initialization: Initialization = Initialization.GLOROT,
    remat: Remat,
    unroll: int,
    precision: Precision = Precision.DEFAULT,
    key: PRNGKeyArray,
) -> Trunk:
    """OGBench's multi-layer perceptron without its output layer.

    `depth` counts the hidden layers; each is dense, then the activation, then (where enabled)
    LayerNorm.
    """
    skey, bkey = jr.split(key)
    initializer = initialization.initializer()

    def make(in_size: int, key: PRNGKeyArray) -> Plain:
        return Plain(
            in_size,
            width,
            normalize=normalize,
            activation=activation,
            initializer=initializer,
            key=key,
        )

    stack = None
    if depth > 1:
        stack = stacked(
            lambda key: make(width, key),
            depth - 1,
            remat=remat,
            unroll=unroll,
            precision=precision,
            key=bkey,
        )
    return Trunk(make(in_size, skey), stack)
