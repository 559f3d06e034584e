import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from crlx.envs.tasks import LAYOUTS, Cells, Corridor, Layout, Ring

_DRAWS = 20_000


def _draw(arena, scale=4.0):
    places = jax.vmap(lambda key: arena.draw(scale, key=key))(jr.split(jr.key(3), _DRAWS))
    return np.array(places.start), np.array(places.goal)


def test_ring():
    start, goal = _draw(Ring(1.0, 5.0))
    radius, angle = np.linalg.norm(goal, axis=1), np.arctan2(goal[:, 1], goal[:, 0])
    assert not start.any()
    assert stats.kstest(radius, stats.uniform(1, 4).cdf).pvalue > 0.01
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01


def test_circle():
    start, goal = _draw(Ring(10.0, 10.0))
    np.testing.assert_allclose(np.linalg.norm(goal, axis=1), 10.0, rtol=1e-5)
    assert not start.any()


def test_random_starts_are_as_far_from_the_goal():
    start, goal = _draw(Ring(10.0, 10.0, random_start=True))
    np.testing.assert_allclose(np.linalg.norm(start - goal, axis=1), 10.0, rtol=1e-5)
    turn = np.arctan2(*(start - goal).T) - np.arctan2(*goal.T)
    turn = np.mod(turn, 2 * np.pi)
    assert stats.kstest(turn, stats.uniform(0, 2 * np.pi).cdf).pvalue > 0.01


@pytest.mark.parametrize("layout", ["u_maze", "big_maze", "hardest_maze"])
@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_cells(layout, scale):
    start, goal = _draw(Cells(LAYOUTS[layout]), scale)
    maze = Layout.named(layout)
    assert np.unique(start, axis=0).tolist() == maze.centres("R", scale).tolist()
    places, counts = np.unique(goal, axis=0, return_counts=True)
    assert places.tolist() == maze.centres("G", scale).tolist()
    assert stats.chisquare(counts).pvalue > 0.01


def test_start_and_goal_are_independent():
    drawing = "######\n#RRGG#\n######"
    start, goal = _draw(Cells(drawing))
    table = np.histogram2d(start[:, 1], goal[:, 1], bins=2)[0]
    assert stats.chi2_contingency(table).pvalue > 0.01


def test_stretches_of_a_corridor():
    drawing, steps = LAYOUTS["u_maze_single_eval"], (1, 2, 3)
    start, goal = _draw(Corridor(drawing, steps))
    way = Layout(drawing).corridor()
    pairs = {(way[m], way[m + k]): 1 / 3 / (len(way) - k) for k in steps for m in range(7 - k)}
    assert len(pairs) == 15  # Six, five and four.
    cells = np.concatenate([start, goal], axis=1) / 4
    found, counts = np.unique(cells, axis=0, return_counts=True)
    expected = [pairs.pop(((a, b), (c, d))) * _DRAWS for a, b, c, d in found.astype(int).tolist()]
    assert not pairs
    assert stats.chisquare(counts, expected).pvalue > 0.01


@pytest.mark.parametrize("steps", [(), (0,), (7,), (1, 9)])
def test_stretches_that_do_not_fit(steps):
    with pytest.raises(ValueError, match="1 to 6 cells ahead"):
        Corridor(LAYOUTS["u_maze_single_eval"], steps)


def test_places_depend_on_the_key_alone():
    arena = Cells(LAYOUTS["big_maze"])
    one, same, other = (arena.draw(4.0, key=jr.key(seed)) for seed in (1, 1, 2))
    assert jnp.array_equal(one.goal, same.goal)
    assert not jnp.array_equal(one.goal, other.goal)
