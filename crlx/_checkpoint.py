import ctypes
import logging
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree

from ._config import JSON
from ._fingerprint import fingerprint
from ._hosts import is_first, wait_for_hosts
from ._misc import is_shaped

log = logging.getLogger(__name__)


class Restored(eqx.Module):
    """What a checkpoint held: its step, its trees and its note."""

    step: int
    items: dict[str, PyTree]
    note: Any


class Checkpoints:
    """Numbered checkpoints in one directory, written by Orbax: atomic, the newest few kept.

    Each holds named trees of arrays and a JSON note. Arrays that lie on several devices are written
    in parts, by all processes, and may be read onto other devices, however many. A fingerprint of
    every array travels in the note, so that damage is found even where the storage does not notice
    it.

    **Arguments:**

    - `directory`: made if missing.
    - `keep`: how many are kept.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 3):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        self.directory = directory

    def save(self, step: int, items: Mapping[str, PyTree], note: JSON) -> None:
        """Starts to write a checkpoint; the arrays may be overwritten as soon as this returns.

        Leaves that are not arrays are not written: they come from the skeleton when read. A step
        that has a checkpoint keeps it: nothing is deleted to make room for what replaces it.
        """
        if step in self._manager.all_steps():
            return
        _give_memory_back()  # Of the checkpoint before.
        stored = _stored(items)
        marks = {name: _fingerprints(arrays) for name, arrays in stored.items()}
        args = {name: ocp.args.StandardSave(arrays) for name, arrays in stored.items()}
        header = ocp.args.JsonSave({"fingerprints": marks, "note": note})
        self._manager.save(step, args=ocp.args.Composite(**args, header=header), force=True)

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, oldest first."""
        return sorted(self._manager.all_steps())

    def restore(self, skeletons: Mapping[str, PyTree]) -> Restored | None:
        """Reads the newest checkpoint that is whole; says which ones it had to pass over.

        **Arguments:**

        - `skeletons`: for each tree that is wanted, one of the same structure whose arrays may
          be `jax.ShapeDtypeStruct`, as `equinox.filter_eval_shape` returns. Each is read to where
          its sharding says, or to the first device of this process if it has none.

        **Returns:** None if the directory holds no checkpoint.

        Raises `ValueError` if there are checkpoints but none can be read.
        """
        wanted = _stored({name: _storable(tree) for name, tree in skeletons.items()})
        failures = []
        for step in reversed(self.steps()):
            try:
                found = self._read(step, wanted)
            except Exception as error:
                if not _means_broken(error):
                    raise
                reason = str(error).strip().splitlines()[0][:200] if str(error) else repr(error)
                failures.append(f"step {step}: {reason}")
                log.warning("The checkpoint of step %d cannot be read (%s).", step, reason)
            else:
                arrays = {name: found[name] for name in wanted}
                items = {name: _unflatten(t, arrays.get(name, {})) for name, t in skeletons.items()}
                return Restored(step, items, found["header"]["note"])
        if failures:
            raise ValueError(
                f"No checkpoint in {self.directory} can be read: {'; '.join(failures)}. "
                "Start again in a new directory."
            )
        return None

    def _read(self, step: int, wanted: Mapping[str, Mapping[str, Any]]) -> Any:
        args = {name: ocp.args.StandardRestore(arrays) for name, arrays in wanted.items()}
        composite = ocp.args.Composite(**args, header=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=composite)
        for name in wanted:
            if _fingerprints(found[name]) != found["header"]["fingerprints"][name]:
                raise ValueError(f"{name} is not what was written")
        return found

    def set_aside(self, step: int) -> None:
        """Moves checkpoints newer than `step` to a folder beside, so that a rerun may write its
        own: they could not be read now, but nothing is thrown away."""
        aside = self.directory.with_name(f"{self.directory.name}-unreadable")
        for later in self.steps():
            if later > step and is_first():
                aside.mkdir(exist_ok=True)
                target = aside / f"{later}-{time.time_ns()}"
                os.replace(self.directory / str(later), target)
                log.warning("It was moved to %s.", target)
        wait_for_hosts("set aside")
        self._manager.reload()

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and releases the writer's threads."""
        self.wait()
        self._manager.close()


def _means_broken(error: Exception) -> bool:
    """Whether files are missing, cut short or overwritten, rather than our own mistake.

    Orbax raises a bare `Exception` for chunks that cannot be read.
    """
    return type(error) is Exception or isinstance(error, ValueError | KeyError | OSError)


def _stored(items: Mapping[str, PyTree]) -> dict[str, dict[str, Any]]:
    """The arrays of each item. Orbax refuses items without any."""
    flat = {name: _flatten(tree) for name, tree in items.items()}
    return {name: arrays for name, arrays in flat.items() if arrays}


def _flatten(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): jr.key_data(x) if _is_key(x) else x
        for path, x in leaves
        if is_shaped(x)
    }


def _unflatten(skeleton: PyTree, arrays: Mapping[str, Array]) -> PyTree:
    def leaf(path: tuple[Any, ...], x: Any) -> Any:
        if not is_shaped(x):
            return x
        stored = arrays[jax.tree_util.keystr(path)]
        return jr.wrap_key_data(stored) if _is_key(x) else stored

    return jax.tree_util.tree_map_with_path(leaf, skeleton)


def _storable(skeleton: PyTree) -> PyTree:
    """Shapes of what is on disk, and where it is to be placed, whatever wrote it."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def leaf(x: Any) -> Any:
        if not is_shaped(x):
            return x
        where = x.sharding if isinstance(x.sharding, jax.sharding.NamedSharding) else device
        x = jax.eval_shape(jr.key_data, x) if _is_key(x) else x
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return jax.tree.map(leaf, skeleton)


def _is_key(x: Any) -> bool:
    return is_shaped(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _fingerprints(arrays: Mapping[str, Array]) -> dict[str, int]:
    return {name: int(fingerprint(x)) for name, x in arrays.items()}


def _give_memory_back() -> None:
    """glibc keeps what the threads that write have freed: in a long run several times the size of
    a checkpoint."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
