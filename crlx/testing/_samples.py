from collections.abc import Sequence

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Bool, Int, PRNGKeyArray

from .._rows import OfflineRows
from .._types import Spec, Step


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


def random_rows(spec: Spec, lengths: Sequence[int], *, key: PRNGKeyArray) -> OfflineRows:
    """Rows of normal observations and achieved states and of uniform actions in [-1, 1].

    **Arguments:**

    - `spec`: sizes of the vectors.
    - `lengths`: rows of each trajectory, at least two.
    """
    okey, akey, gkey = jr.split(key, 3)
    sizes = np.asarray(lengths)
    count = int(sizes.sum())
    steps = Step(
        jr.normal(okey, (count, spec.observation_size)),
        jr.uniform(akey, (count, spec.action_size), minval=-1, maxval=1),
        jr.normal(gkey, (count, spec.goal_size)),
    )
    return OfflineRows(steps, terminals(sizes))


def terminals(lengths: Int[np.ndarray, " trajectories"]) -> Bool[np.ndarray, " rows"]:
    """True on the final row of each trajectory."""
    marks = np.zeros(lengths.sum(), bool)
    marks[np.cumsum(lengths) - 1] = True
    return marks
