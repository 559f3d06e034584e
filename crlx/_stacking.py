from collections.abc import Iterator

import equinox as eqx
import jax
from jaxtyping import PyTree


class AbstractStacked(eqx.Module):
    """A module whose arrays have one leading axis more than those of one of its parts: the layers
    of a stack, the members of an ensemble.

    What must treat parts one by one (clipping, factored optimizers, surgery) finds such modules
    by this type. Where they are nested, the outermost owns the first axis.
    """


def stacking(tree: PyTree) -> list[tuple[int, int]]:
    """For every leaf, in order: a number for the innermost `AbstractStacked` that holds it (0 for
    none), and how many of its leading axes are stacked."""
    counter = iter(range(1, 1 << 30))
    return list(_walk((tree,), 0, 0, counter))


def _walk(tree: PyTree, group: int, axes: int, counter: Iterator[int]) -> Iterator[tuple[int, int]]:
    for leaf in jax.tree.leaves(tree, is_leaf=lambda n: is_stacked(n) and n is not tree):
        if is_stacked(leaf) and leaf is not tree:
            yield from _walk(leaf, next(counter), axes + 1, counter)
        else:
            yield group, axes


def is_stacked(node: object) -> bool:
    """Whether a node of a tree is an `AbstractStacked`."""
    return isinstance(node, AbstractStacked)
