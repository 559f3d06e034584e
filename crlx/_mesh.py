import re
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ._misc import is_shaped
from ._placement import EVERYWHERE, LAYERS, placement

Tree = TypeVar("Tree")


class DeviceMesh(eqx.Module):
    """All devices of all processes as a grid, over which XLA spreads one program.

    Rows of minibatches, environments, replay memories and datasets are split over all `data *
    layers` devices. Parameters and the optimizer's state are whole on every device, but with
    `layers` above 1 each of so many devices keeps its part of every layer. XLA moves what is needed
    when the layer is used: activations, or parameters.

    **Arguments:**

    - `data`, `layers`: devices along each axis. One alone means the first device.

    ??? cite
        Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models
        (SC 2020), for keeping parts of parameters and optimizer state.
    """

    data: int = eqx.field(default=1, static=True)
    layers: int = eqx.field(default=1, static=True)

    def __check_init__(self):
        if min(self.data, self.layers) < 1:
            raise ValueError(
                f"Axes of a mesh have one device or more; got data={self.data} and "
                f"layers={self.layers}."
            )

    @staticmethod
    def read(text: str) -> "DeviceMesh":
        """The mesh that a text such as `data=4,layers=2` describes.

        Raises `ValueError` for other axes.
        """
        axes: dict[str, int] = {}
        for part in text.split(","):
            match = re.fullmatch(r"\s*(data|layers)=(\d+)\s*", part)
            if match is None or match[1] in axes:
                raise ValueError(
                    f"A mesh is written as data=N or data=N,layers=M; got {text!r}, of which "
                    f"{part!r} is no part."
                )
            axes[match[1]] = int(match[2])
        return DeviceMesh(**axes)

    @staticmethod
    def parse(text: str) -> "DeviceMesh":
        """The mesh of all devices that a text describes.

        Raises `ValueError` for other axes, or another number of devices than there are.
        """
        mesh, there = DeviceMesh.read(text), jax.device_count()
        if mesh.size != there:
            data = there // mesh.layers
            fits = f"data={data},layers={mesh.layers}" if data * mesh.layers == there else ""
            raise ValueError(
                f"The mesh {text} has {mesh.size} devices, but there are {there}: use "
                f"{fits or f'data={there}'}."
            )
        return mesh

    @property
    def size(self) -> int:
        """How many devices."""
        return self.data * self.layers

    def check_split(self, name: str, number: int) -> None:
        """Raises `ValueError` where so many rows do not make equal parts for all devices."""
        if number % self.size:
            low = number // self.size * self.size
            near = f"{low} or {low + self.size}" if low else f"{self.size}"
            raise ValueError(
                f"{name} {number} cannot be split over {self.size} devices: use {near}."
            )

    def constrain(self, tree: Tree) -> Tree:
        """Within a traced function: the same tree, of which each device holds its part."""
        return self._apply(jax.lax.with_sharding_constraint, tree)

    def split(self, tree: Tree) -> Tree:
        """Within a traced function: the same arrays, split along their leading axis where that
        makes equal parts."""

        def leaf(x):
            even = eqx.is_array(x) and x.ndim > 0 and x.shape[0] % self.size == 0
            return jax.lax.with_sharding_constraint(x, self._split) if even else x

        return jax.tree.map(leaf, tree)

    def whole(self, tree: Tree) -> Tree:
        """Within a traced function: the same arrays, whole on every device."""
        return jax.lax.with_sharding_constraint(tree, self._sharding(PartitionSpec()))

    def place(self, tree: Tree) -> Tree:
        """The same tree on all devices, each with its part. Every process has the whole tree.

        Arrays that are to be split are first made longer, by zeros, until all parts are equal.
        """
        if self.size == 1:
            return tree
        known: dict[int, jax.Array] = {}  # An array that occurs twice is kept once.

        def leaf(x: jax.Array, sharding: NamedSharding) -> jax.Array:
            if id(x) not in known:
                known[id(x)] = _spread(np.asarray(x), sharding)
            return known[id(x)]

        return self._apply(leaf, tree)

    def described(self, skeleton: Tree) -> Tree:
        """The shapes of a tree (`jax.ShapeDtypeStruct`), with where they lie."""

        def leaf(x, sharding):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

        return self._apply(leaf, skeleton)

    def _apply(self, function, tree: PyTree) -> PyTree:
        def leaf(x, spec):
            return function(x, self._sharding(spec)) if is_shaped(x) else x

        return jax.tree.map(leaf, tree, placement(tree, self.layers))

    @property
    def _split(self) -> NamedSharding:
        return self._sharding(PartitionSpec(EVERYWHERE))

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        kinds = (AxisType.Auto, AxisType.Auto)
        devices = jax.devices()[: self.size]
        mesh = jax.make_mesh(
            (self.data, self.layers), ("data", LAYERS), axis_types=kinds, devices=devices
        )
        return NamedSharding(mesh, spec)


def local(tree: Tree) -> Tree:
    """All arrays of a tree, whole, on the first device of this process.

    Where there are several processes, all of them call it.
    """

    def leaf(x):
        if not isinstance(x, jax.Array):
            return x
        if not x.is_fully_replicated:
            assert isinstance(x.sharding, NamedSharding)
            whole = NamedSharding(x.sharding.mesh, PartitionSpec())
            x = jax.jit(lambda x: x, out_shardings=whole)(x)
        return x.addressable_data(0)

    return jax.tree.map(leaf, tree)


def _spread(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that is whole in this process, over all devices."""
    if sharding.is_fully_replicated:
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
    parts, (rows, *rest) = sharding.mesh.size, array.shape
    shape = -(-rows // parts) * parts, *rest

    def part(index: Any) -> np.ndarray:
        held = array[index]  # At the end there may be less.
        short = shape[0] // parts - len(held)
        return np.pad(held, [(0, short)] + [(0, 0)] * len(rest)) if short else held

    return jax.make_array_from_callback(shape, sharding, part)
