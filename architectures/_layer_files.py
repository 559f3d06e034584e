import pathlib
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from crlx import AbstractStacked, replacing

from ._stack import Stacked

Tree = TypeVar("Tree")
Leaf = TypeVar("Leaf", jax.Array, jax.ShapeDtypeStruct)


def export_layers(network: PyTree, path: str | pathlib.Path) -> None:
    """Writes every array of a network, one per layer, to one `.npz` that NumPy alone can read.

    An entry is named by the way to it, as in
    `critic/members/0/state_action/trunk/stack/3/layers/1/linear/weight`:

    - fields by their names, entries of tuples by their positions, of dictionaries by their keys;
    - the index of a block in place of the field `blocks` of a `Stacked`;
    - the index of a member after the field that holds the members of an ensemble.

    Numbers that are no arrays, such as a fixed factor on branches, belong to the architecture and
    are not written.

    ```python
    with np.load("layers.npz", allow_pickle=False) as layers:
        weight = layers["actor/trunk/stack/0/layers/0/linear/weight"]
    ```

    **Arguments:**

    - `network`: any tree of modules.
    - `path`: the file; replaced as a whole if it exists.
    """
    arrays = eqx.filter(network, eqx.is_array)
    arrays = jax.tree.map(lambda x: np.asarray(_checked(x)), arrays)
    # `numpy.savez` has arguments of its own, with which names of entries could clash.
    with replacing(pathlib.Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for name, array in _named(arrays):
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def import_layers(skeleton: Tree, path: str | pathlib.Path) -> Tree:
    """The network that `export_layers` wrote.

    **Arguments:**

    - `skeleton`: a network of the same architecture, whose arrays may be `jax.ShapeDtypeStruct`,
      as `equinox.filter_eval_shape` returns.
    - `path`: the file.

    Raises `ValueError` if the file cannot be read, or holds anything but exactly the arrays of
    the skeleton.
    """
    arrays, rest = eqx.partition(skeleton, _is_shaped)
    empty = jax.tree.map(lambda x: np.empty(x.shape, _checked(x).dtype), arrays)
    wanted = dict(_named(empty))
    found = _read(pathlib.Path(path))
    _check_names(wanted, found, path)
    for name, place in wanted.items():
        array = found[name]
        if (array.shape, array.dtype) != (place.shape, place.dtype):
            raise ValueError(
                f"{name} is {array.dtype}{list(array.shape)} in {path} and "
                f"{place.dtype}{list(place.shape)} in the network."
            )
        place[...] = array
    return eqx.combine(jax.tree.map(jnp.asarray, empty), rest)


def _named(tree: PyTree) -> Iterator[tuple[str, np.ndarray]]:
    """The name of every entry, and a view of its part of the array that holds it."""
    for parts, array in _walk(tree, (), isinstance(tree, AbstractStacked)):
        yield "/".join(parts), array


def _walk(
    tree: PyTree, index: tuple[int, ...], split: bool
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """`index` holds the positions along the leading axes that have been split already."""
    if split:
        for i in range(jax.tree.leaves(tree)[0].shape[len(index)]):
            for (field, *inner), array in _walk(tree, (*index, i), False):
                yield (*(() if isinstance(tree, Stacked) else (field,)), str(i), *inner), array
        return
    nodes = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda n: isinstance(n, AbstractStacked) and n is not tree
    )
    for path, node in nodes:
        parts = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        if isinstance(node, AbstractStacked):
            yield from ((parts + inner, array) for inner, array in _walk(node, index, True))
        else:
            yield parts, node[(*index, ...)]


def _checked(x: Leaf) -> Leaf:
    if not isinstance(x.dtype, np.dtype) or x.dtype.isbuiltin != 1:
        raise ValueError(f"NumPy has no {x.dtype}; convert the network to float32 first.")
    return x


def _is_shaped(x: object) -> bool:
    return isinstance(x, jax.Array | jax.ShapeDtypeStruct)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a file of layers: {error}.") from error


def _check_names(
    wanted: dict[str, np.ndarray], found: dict[str, np.ndarray], path: str | pathlib.Path
) -> None:
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if not missing and not unknown:
        return
    there, here = _counts(found), _counts(wanted)
    for name in here:
        if name in there and there[name] != here[name]:
            raise ValueError(
                f"{name} has {there[name]} parts in {path} and {here[name]} in the network. Where "
                "they are blocks, build the network at the depth of the file; `truncate` and "
                "`extend` change it afterwards."
            )
    lacks = f"it lacks {missing[0]!r}" if missing else f"it also holds {unknown[0]!r}"
    raise ValueError(
        f"{path} holds another network: {lacks}, the first of {len(missing or unknown)} such names."
    )


def _counts(names: Iterable[str]) -> dict[str, int]:
    """How many numbered parts there are of all that has any: of stacks, ensembles and tuples."""
    found: dict[str, int] = {}
    for name in names:
        for match in re.finditer(r"/(\d+)(?=/)", name):
            whole = name[: match.start()]
            found[whole] = max(found.get(whole, 0), int(match[1]) + 1)
    return found
