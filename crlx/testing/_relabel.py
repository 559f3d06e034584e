import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._objective import AbstractObjective, Batch, Params, State
from .._rows import AbstractRows
from .._types import Step
from ._jaxprs import check_memory, stored
from ._require import require, require_close

# Marks are half-integers, exact in float32, and too large for a reward or a weight to be one.
MARK = 32768.5


class _Marked(AbstractRows):
    """Rows whose every number is the row's own, plus `MARK`."""

    rows: AbstractRows

    def draw(self, size: int, *, key: PRNGKeyArray) -> Int[Array, " batch"]:
        return self.rows.draw(size, key=key)

    def take(self, index: Int[Array, " batch"]) -> Step:
        steps = self.rows.take(index)

        def mark(x: Array) -> Array:
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return x
            number = index.astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
            return jnp.broadcast_to(number + MARK, x.shape)

        return Step(mark(steps.observation), mark(steps.action), mark(steps.achieved), steps.extras)

    def last(self, index: Int[Array, " batch"]) -> Int[Array, " batch"]:
        return self.rows.last(index)


def check_relabel(
    objective: AbstractObjective[Params, State, Batch],
    rows: AbstractRows,
    *,
    batch_size: int = 32,
    own_trajectory: bool = True,
    key: PRNGKeyArray,
) -> None:
    """`objective.relabel` is pure, needs O(batch) memory and mixes no trajectories.

    To see what it gathers, it is also run on rows whose every number is their row number.

    **Arguments:**

    - `objective`: the objective.
    - `rows`: more than four times `batch_size`, and more than any vector is long.
    - `batch_size`: rows of the minibatch.
    - `own_trajectory`: all that a row gathers comes from its own trajectory, at or after
      itself; False for objectives with goals from anywhere.
    """
    require(
        stored(rows) > 4 * batch_size,
        f"{stored(rows)} rows are too few to tell what {batch_size} cost: pass more than four "
        "times the batch.",
    )
    dkey, rkey = jr.split(key)
    index = rows.draw(batch_size, key=dkey)

    def relabel(rows: AbstractRows, index: Array, key: PRNGKeyArray) -> Batch:
        return objective.relabel(rows, index, key=key)

    batch = relabel(rows, index, rkey)
    for leaf in jax.tree.leaves(batch):
        require(
            eqx.is_array(leaf),
            f"`relabel` put {leaf!r} into the batch, which may hold arrays and None alone: "
            "settings belong into fields of the objective.",
        )
    jitted = eqx.filter_jit(relabel)(rows, index, rkey)
    require_close(jitted, batch, "`relabel`, compiled and run twice with one key: batch")
    check_memory(relabel, rows, index, rkey, what="`relabel`")
    marked = relabel(_Marked(rows), index, rkey)
    _check_marks(marked, np.asarray(index), np.asarray(rows.last(index)), own_trajectory)


def _check_marks(
    batch: PyTree, index: Int[np.ndarray, " batch"], last: Int[np.ndarray, " batch"], own: bool
) -> None:
    gathered = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(batch, eqx.is_inexact_array)):
        if leaf.ndim == 0 or leaf.shape[0] != len(index):
            continue
        row, column, number = _marks(leaf)
        gathered += len(number)
        wrong = (number < index[row]) | (number > last[row] + 1)
        if not own or not wrong.any():
            continue
        i = int(np.argmax(wrong))
        raise AssertionError(
            f"batch{jax.tree_util.keystr(path)}[{row[i]}, {column[i]}] was gathered from row "
            f"{number[i]} for row {index[row[i]]}, whose trajectory ends at row {last[row[i]]}. "
            "Choose goals between `index` and `rows.last(index)`, or pass own_trajectory=False "
            "if they may come from anywhere."
        )
    require(gathered, "`relabel` returned nothing that it gathered with `rows.take`.")


def _marks(leaf: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flat = np.asarray(leaf, np.float64).reshape(leaf.shape[0], -1)
    number = flat - MARK
    row, column = np.nonzero((number >= 0) & (number == np.round(number)))
    return row, column, number[row, column].astype(int)
