import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Machine(NamedTuple):
    """What the device was measured to do at best.

    - `flops`: operations per second of float32 matrix products (in JAX's precision of the moment).
    - `bytes`: read and written per second by a sum of two long vectors.
    """

    flops: float
    bytes: float


def measure_machine(*, size: int = 2048, length: int = 1 << 25, repeats: int = 5) -> Machine:
    """The median rates of a few calls.

    **Arguments:**

    - `size`: of square matrices.
    - `length`: of vectors, too long for any cache.
    - `repeats`: calls.
    """
    matrix, vector = jnp.ones((size, size)), jnp.ones(length)
    product = median_seconds(jax.jit(jnp.matmul), (matrix, matrix), repeats)
    added = median_seconds(jax.jit(jnp.add), (vector, vector), repeats)
    return Machine(2 * size**3 / product, 3 * vector.nbytes / added)


def shares(row: Mapping[str, float], machine: Machine) -> dict[str, float]:
    """How near an update comes to what the device did at best.

    **Arguments:**

    - `row`: with `product_flops` and `product_bytes`, of the matrix products of an update, and
      `seconds_per_update`.
    - `machine`: the device.

    **Returns:** the shares of its rates. That of bytes is of operands and results of products, if
    none of them stayed in a cache, so it may be above 1.
    """
    seconds = row["seconds_per_update"]
    return {
        "share_of_products": row["product_flops"] / seconds / machine.flops,
        "share_of_bytes": row["product_bytes"] / seconds / machine.bytes,
    }


def median_seconds(function: Callable[..., Any], args: tuple[Any, ...], calls: int) -> float:
    """The median time of a call, after one that is not counted."""
    jax.block_until_ready(function(*args))
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
