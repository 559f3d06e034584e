from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, PRNGKeyArray

from ._products import product

# A module that maps one vector to another; Equinox's own layers are not `AbstractEncoder`.
Layer = Callable[[Float[Array, " size"]], Float[Array, " dim"]]


def fan_in_uniform() -> Initializer:
    """Weights uniform in `±1/sqrt(fan_in)`, as in the paper's released code.

    Variance `1 / (3 fan_in)`: a third of what is usually called LeCun's.
    """
    return _variance_scaling(1 / 3, "fan_in")


def lecun_uniform() -> Initializer:
    """Weights uniform in `±sqrt(3 / fan_in)`: variance `1 / fan_in`."""
    return _variance_scaling(1.0, "fan_in")


def fan_average_uniform(scale: float = 1.0) -> Initializer:
    """Weights uniform in `±sqrt(6 scale / (fan_in + fan_out))`, as in OGBench."""
    return _variance_scaling(scale, "fan_avg")


def _variance_scaling(scale: float, mode: Literal["fan_in", "fan_avg"]) -> Initializer:
    # Equinox stores weights as [out, in].
    return jax.nn.initializers.variance_scaling(scale, mode, "uniform", in_axis=1, out_axis=0)


def dense(
    in_size: int, out_size: int, initializer: Initializer, *, key: PRNGKeyArray
) -> eqx.nn.Linear:
    """A linear layer with the given distribution of weights and with biases of zero."""
    check_layer(in_size, out_size)
    weight = initializer(key, (out_size, in_size), jnp.float32)
    layer = eqx.nn.Linear(in_size, out_size, key=key)
    return eqx.tree_at(
        lambda m: (m.weight, m.bias), layer, (weight, jnp.zeros(out_size, jnp.float32))
    )


def apply(layer: Layer, x: Float[Array, " size"]) -> Float[Array, " dim"]:
    """`layer(x)`, where linear layers use `product`."""
    if not isinstance(layer, eqx.nn.Linear):
        return layer(x)
    y = product(x, layer.weight)
    return y if layer.bias is None else y + layer.bias


def check_layer(in_size: int, out_size: int) -> None:
    """Raises `ValueError` unless both sizes are positive."""
    if min(in_size, out_size) < 1:
        raise ValueError(f"A layer needs positive sizes; got {in_size} and {out_size}.")


def layer_norm(width: int) -> eqx.nn.LayerNorm:
    """LayerNorm with an epsilon of 1e-6, as in Flax.

    Equinox's 1e-5 matters where inputs are small: for goals of two or three coordinates the
    epsilon decides how much of their magnitude survives near the origin.
    """
    return eqx.nn.LayerNorm(width, eps=1e-6)
