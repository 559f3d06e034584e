import enum
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._products import keep_products

Stream = PyTree[Float[Array, "..."]]  # One vector, or those of several networks and batches.
Step = Callable[[Stream, PyTree], tuple[Stream, PyTree]]


class Remat(enum.Enum):
    """What the backward pass of a stack of `N` blocks keeps of the forward pass.

    - `NONE`: everything. Memory grows with all the activations inside the blocks.
    - `PRODUCTS`: each block's input and the results of its matrix products, named by `product`;
      what is cheap, norms and activations, is computed again.
    - `BLOCK`: only each block's input, `N` vectors per example; the inside is computed again.
    - `NESTED`: the inputs of about `sqrt(N)` groups of about `sqrt(N)` blocks, and while a group
      is walked back those of its blocks; everything else is computed again, the inside of blocks
      twice. The leanest, for about a quarter more computation than `BLOCK`.
    """

    NONE = enum.auto()
    PRODUCTS = enum.auto()
    BLOCK = enum.auto()
    NESTED = enum.auto()


def choose_remat(depth: int) -> Remat:
    """`NONE` below 8 layers, `BLOCK` from 512 on, where products would fill gigabytes, and else
    `PRODUCTS`, which takes the least time: what is kept has to be written and read."""
    if depth < 8:
        return Remat.NONE
    return Remat.PRODUCTS if depth < 512 else Remat.BLOCK


def fold(
    step: Step, x: Stream, arrays: PyTree, *, length: int, remat: Remat, unroll: int
) -> tuple[Stream, PyTree]:
    """Applies `step` `length` times, in one scan that traces it once.

    **Arguments:**

    - `step`: maps the stream and one block's arrays to the stream and that block's outputs.
    - `arrays`: the blocks' arrays, with a leading axis of `length`; None if they have none.

    **Returns:** the stream after the last block, and all outputs with a leading axis.
    """
    if remat is Remat.NONE:
        return jax.lax.scan(step, x, arrays, length, unroll=unroll)
    # The scan already keeps the two computations apart.
    policy = keep_products if remat is Remat.PRODUCTS else None
    block = jax.checkpoint(step, prevent_cse=False, policy=policy)
    if remat in (Remat.PRODUCTS, Remat.BLOCK):
        return jax.lax.scan(block, x, arrays, length, unroll=unroll)
    groups, size = group_sizes(length)

    def group(x: Stream, arrays: PyTree) -> tuple[Stream, PyTree]:
        return jax.lax.scan(block, x, arrays, size, unroll=unroll)

    def split(leaf: Array) -> Array:
        return leaf[: groups * size].reshape(groups, size, *leaf.shape[1:])

    grouped = jax.tree.map(split, arrays)
    x, outputs = jax.lax.scan(jax.checkpoint(group, prevent_cse=False), x, grouped, groups)
    outputs = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)
    rest = length - groups * size
    if rest:
        tail = jax.tree.map(lambda leaf: leaf[groups * size :], arrays)
        x, last = jax.lax.scan(block, x, tail, rest, unroll=unroll)
        outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, last)
    return x, outputs


def group_sizes(length: int) -> tuple[int, int]:
    """How many groups of how many blocks `Remat.NESTED` makes; what remains follows singly.

    A divisor near the root leaves nothing over, so that no parameters are copied.
    """
    root = math.isqrt(length)
    divisors = [d for d in range(root - root // 3, root + root // 2 + 1) if length % d == 0]
    size = min(divisors, key=lambda d: abs(d - root), default=root)
    return length // size, size
