from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from ._critics import Ensemble
from ._learner import Progress
from ._misc import is_shaped
from ._online import Collected
from ._rows import OfflineRows
from ._stacking import is_stacked

LAYERS = "layers"
EVERYWHERE = ("data", LAYERS)  # Rows are split over all devices, whatever the axis.
_WHOLE = PartitionSpec()


def placement(tree: PyTree, layers: int) -> PyTree:
    """How a tree lies on a mesh of devices, by the types that it is made of: a `PartitionSpec` for
    every leaf.

    - `Progress`: each layer of stacked parameters, and of what the optimizer keeps for them, is
      split over the axis `layers`, along its first axis that makes equal parts; all else is whole
      on every device. (Were whole layers shared out instead, XLA would gather the stack before
      the scan over it, and every device would need room for all of them at once.)
    - `Collected`: environments, their plans, their pushes and their part of the replay memory are
      split over all devices.
    - `OfflineRows`: steps are split over all devices; their index is whole on every device.
    - Anything else is whole on every device.

    Raises `ValueError` where `layers` divides no axis of a layer, or nothing is stacked.
    """

    def rule(node: Any) -> PyTree:
        if isinstance(node, Progress):
            return _progress(node, layers)
        if isinstance(node, Collected):
            return _collected(node)
        if isinstance(node, OfflineRows):
            return eqx.tree_at(lambda r: r.steps, _whole(node), _rows(node.steps))
        return _WHOLE

    return jax.tree.map(rule, tree, is_leaf=_has_a_rule)


def _has_a_rule(node: object) -> bool:
    return isinstance(node, Progress | Collected | OfflineRows)


def _whole(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda _: _WHOLE, tree)


def _rows(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda _: PartitionSpec(EVERYWHERE), tree)


def _progress(progress: Progress[Any, Any], layers: int) -> PyTree:
    whole = _whole(progress)
    if layers == 1:
        return whole
    _check_layers(progress.params, layers)
    kept = progress.params, progress.opt_state
    return eqx.tree_at(
        lambda p: (p.params, p.opt_state), whole, [_layered(t, layers) for t in kept]
    )


def _layered(tree: PyTree, layers: int) -> PyTree:
    def rule(x: Any, axis: int | None) -> PartitionSpec:
        if axis is None or not is_shaped(x):
            return _WHOLE
        within = (a for a in range(axis + 1, x.ndim) if x.shape[a] % layers == 0)
        first = next(within, None)
        return _WHOLE if first is None else PartitionSpec(*[None] * first, LAYERS)

    leaves, structure = jax.tree.flatten(tree)
    axes = _layer_axes((tree,), 0, None)
    return jax.tree.unflatten(structure, map(rule, leaves, axes))


def _check_layers(params: PyTree, layers: int) -> None:
    """Refuses layers whose matrices cannot be split."""
    axes = _layer_axes((params,), 0, None)
    pairs = zip(jax.tree.leaves(params), axes, strict=True)
    shapes = [x.shape[a + 1 :] for x, a in pairs if a is not None and is_shaped(x)]
    matrices = [shape for shape in shapes if len(shape) > 1]
    if not matrices:
        raise ValueError(
            f"Nothing of these networks is stacked that layers={layers} could split: use an "
            "architecture of stacked blocks, or data alone."
        )
    for shape in matrices:
        if all(size % layers for size in shape):
            width = max(shape)
            low = width // layers * layers
            near = f"{low} or {low + layers}" if low else f"{layers}"
            fewer = max(d for d in range(1, layers) if width % d == 0)
            raise ValueError(
                f"Layers of width {width} cannot be split over layers={layers}: use a width of "
                f"{near}, or layers={fewer}."
            )


def _layer_axes(tree: PyTree, axes: int, layer: int | None) -> Iterator[int | None]:
    """For every leaf, in order, the axis along which layers are stacked, or None."""
    for node in jax.tree.leaves(tree, is_leaf=lambda n: is_stacked(n) and n is not tree):
        if not is_stacked(node) or node is tree:
            yield layer
        elif isinstance(node, Ensemble):
            yield from _layer_axes(node, axes + 1, layer)
        else:
            yield from _layer_axes(node, axes + 1, axes)


def _collected(data: Collected) -> PyTree:
    envs = data.replay.newest.shape[0]
    sizes = envs, envs * data.replay.capacity

    def rule(x: Any) -> PartitionSpec:
        split = is_shaped(x) and x.ndim > 0 and x.shape[0] in sizes
        return PartitionSpec(EVERYWHERE) if split else _WHOLE

    parts = data.env, data.replay, data.plan, data.push
    specs = [jax.tree.map(rule, part) for part in parts]
    return eqx.tree_at(lambda d: (d.env, d.replay, d.plan, d.push), _whole(data), specs)
