import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from .._hindsight import AbstractHindsight
from ._require import require

# Rows left in the trajectory: none, one, a few, and more than float32 can count.
LEFT = (0, 1, 2, 3, 10, 1_000, 100_000, 50_000_003)


def check_hindsight(
    hindsight: AbstractHindsight, *, own_trajectory: bool = True, key: PRNGKeyArray
) -> None:
    """Goals are row numbers of the right type, never before the row nor beyond its trajectory.

    Where nothing follows, the goal is the row itself. A row's goal does not depend on where
    the trajectories of other rows end.

    **Arguments:**

    - `hindsight`: what to check. Test its law with `chi_square`.
    - `own_trajectory`: False if goals may also be the other rows of the minibatch.
    """
    skey, *keys = jr.split(key, 4)
    left = jnp.repeat(jnp.asarray(LEFT, jnp.int32), 64)
    index = jr.randint(skey, left.shape, 0, 1_000_000)
    choose = eqx.filter_jit(lambda index, last, key: hindsight(index, last, key=key))
    goal = index
    for k in keys:
        goal = choose(index, index + left, k)
        _check_type(goal, index)
        _check_range(np.asarray(goal), np.asarray(index), np.asarray(left), own_trajectory)
        require(
            np.array_equal(goal, choose(index, index + left, k)),
            "Two calls with one key disagree: draw from `key` alone.",
        )
    _check_range(
        np.asarray(hindsight(index, index + left, key=keys[0])),
        np.asarray(index),
        np.asarray(left),
        own_trajectory,
    )
    # Every second row keeps its room, of three or more so that a goal can move, while those of the
    # others vanish and grow.
    mine = np.arange(len(left)) % 2 == 0
    own = np.maximum(left, 3)
    alone = [
        np.asarray(choose(index, index + jnp.where(mine, own, others), keys[-1]))[mine]
        for others in (left, 0, 60_000_001)
    ]
    require(
        all(np.array_equal(alone[0], other) for other in alone[1:]),
        "Goals of some rows changed with the trajectories of others: choose row by row.",
    )


def _check_type(goal: Array, index: Array) -> None:
    require(
        goal.shape == index.shape and goal.dtype == index.dtype,
        f"Goals are {goal.dtype}{goal.shape}, rows {index.dtype}{index.shape}: return one row "
        "number per row, of the same type.",
    )


def _check_range(
    goal: Int[np.ndarray, " batch"],
    index: Int[np.ndarray, " batch"],
    left: Int[np.ndarray, " batch"],
    own: bool,
) -> None:
    wrong = (goal < index) | (goal > index + left)
    wrong &= own | ~np.isin(goal, index)
    i = int(np.argmax(wrong))
    require(
        not wrong.any(),
        f"Row {index[i]} got the goal {goal[i]}, but its trajectory ends at row "
        f"{index[i] + left[i]}. "
        + ("Clip to [index, last], or pass own_trajectory=False." if own else "Clip to it."),
    )
