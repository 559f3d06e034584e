import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from crlx import AbstractStacked

from ._blocks import AbstractResidualBlock
from ._stack import AbstractBlock, Stacked, Tied

Tree = TypeVar("Tree")

TIED = (
    "Tied layers share one block, so that there are none to remove or add: their depth is a "
    "number, and another one is another function."
)


def truncate(network: Tree, blocks: int) -> Tree:
    """A network with only the first `blocks` blocks of each of its stacks.

    **Arguments:**

    - `network`: any tree that holds `Stacked`, of whatever depths: an actor, an ensemble of
      critics, all parameters of an objective.
    - `blocks`: how many are kept.
    """
    if blocks < 1:
        raise ValueError(f"At least one block must be kept; got {blocks}.")
    _check_stacked(network)

    def cut(axis: int, stack: Stacked) -> Stacked:
        have = _length(stack, axis)
        if have < blocks:
            raise ValueError(
                f"A stack has {have} blocks, which cannot be cut to {blocks}: use `extend`, or "
                "truncate critic and actor one by one."
            )
        return dataclasses.replace(stack, blocks=_slice(stack.blocks, axis, 0, blocks))

    return _map_stacks(cut, network)


def extend(network: Tree, deeper: Tree) -> Tree:
    """A deeper network that computes the same function as `network` and goes on learning.

    Each stack keeps its blocks, after which come those blocks of `deeper` that it lacks, made the
    identity by `AbstractResidualBlock.silenced`. All that is not a block comes from `network`.
    The function is the same bit for bit where blocks add to a residual stream (but one block
    alone is compiled without a loop, which may round otherwise), and within the rounding of one
    normalization per block on the sphere.

    ```python
    larger = with_depth(architecture, 64)
    critic = extend(critic, Ensemble(lambda key: larger.critic(spec, key=key), 2, key=key))
    ```

    **Arguments:**

    - `network`: what was trained.
    - `deeper`: what supplies the new blocks: the same but for the depths of its stacks, none of
      which may be less, freshly initialized. `with_depth` gives the architecture to build it by.

    Raises `ValueError` where the two differ in anything else (`Tied` layers hold their depth as a
    number), and where blocks cannot be the identity.
    """
    _check_stacked(network)
    return _spliced(network, deeper, shrink=False)


def resize(network: Tree, like: Tree) -> Tree:
    """`network` at the depths of `like`: its stacks are cut as by `truncate` where `like` has
    fewer blocks, and continued as by `extend` where it has more.

    Trees without any stack are returned as they are.
    """
    return _spliced(network, like, shrink=True)


def _map_children(visit: Callable[..., PyTree], tree: PyTree, *others: PyTree) -> PyTree:
    """`tree` with `visit` applied to each outermost `AbstractStacked` below its root, and to each
    leaf beside them."""

    def is_leaf(node: object) -> bool:
        return isinstance(node, AbstractStacked) and node is not tree

    return jax.tree.map(visit, tree, *others, is_leaf=is_leaf)


def _map_stacks(change: Callable[..., Stacked], tree: Tree, *others: Tree) -> Tree:
    """`tree` with each outermost `Stacked` replaced by `change(axis, stack, …)`, where `axis` is
    that of its layers: what an ensemble holds has its members' axes first."""

    def visit(axis: int, node: PyTree, *others: PyTree) -> PyTree:
        if isinstance(node, Stacked):
            return change(axis, node, *others)
        if isinstance(node, AbstractStacked):
            return _map_children(lambda *nodes: visit(axis + 1, *nodes), node, *others)
        return node

    if isinstance(tree, AbstractStacked):
        return visit(0, tree, *others)
    return _map_children(lambda *nodes: visit(0, *nodes), tree, *others)


def _spliced(network: Tree, like: Tree, *, shrink: bool) -> Tree:
    _check_alike(network, like)

    def splice(axis: int, stack: Stacked, like: Stacked) -> Stacked:
        have, want = _length(stack, axis), _length(like, axis)
        if want > have:
            new = _silenced(_slice(like.blocks, axis, have, want))
            blocks = _concatenate(stack.blocks, new, axis)
        elif want == have or shrink:
            blocks = _slice(stack.blocks, axis, 0, want)
        else:
            raise ValueError(
                f"A stack of {have} blocks cannot be extended to {want}: use `truncate`, or "
                "`resize`, which does both."
            )
        # How a stack is run may depend on its depth.
        return Stacked(blocks, like.remat, like.unroll)

    return _map_stacks(splice, network, like)


def _silenced(blocks: AbstractBlock) -> AbstractBlock:
    if not isinstance(blocks, AbstractResidualBlock):
        raise ValueError(
            f"{type(blocks).__name__} has no residual branch, so that no choice of its parameters "
            "is sure to be the identity: only networks of residual blocks can be extended."
        )
    return blocks.silenced()


def _length(stack: Stacked, axis: int) -> int:
    return jax.tree.leaves(eqx.filter(stack.blocks, eqx.is_array))[0].shape[axis]


def _slice(blocks: AbstractBlock, axis: int, start: int, stop: int) -> AbstractBlock:
    index = (*[slice(None)] * axis, slice(start, stop))
    return jax.tree.map(lambda a: a[index] if eqx.is_array(a) else a, blocks)


def _concatenate(first: AbstractBlock, second: AbstractBlock, axis: int) -> AbstractBlock:
    old, rest = eqx.partition(first, eqx.is_array)
    new = eqx.filter(second, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis), old, new), rest)


def _check_stacked(network: PyTree) -> None:
    nodes = jax.tree.leaves(network, is_leaf=lambda n: isinstance(n, Stacked | Tied))
    if any(isinstance(node, Stacked) for node in nodes):
        return
    if any(isinstance(node, Tied) for node in nodes):
        raise ValueError(TIED)
    raise ValueError("The network holds no `Stacked`, and so no blocks to remove or add.")


def _check_alike(network: PyTree, like: PyTree) -> None:
    old, new = dict(_described("", network)), dict(_described("", like))
    found = [
        f"{name}: {old.get(name, 'absent')} → {new.get(name, 'absent')}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(
            f"The networks may differ in depth alone, but so do {'; '.join(found[:3])}{more}. "
            "Build the other network from the same specification, by the architecture that "
            "`with_depth` returns."
        )


def _described(
    name: str, node: PyTree, axes: int = 0, layers: int | None = None
) -> Iterator[tuple[str, str]]:
    """The name and a description of each part of a tree, depths of stacks left out.

    `axes` counts the stacked axes so far; `layers` is that of the stack in which this is.
    """
    if isinstance(node, jax.Array | jax.ShapeDtypeStruct):
        sizes = [str(n) for axis, n in enumerate(node.shape) if axis != layers]
        yield name, f"{node.dtype}[{','.join(sizes)}]"
    elif jax.tree_util.all_leaves([node]):
        yield name, repr(node)
    else:
        yield name, type(node).__name__
        if isinstance(node, Stacked) and layers is None:
            layers = axes
        elif isinstance(node, eqx.Module):
            yield from _choices(name, node)
        axes += isinstance(node, AbstractStacked)
        children = jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda n: n is not node)
        for path, child in children:
            yield from _described(name + jax.tree_util.keystr(path), child, axes, layers)


def _choices(name: str, module: eqx.Module) -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(module):
        if field.metadata.get("static"):
            yield f"{name}.{field.name}", repr(getattr(module, field.name))
