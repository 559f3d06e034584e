import math
import os
from typing import Any

import jax
from jaxtyping import PyTree


def size_of(tree: PyTree) -> int:
    """Bytes of all arrays of a tree, of which only the shapes may be known."""
    return sum(x.size * x.dtype.itemsize for x in _shaped(tree))


def size_on_device(tree: PyTree) -> int:
    """Bytes that one device holds of them, where it is known how they are split."""

    def shape(x: Any) -> tuple[int, ...]:
        return x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)

    return sum(math.prod(shape(x)) * x.dtype.itemsize for x in _shaped(tree))


def _shaped(tree: PyTree) -> list[Any]:
    return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array | jax.ShapeDtypeStruct)]


def program_size(compiled: Any) -> int:
    """Bytes that a program from `compile_ahead` holds as it runs: what it is given, what it returns
    elsewhere, and its work space."""
    used = compiled.compiled.memory_analysis()
    fresh = used.output_size_in_bytes - used.alias_size_in_bytes
    return used.argument_size_in_bytes + used.temp_size_in_bytes + max(fresh, 0)


def gigabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def check_fits(size: int, what: str) -> None:
    """Raises `ValueError` if the device has no room for so many bytes."""
    room = _room()
    if size > room:
        raise ValueError(
            f"{what} need {gigabytes(size)}, but {jax.devices()[0].device_kind} has room for "
            f"{gigabytes(room)}: use a smaller --replay, --num-envs, --batch-size or --width."
        )


def _room() -> int:
    """Bytes of the first device's memory, or its share of the machine's where it has none of its
    own."""
    stats: Any = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
