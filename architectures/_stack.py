import abc
from collections.abc import Callable, Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from crlx import AbstractEncoder, AbstractJoinable, AbstractStacked

from ._fold import Remat, fold
from ._precision import Precision
from ._side_by_side import alike, batched, side_by_side
from ._taps import AbstractTapped, BlockStatistics, block_statistics

Tree = TypeVar("Tree")


class AbstractBlock(AbstractEncoder):
    """A layer that preserves the shape of its input."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]: ...


class Stacked(AbstractTapped, AbstractJoinable, AbstractStacked):
    """Blocks with a leading depth axis, traced once and applied in sequence by one scan.

    **Arguments:**

    - `blocks`: one block whose arrays have a leading axis; never call it directly.
    - `remat`: what the backward pass keeps.
    - `unroll`: how many blocks one iteration of the scan applies.
    - `precision`: of the blocks' matrix products.
    """

    blocks: AbstractBlock
    remat: Remat = eqx.field(default=Remat.NONE, static=True)
    unroll: int = eqx.field(default=1, static=True)
    precision: Precision = eqx.field(default=Precision.DEFAULT, static=True)

    def __check_init__(self):
        _check_unroll(self.unroll)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return jax.tree.leaves(eqx.filter(self.blocks, eqx.is_array))[0].shape[0]

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        return self._fold(x, lambda block, x: (block(x), None))[0]

    def tap(self, x: Float[Array, " width"]) -> tuple[Float[Array, " width"], BlockStatistics]:
        return self._fold(x, _tapped)

    def joins(self, other: AbstractEncoder) -> bool:
        return isinstance(other, Stacked) and other._loop == self._loop

    def alongside(
        self,
        others: Sequence[AbstractEncoder],
        streams: Sequence[Float[Array, "_ _"]],
    ) -> list[Float[Array, "_ _"]]:
        stacks = [self, *(other for other in others if isinstance(other, Stacked))]
        arrays, static = zip(*(eqx.partition(s.blocks, eqx.is_array) for s in stacks), strict=True)
        makers = [lambda a, s=s: eqx.combine(a, s) for s in static]
        step = side_by_side(makers)
        if jax.default_backend() != "cpu" and alike(stacks, streams):
            step = batched(makers[0])
        with self.precision.scope():
            xs, _ = fold(
                step,
                tuple(streams),
                arrays,
                length=self.depth,
                remat=self.remat,
                unroll=self.unroll,
            )
        return list(xs)

    def unstack(self) -> "Sequential":
        """The same blocks in a tuple, applied by a Python loop."""
        arrays, static = eqx.partition(self.blocks, eqx.is_array)
        layers = (jax.tree.map(lambda a, i=i: a[i], arrays) for i in range(self.depth))
        blocks = tuple(eqx.combine(layer, static) for layer in layers)
        return Sequential(blocks, self.precision)

    @property
    def _loop(self) -> tuple[int, Remat, int, Precision]:
        return self.depth, self.remat, self.unroll, self.precision

    def _fold(self, x, apply):
        arrays, static = eqx.partition(self.blocks, eqx.is_array)
        with self.precision.scope():
            return fold(
                lambda x, arrays: apply(eqx.combine(arrays, static), x),
                x,
                arrays,
                length=self.depth,
                remat=self.remat,
                unroll=self.unroll,
            )


class Tied(AbstractTapped):
    """One block applied `depth` times: a deep network with the parameters of a shallow one.

    **Arguments:**

    - `block`: what is applied.
    - `depth`: how often.
    - `remat`, `unroll`, `precision`: as for `Stacked`.
    """

    block: AbstractBlock
    depth: int = eqx.field(static=True)
    remat: Remat = eqx.field(default=Remat.NONE, static=True)
    unroll: int = eqx.field(default=1, static=True)
    precision: Precision = eqx.field(default=Precision.DEFAULT, static=True)

    def __check_init__(self):
        _check_unroll(self.unroll)
        _check_depth(self.depth)

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        return self._fold(x, lambda block, x: (block(x), None))[0]

    def tap(self, x: Float[Array, " width"]) -> tuple[Float[Array, " width"], BlockStatistics]:
        return self._fold(x, _tapped)

    def _fold(self, x, apply):
        with self.precision.scope():
            return fold(
                lambda x, _: apply(self.block, x),
                x,
                None,
                length=self.depth,
                remat=self.remat,
                unroll=self.unroll,
            )


class Sequential(AbstractTapped):
    """Blocks applied by a Python loop, so that compilation grows with depth.

    The twin of `Stacked`, for tests, for benchmarks and for taking networks apart.
    """

    blocks: tuple[AbstractBlock, ...]
    precision: Precision = eqx.field(default=Precision.DEFAULT, static=True)

    def __check_init__(self):
        if not self.blocks:
            raise ValueError("A sequence needs at least one block.")

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        with self.precision.scope():
            for block in self.blocks:
                x = block(x)
        return x

    def tap(self, x: Float[Array, " width"]) -> tuple[Float[Array, " width"], BlockStatistics]:
        found = []
        with self.precision.scope():
            for block in self.blocks:
                x, statistics = _tapped(block, x)
                found.append(statistics)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    def stack(self, *, remat: Remat = Remat.NONE, unroll: int = 1) -> Stacked:
        """The same blocks with a leading depth axis; they must agree in structure and shape."""
        arrays, static = zip(*(eqx.partition(b, eqx.is_array) for b in self.blocks), strict=True)
        if any(not eqx.tree_equal(static[0], s) for s in static[1:]):
            raise ValueError("Only blocks of one type and configuration can be stacked.")
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
        return Stacked(eqx.combine(stacked, static[0]), remat, unroll, self.precision)


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
    precision: Precision = Precision.DEFAULT,
    key: PRNGKeyArray,
) -> Stacked:
    """Builds `depth` blocks by one vmapped call of `make(key=...)`.

    Block `i` depends on `key` and `i` alone, so a deeper stack begins with the shallower one.
    """
    _check_depth(depth)
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(depth))
    return Stacked(eqx.filter_vmap(lambda k: make(key=k))(keys), remat, unroll, precision)


def _tapped(
    block: AbstractBlock, x: Float[Array, " width"]
) -> tuple[Float[Array, " width"], BlockStatistics]:
    y = block(x)
    return y, block_statistics(x, y)


def _check_depth(depth: int) -> None:
    if depth < 1:
        raise ValueError(f"A stack needs at least one block; got {depth}.")


def _check_unroll(unroll: int) -> None:
    if unroll < 1:
        raise ValueError(f"`unroll` is at least 1; got {unroll}.")
