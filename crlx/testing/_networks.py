from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._encoders import AbstractEnergy, pairwise
from ._require import named_arrays, require, require_close, require_finite, require_same_structure

Vector = Float[Array, " size"]


def check_encoder(
    encoder: Callable[[Vector], Float[Array, " dim"]], size: int, *, key: PRNGKeyArray
) -> None:
    """Maps one vector to another: alone as in a batch, compiled as eager, with finite gradients,
    also at zero and far from it, that reach every parameter and the input.

    **Arguments:**

    - `encoder`: what to check: an `AbstractEncoder` or any module called like one.
    - `size`: length of its input.
    """
    xkey, wkey = jr.split(key)
    x = jr.normal(xkey, (6, size)).at[1].set(0).at[2].multiply(1e2).at[3].multiply(1e-3)
    y = eqx.filter_jit(lambda e, x: jax.vmap(e)(x))(encoder, x)
    require(
        y.ndim == 2 and y.dtype == jnp.float32,
        f"The output is {y.dtype}{y.shape[1:]}; return one vector of float32.",
    )
    require_close(encoder(x[0]), y[0], "Alone and eager, batched and compiled: ", rtol=1e-4)
    weight = jr.normal(wkey, y.shape)

    def total(trained: tuple[PyTree, Array]) -> Float[Array, ""]:
        return jnp.sum(weight * jax.vmap(trained[0])(trained[1]))

    check_reached(total, (encoder, x), "encoder")


def check_block(
    make: Callable[..., Callable[[Vector], Vector]], width: int, *, key: PRNGKeyArray
) -> None:
    """An encoder that preserves the shape and that stacks: scanned copies equal a loop.

    **Arguments:**

    - `make`: builds one block from `key`.
    - `width`: length of its input and output.
    """
    bkey, ekey, xkey = jr.split(key, 3)
    keys = jr.split(bkey, 3)
    blocks = [make(key=k) for k in keys]
    x = jr.normal(xkey, (width,))
    y = blocks[0](x)
    require(y.shape == x.shape, f"A block turned {x.shape} into {y.shape}; preserve the shape.")
    require_same_structure(blocks[0], blocks[1], "Two blocks of one configuration: block")
    pairs = zip(named_arrays(blocks[0]), named_arrays(blocks[1]), strict=True)
    require(
        not named_arrays(blocks[0]) or any(np.any(a != b) for (_, a), (_, b) in pairs),
        "Two keys give the same block: pass `key` on.",
    )
    check_encoder(blocks[0], width, key=ekey)
    stack = eqx.filter_vmap(lambda k: make(key=k))(keys)
    arrays, static = eqx.partition(stack, eqx.is_array)
    scanned, _ = jax.lax.scan(lambda x, a: (eqx.combine(a, static)(x), None), x, arrays)
    for block in blocks:
        x = block(x)
    require_close(scanned, x, "Blocks scanned and in a loop: ", rtol=1e-4)


def check_energy(energy: AbstractEnergy, *, dim: int = 8, key: PRNGKeyArray) -> None:
    """One finite score per pair: in the table of all pairs as alone, with finite gradients also
    where embeddings meet, vanish, are collinear or far out; and not constant.

    **Arguments:**

    - `energy`: what to check.
    - `dim`: length of the embeddings.
    """
    xkey, ykey = jr.split(key)
    x, y = jr.normal(xkey, (4, dim)), jr.normal(ykey, (5, dim))
    table = eqx.filter_jit(pairwise)(energy, x, y)
    single = eqx.filter_jit(lambda energy, x, y: energy(x, y))
    singles = jnp.stack([jnp.stack([single(energy, a, b) for b in y]) for a in x])
    require(
        table.shape == (4, 5) and table.dtype == jnp.float32,
        f"An energy returns {table.dtype}{table.shape[2:]}; return one float32 scalar per pair.",
    )
    require_close(table, singles, "All pairs at once and one by one: energy")
    a, b, zero = x[0], y[0], jnp.zeros(dim)
    names = ("equal", "zero", "first zero", "second zero", "collinear", "opposite", "near")
    lefts = jnp.stack([a, zero, zero, a, a, a, a, a, 1e-19 * a, 1e3 * a])
    rights = jnp.stack([a, zero, b, zero, 2 * a, -a, a * (1 + 1e-6), b, zero, b])
    names += ("generic", "tiny", "large")
    gradient = eqx.filter_value_and_grad(lambda pair, energy: energy(*pair))
    table = eqx.filter_vmap(gradient, in_axes=(0, None))
    values, slopes = eqx.filter_jit(table)((lefts, rights), energy)
    for i, name in enumerate(names):
        at = jax.tree.map(lambda leaf, i=i: leaf[i], (values, slopes))
        require_finite(at, f"Value and gradient of the energy, embeddings {name}: ")
    require(
        all(np.any(slope[names.index("generic")] != 0) for slope in slopes),
        "The energy does not depend on both embeddings.",
    )


def check_reached(total: Callable[[PyTree], Array], trained: PyTree, what: str) -> None:
    """The gradient of `total` is finite and reaches every floating array of `trained`."""
    gradients = eqx.filter_jit(eqx.filter_grad(total))(trained)
    require_finite(gradients, f"Gradient of the {what}: ")
    for name, gradient in named_arrays(gradients):
        require(
            np.any(gradient != 0) or gradient.size == 0,
            f"The {what} does not depend on its array or input {name}: use it or leave it out.",
        )
