import statistics
import time
from collections.abc import Callable
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


def median_seconds(function: Callable[..., Any], args: tuple[Any, ...], calls: int) -> float:
    """The median time of a call, after one that is not counted."""
    jax.block_until_ready(function(*args))
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
