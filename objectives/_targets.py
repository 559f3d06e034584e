from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Network = TypeVar("Network", bound=eqx.Module)


def target(network: Network) -> Network:
    """A copy to start a slowly moving target from."""
    # Copied, so that a program which takes both may reuse the memory of one.
    return jax.tree.map(lambda x: jnp.array(x) if eqx.is_array(x) else x, network)


def polyak(
    target: Network, network: Network, rate: float, *, due: Float[Array, ""] | None = None
) -> Network:
    r"""Polyak averaging: $\bar\theta \leftarrow \bar\theta + \tau (\theta - \bar\theta)$.

    **Arguments:**

    - `rate`: $\tau$; 0 leaves the target, 1 copies the network.
    - `due`: 1 to move the target now, 0 to leave it; None for always.
    """
    slow, static = eqx.partition(target, eqx.is_inexact_array)
    fast = eqx.filter(network, eqx.is_inexact_array)
    # In this form, a rate of 0 or 1 is exact.
    moved = jax.tree.map(lambda new, old: rate * new + (1 - rate) * old, fast, slow)
    if due is not None:
        moved = jax.tree.map(lambda new, old: jnp.where(due > 0, new, old), moved, slow)
    return eqx.combine(moved, static)
