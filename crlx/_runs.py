from typing import TypeVar

import equinox as eqx
import jax
from jaxtyping import PyTree

from ._learner import Progress
from ._misc import is_shaped
from ._online import Collected

Tree = TypeVar("Tree")


def run_axes(tree: PyTree) -> PyTree:
    """The axes for a `equinox.filter_vmap` of whole runs that differ in their seeds: 0 for arrays,
    of which each run has its own, and None for what all share.

    That is what is not an array, and the counts of steps in `Progress` and `Collected`: were each
    run to count for itself, a loop of so many steps would have to copy, at every step, what it
    changes.

    **Arguments:**

    - `tree`: of one run or of several; of its arrays, only the shapes may be known.
    """
    return jax.tree.map(lambda own: 0 if own else None, _own(tree))


def take_run(tree: Tree, index: int) -> Tree:
    """One of several runs that are stacked as `run_axes` says."""
    return jax.tree.map(lambda x, own: x[index] if own else x, tree, _own(tree))


def _own(tree: PyTree) -> PyTree:
    """For every leaf, whether each run has its own."""

    def rule(node: object) -> PyTree:
        if isinstance(node, Progress):
            return eqx.tree_at(lambda p: p.step, jax.tree.map(is_shaped, node), False)
        if isinstance(node, Collected):
            return eqx.tree_at(lambda d: d.steps, jax.tree.map(is_shaped, node), False)
        return is_shaped(node)

    return jax.tree.map(rule, tree, is_leaf=lambda n: isinstance(n, Progress | Collected))
