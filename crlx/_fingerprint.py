import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped, UInt32


@jax.jit
def fingerprint(x: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    """Σ (2j + 1) bⱼ modulo 2³² over the bytes bⱼ of an array, in the order of little-endian memory.
    Odd weights let no change of a single byte through.

    Bytes are cut out of whole words: all of them, each widened to be summed, would be an array of
    four times the size of `x`.
    """
    size = x.dtype.itemsize
    if x.dtype == jnp.bool_:
        words = x.astype(jnp.uint8)
    else:
        words = jax.lax.bitcast_convert_type(x, f"uint{8 * size}")
    words = words.reshape(-1)
    weight = 2 * size * jax.lax.iota(jnp.uint32, words.size) + 1
    total = jnp.zeros(words.shape, jnp.uint32)
    for i in range(size):
        total += ((words >> (8 * i)) & 0xFF).astype(jnp.uint32) * (weight + 2 * i)
    return jnp.sum(total, dtype=jnp.uint32)
