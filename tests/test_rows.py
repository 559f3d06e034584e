import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from crlx import OfflineRows, Spec, Step
from crlx.testing import check_rows, datasets, episodes, keys, numbered_rows, random_rows


def steps(count):
    return random_rows(Spec(3, 2, 2), [count], key=jax.random.key(0)).steps


@given(lengths=episodes())
def test_ends_by_counting(lengths):
    """Every row's `last` is the row before its trajectory's final one; a final row is its own."""
    rows = numbered_rows(lengths)
    expected, drawable = [], []
    for length in lengths:
        start = len(expected)
        expected += [start + length - 2] * (length - 1) + [start + length - 1]
        drawable += range(start, start + length - 1)
    index = jnp.arange(sum(lengths))
    assert np.array_equal(rows.last(index), expected)
    assert np.array_equal(rows.drawable, drawable)
    assert np.array_equal(rows.last(rows.last(index)), rows.last(index))


@given(rows=datasets(), key=keys())
def test_take_returns_the_rows_asked_for(rows, key):
    index = rows.draw(50, key=key)
    here, after = rows.take(index), rows.take(index + 1)
    for part in (here.observation, here.action, here.achieved):
        assert np.array_equal(part[:, 0], index)
    # The successor of a drawn row is the next row of the same trajectory.
    assert np.array_equal(after.observation[:, 0], index + 1)
    assert np.array_equal(after.observation[:, 1], here.observation[:, 1])


@pytest.mark.parametrize("lengths", [[2], [2, 2], [50, 2, 30, 3]])
def test_contract(lengths, getkey):
    rows = numbered_rows(lengths)
    final = np.cumsum(lengths) - 1
    check_rows(rows, np.setdiff1d(np.arange(sum(lengths)), final), key=getkey())


def test_extras_are_gathered(getkey):
    extras = {"reward": jnp.arange(6.0), "deep": (jnp.arange(6), None)}
    rows = OfflineRows(Step(*[jnp.ones((6, 1))] * 3, extras), np.arange(6) == 5)
    taken = rows.take(jnp.asarray([4, 0])).extras
    assert np.array_equal(taken["reward"], [4, 0])
    assert np.array_equal(taken["deep"][0], [4, 0])


def test_every_number_is_stored_once():
    """Beside the data there is one integer per row and one per row that may be drawn."""
    rows = random_rows(Spec(10, 4, 3), [100] * 10, key=jax.random.key(0))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(rows, eqx.is_array)))
    assert size == 1000 * (10 + 4 + 3) * 4 + (1000 + 990) * 4


def test_terminals_may_be_numbers():
    rows = OfflineRows(steps(4), np.asarray([0.0, 1.0, 0.0, 1.0]))
    assert np.array_equal(rows.drawable, [0, 2])


def test_impossible_data_are_refused():
    with pytest.raises(ValueError, match="same number of rows; got \\[4, 5\\]"):
        OfflineRows(steps(4), np.arange(5) == 4)
    with pytest.raises(ValueError, match="last row must end an episode"):
        OfflineRows(steps(4), np.arange(4) == 2)
    with pytest.raises(ValueError, match="single row"):
        OfflineRows(steps(4), np.arange(4) >= 2)
    with pytest.raises(ValueError, match="single row"):
        OfflineRows(steps(4), np.isin(np.arange(4), (0, 3)))
    with pytest.raises(ValueError, match="last row must end an episode"):
        OfflineRows(jax.tree.map(lambda x: x[:0], steps(4)), np.zeros(0))
