import abc
import enum
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import AbstractEncoder

Tree = TypeVar("Tree")


class AbstractBlock(eqx.Module):
    """A layer that preserves the shape of its input."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]: ...


class Remat(enum.Enum):
    """What the backward pass of a stack keeps of the forward pass.

    - `NONE`: everything. Memory grows with all the activations inside the blocks.
    - `BLOCK`: only each block's input; the inside is computed again.
    """

    NONE = enum.auto()
    BLOCK = enum.auto()


class Stacked(AbstractEncoder):
    """Blocks with a leading depth axis, traced once and applied in sequence by one scan.

    **Arguments:**

    - `blocks`: one block whose arrays have a leading axis; never call it directly.
    - `remat`: what the backward pass keeps.
    - `unroll`: how many blocks one iteration of the scan applies.
    """

    blocks: AbstractBlock
    remat: Remat = eqx.field(default=Remat.NONE, static=True)
    unroll: int = eqx.field(default=1, static=True)

    def __check_init__(self):
        if self.unroll < 1:
            raise ValueError(f"`unroll` is at least 1; got {self.unroll}.")

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return jax.tree.leaves(eqx.filter(self.blocks, eqx.is_array))[0].shape[0]

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        arrays, static = eqx.partition(self.blocks, eqx.is_array)

        def apply(x, arrays):
            return eqx.combine(arrays, static)(x)

        if self.remat is Remat.BLOCK:
            # The scan already keeps the two computations apart.
            apply = jax.checkpoint(apply, prevent_cse=False)
        x, _ = jax.lax.scan(lambda x, a: (apply(x, a), None), x, arrays, unroll=self.unroll)
        return x

    def unstack(self) -> "Sequential":
        """The same blocks in a tuple, applied by a Python loop."""
        arrays, static = eqx.partition(self.blocks, eqx.is_array)
        layers = (jax.tree.map(lambda a, i=i: a[i], arrays) for i in range(self.depth))
        return Sequential(tuple(eqx.combine(layer, static) for layer in layers))


class Sequential(AbstractEncoder):
    """Blocks applied by a Python loop, so that compilation grows with depth.

    The twin of `Stacked`, for tests and for benchmarks.
    """

    blocks: tuple[AbstractBlock, ...]

    def __check_init__(self):
        if not self.blocks:
            raise ValueError("A sequence needs at least one block.")

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        for block in self.blocks:
            x = block(x)
        return x

    def stack(self, *, remat: Remat = Remat.NONE, unroll: int = 1) -> Stacked:
        """The same blocks with a leading depth axis; they must agree in structure and shape."""
        arrays, static = zip(*(eqx.partition(b, eqx.is_array) for b in self.blocks), strict=True)
        if any(not eqx.tree_equal(static[0], s) for s in static[1:]):
            raise ValueError("Only blocks of one type and configuration can be stacked.")
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
        return Stacked(eqx.combine(stacked, static[0]), remat, unroll)


def unstacked(tree: Tree) -> Tree:
    """A copy of a network with every `Stacked` in it replaced by its Python-loop twin."""

    def is_stack(node: object) -> bool:
        return isinstance(node, Stacked)

    return jax.tree.map(lambda n: n.unstack() if is_stack(n) else n, tree, is_leaf=is_stack)


def stacked(
    make: Callable[..., AbstractBlock],
    depth: int,
    *,
    remat: Remat = Remat.NONE,
    unroll: int = 1,
    key: PRNGKeyArray,
) -> Stacked:
    """Builds `depth` blocks by one vmapped call of `make(key=...)`.

    Block `i` depends on `key` and `i` alone, so a deeper stack begins with the shallower one.
    """
    if depth < 1:
        raise ValueError(f"A stack needs at least one block; got {depth}.")
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(depth))
    return Stacked(eqx.filter_vmap(lambda k: make(key=k))(keys), remat, unroll)
