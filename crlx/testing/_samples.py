from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._rows import OfflineRows
from .._types import ActionSpace, Outcome, Spec, Step


def numbered_rows(lengths: Sequence[int]) -> OfflineRows:
    """Rows that say who they are, so that no mistake of indexing passes unseen.

    Observation and achieved state are the row's number and its trajectory's number; the action
    is the row's number.

    **Arguments:**

    - `lengths`: rows of each trajectory, at least two: the last is a successor only.
    """
    sizes = np.asarray(lengths)
    row = np.arange(sizes.sum(), dtype=np.float32)
    trajectory = np.repeat(np.arange(len(sizes), dtype=np.float32), sizes)
    pair = jnp.asarray(np.stack([row, trajectory], axis=1))
    return OfflineRows(Step(pair, pair[:, :1], pair), terminals(sizes))


def random_rows(
    spec: Spec, lengths: Sequence[int], *, outcomes: bool = False, key: PRNGKeyArray
) -> OfflineRows:
    """Rows of normal observations and achieved states and of uniform actions.

    **Arguments:**

    - `spec`: sizes of the vectors, and which vectors are actions.
    - `lengths`: rows of each trajectory, at least two.
    - `outcomes`: give each row an `Outcome`: a normal goal, and a termination in one of four.
    """
    okey, akey, gkey, ckey, tkey = jr.split(key, 5)
    sizes = np.asarray(lengths)
    count = int(sizes.sum())
    outcome = Outcome(jr.normal(ckey, (count, spec.goal_size)), jr.uniform(tkey, (count,)) < 0.25)
    steps = Step(
        jr.normal(okey, (count, spec.observation_size)),
        random_actions(spec, count, key=akey),
        jr.normal(gkey, (count, spec.goal_size)),
        outcome if outcomes else None,
    )
    return OfflineRows(steps, terminals(sizes))


def random_actions(spec: Spec, count: int, *, key: PRNGKeyArray) -> Float[Array, "count act"]:
    """Uniform among choices, else in [-1, 1]."""
    if spec.actions is ActionSpace.CHOICE:
        return jax.nn.one_hot(jr.randint(key, (count,), 0, spec.action_size), spec.action_size)
    return jr.uniform(key, (count, spec.action_size), minval=-1, maxval=1)


def terminals(lengths: Int[np.ndarray, " trajectories"]) -> Bool[np.ndarray, " rows"]:
    """True on the final row of each trajectory."""
    marks = np.zeros(lengths.sum(), bool)
    marks[np.cumsum(lengths) - 1] = True
    return marks
