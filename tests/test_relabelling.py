import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from crlx import Final, OfflineRows, Step, Uniform
from objectives import Contrastive

LAST = np.array([4, 4, 4, 8, 8, 4])  # Of the trajectories of the rows that are drawn.


def episodes():
    """Of 6 and 4 rows; the number of a row is in every value."""
    number = jnp.arange(10, dtype=jnp.float32)
    parts = ((0, 3), (100, 2), (200, 2))
    steps = Step(*(jnp.stack([number + first] * size, 1) for first, size in parts))
    return OfflineRows(steps, np.isin(number, (5, 9))), jnp.array([0, 1, 3, 6, 8, 4], jnp.int32)


@pytest.mark.parametrize("actor_goals", (None, Final(), Uniform()))
def test_contrastive_relabels_by_index(actor_goals):
    rows, index = episodes()
    objective = Contrastive(goals=Uniform(), actor_goals=actor_goals)
    relabel = eqx.filter_jit(objective.relabel)
    batches = [relabel(rows, index, key=jr.key(i)) for i in range(20)]
    goals, actor_goals_drawn = (
        np.stack([np.asarray(goal)[:, 0] - 200 for goal in goals])
        for goals in zip(*((b.goal, b.actor_goal) for b in batches), strict=True)
    )
    for batch in batches:
        np.testing.assert_array_equal(batch.observation[:, 0], index)
        np.testing.assert_array_equal(batch.action[:, 0] - 100, index)
    for drawn in (goals, actor_goals_drawn):
        assert np.all((drawn >= np.minimum(index + 1, LAST)) & (drawn <= LAST))
    assert set(goals[:, 0]) == {1, 2, 3, 4}
    if isinstance(actor_goals, Final):
        assert np.all(actor_goals_drawn == LAST)
    else:  # Shared, or drawn apart.
        assert np.all(actor_goals_drawn == goals) == (actor_goals is None)
