from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ._optimizer_check import check_separable
from ._projection import AbstractProjected
from ._stacking import stacking


def weight_decay_mask(params: PyTree) -> PyTree[bool]:
    """True for the weights of every `eqx.nn.Linear`, False for all else: biases, scales of
    LayerNorm, temperatures, and all that an `AbstractProjected` holds.

    Weights are found by the type of their module. The usual mask `ndim >= 2` is wrong for stacked
    layers, whose biases have two axes.

    ```python
    optax.adamw(3e-4, weight_decay=1e-2, mask=crlx.weight_decay_mask)
    ```

    **Arguments:**

    - `params`: networks, or the tree of their arrays that Optax passes. Where something in
      between has taken the modules away, such as `optax.flatten`, nothing is a weight.
    """

    def mask(node: PyTree) -> PyTree[bool]:
        none = jax.tree.map(lambda _: False, node)
        if not isinstance(node, eqx.nn.Linear) or not jax.tree.leaves(node.weight):
            return none
        return eqx.tree_at(lambda m: m.weight, none, True)

    def is_leaf(node: object) -> bool:
        return isinstance(node, AbstractProjected | eqx.nn.Linear)

    return jax.tree.map(mask, params, is_leaf=is_leaf)


def clip_by_layer_norm(max_norm: float) -> optax.GradientTransformationExtraArgs:
    """Clips the gradient of each layer of a stack by the norm of that layer.

    With `g_l` all that the gradient of one stack holds at index `l`,

    `g_l ← g_l · min(1, max_norm / ‖g_l‖₂)`.

    Each member of an ensemble has layers of its own, and what it holds outside its stacks is one
    more. So is what lies outside every `AbstractStacked`.

    **Arguments:**

    - `max_norm`: the largest norm that a layer's gradient keeps; positive.
    """
    if not max_norm > 0:
        raise ValueError(f"`max_norm` must be positive; got {max_norm}.")

    def clip(updates: PyTree, params: PyTree) -> PyTree:
        del params
        norm = optax.tree.norm(updates)
        # Exactly one for small gradients, and never a division by zero.
        factor = max_norm / jnp.maximum(norm, max_norm)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates)

    return _by_layer(optax.stateless(clip))


def per_layer(
    transformation: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Applies an Optax transformation to each layer of a stack as if it were alone.

    Transformations that read the shape or the norm of an array go wrong on the arrays of a stack,
    which hold all its layers: they need this wrapper. It maps them over the stacked axes with
    `jax.vmap`, so that they see arrays of one layer, `[out, in]` and `[out]`. Each layer has a
    state of its own, the counts of schedules included, and so has what lies outside stacks.

    ```python
    optax.chain(optax.clip_by_global_norm(1.0), crlx.per_layer(optax.adafactor(1e-3)))
    ```

    It is for what treats each array on its own, such as `optax.adafactor`, `lamb`, `lars`,
    `adaptive_grad_clip`, `clip_by_block_rms` and `optax.contrib.muon`. It is wrong for what needs
    all arrays, such as `optax.clip_by_global_norm`, which would see those of one layer, and for
    what draws random numbers, which would be the same in all layers: keep them outside, as above.
    Both are refused where they are recognized, which they are not where a function of your own
    builds them or refers to them by a global name.

    Masks and labels must be functions of the parameters, such as `weight_decay_mask`: they are
    asked about one stack at a time. Wrappers that take the modules away, such as
    `optax.flatten`, belong inside.

    `optax.contrib.muon` takes the first axis of a matrix for its inputs, but in `eqx.nn.Linear` it
    is that of outputs. Where the two sizes differ, pass it dimension numbers, for one layer.

    **Arguments:**

    - `transformation`: any Optax transformation. Further arguments of its update, such as
      `value`, reach every layer as they are.
    """
    check_separable(transformation)
    return _by_layer(transformation)


class PerLayerState(NamedTuple):
    """One state for each stack and one for what lies outside; leaves have the stacked axes."""

    states: tuple[optax.OptState, ...]


def _by_layer(
    transformation: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    inner = optax.with_extra_args_support(transformation)

    def init(params: PyTree) -> PerLayerState:
        return PerLayerState(tuple(_vmap(inner.init, n)(part) for n, part in _split(params)))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PerLayerState]:
        def one(state: optax.OptState, updates: PyTree, params: PyTree = None):
            return inner.update(updates, state, params, **extra_args)

        parts = [updates] if params is None else [updates, params]
        results = [
            _vmap(one, axes)(inner_state, *part)
            for inner_state, (axes, *part) in zip(state.states, _split(*parts), strict=True)
        ]
        return _join(updates, [u for u, _ in results]), PerLayerState(tuple(s for _, s in results))

    return optax.GradientTransformationExtraArgs(init, update)


def _split(*trees: PyTree) -> Iterator[tuple[Any, ...]]:
    """For each stack, how many axes are stacked, and each tree with only the leaves of that stack.

    Modules stay where they are, so that masks by type work on each part.
    """
    groups = stacking(trees[0])
    for group in sorted(set(groups)):
        mask = jax.tree.unflatten(jax.tree.structure(trees[0]), [g == group for g in groups])
        yield group[1], *(eqx.filter(tree, mask, replace=optax.MaskedNode()) for tree in trees)


def _join(tree: PyTree, parts: list[PyTree]) -> PyTree:
    """The inverse of `_split`: the structure of `tree` with the leaves of all parts."""
    groups = stacking(tree)
    found = {g: iter(jax.tree.leaves(p)) for g, p in zip(sorted(set(groups)), parts, strict=True)}
    return jax.tree.unflatten(jax.tree.structure(tree), [next(found[g]) for g in groups])


def _vmap(function: Callable[..., Any], axes: int) -> Callable[..., Any]:
    for _ in range(axes):
        function = jax.vmap(function)
    return function
