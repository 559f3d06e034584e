import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crlx import (
    Anywhere,
    ClippedGeometric,
    Current,
    Final,
    Geometric,
    Mixture,
    Uniform,
    Windowed,
)
from crlx.testing import chi_square, datasets, keys

DRAWS = 100_000
START = 17  # Of all rows below, so that a result relative to zero is noticed.
DISCOUNTS = (0.5, 0.9, 0.99, 0.995)
LEFT = (0, 1, 2, 30, 1000)


def geometric(n, discount):
    """Exact probabilities of the offsets 0 … n; those from 1 on are in proportion to the power."""
    weights = np.where(np.arange(n + 1) > 0, discount ** np.arange(n + 1.0), 0)
    return weights / weights.sum() if n else np.ones(1)


def clipped(n, discount):
    """As `geometric` without a limit, but the last row takes the whole tail."""
    mass = (1 - discount) * discount ** (np.arange(n + 1.0) - 1)
    mass[0] = 0
    mass[n] = 1 - mass[:n].sum()
    return mass


def uniform(n):
    return np.where(np.arange(n + 1) > 0, 1 / n, 0) if n else np.ones(1)


@eqx.filter_jit
def choose(hindsight, left, key):
    index = jnp.full(DRAWS, START, jnp.int32)
    return hindsight(index, index + left, key=key)


def offsets(hindsight, n, key):
    """How often each offset 0 … n is chosen, by rows that have `n` rows left."""
    goals = choose(hindsight, jnp.asarray(n, jnp.int32), key) - START
    assert goals.min() >= 0
    assert goals.max() <= n
    return np.bincount(goals, minlength=n + 1)


def fits(counts, probabilities):
    return chi_square(counts, probabilities) > 1e-4


@pytest.mark.parametrize("n", LEFT)
@pytest.mark.parametrize("discount", DISCOUNTS)
def test_geometric_laws(discount, n, getkey):
    exact, excess = geometric(n, discount), clipped(n, discount)
    assert fits(offsets(Geometric(discount), n, getkey()), exact)
    assert fits(offsets(ClippedGeometric(discount), n, getkey()), excess)
    if n == 30 and discount > 0.5:  # The two laws differ visibly: the test can tell.
        assert not fits(offsets(ClippedGeometric(discount), n, getkey()), exact)
        assert not fits(offsets(Geometric(discount - 0.02), n, getkey()), exact)


@pytest.mark.parametrize("n", LEFT)
def test_uniform_law(n, getkey):
    assert fits(offsets(Uniform(), n, getkey()), uniform(n))


def test_geometric_reaches_far_and_stays_finite(getkey):
    index = jnp.zeros(1_000_000, jnp.int32)
    goals = Geometric(0.99)(index, index + 10_000_000, key=getkey())
    assert 1000 < goals.max() < 1600
    assert abs(goals.mean() - 100) < 1


def test_current_and_final(getkey):
    assert offsets(Current(), 5, getkey())[0] == DRAWS
    assert offsets(Final(), 5, getkey())[5] == DRAWS


def test_mixture_weights(getkey):
    mixture = Mixture((Current(), Final(), Uniform()), (0.2, 0.3, 0.5))
    exact = 0.5 * uniform(10) + 0.2 * np.eye(11)[0] + 0.3 * np.eye(11)[10]
    assert fits(offsets(mixture, 10, getkey()), exact)
    assert not fits(offsets(mixture, 10, getkey()), np.roll(exact, 1))


def test_mixture_chooses_row_by_row(getkey):
    chosen = offsets(Mixture((Current(), Final()), (0.5, 0.5)), 1, getkey())
    assert fits(chosen, np.array([0.5, 0.5]))


def test_mixture_draws_its_parts_apart(getkey):
    """Two equal choices do not share noise with the choice between them."""
    mixture = Mixture((Uniform(), Uniform()), (0.3, 0.7))
    assert fits(offsets(mixture, 30, getkey()), uniform(30))


@pytest.mark.parametrize("length, n", [(6, 20), (6, 3), (2, 4)])
def test_windowed(length, n, getkey):
    """The horizon is uniform in 1 … length - 1, and the trajectory's end still holds."""
    horizons = np.minimum(np.arange(1, length), n)
    exact = np.mean([np.pad(geometric(h, 0.9), (0, n - h)) for h in horizons], axis=0)
    assert fits(offsets(Windowed(Geometric(0.9), length), n, getkey()), exact)


def test_anywhere_is_another_draw(getkey):
    """Pairs of drawn rows and goals have the law of two independent draws."""
    cells, batch = 5, 4

    def pair(key):
        dkey, gkey = jr.split(key)
        index = jr.randint(dkey, (batch,), 0, cells)
        return index, Anywhere()(index, index, key=gkey)

    index, goal = jax.jit(jax.vmap(pair))(jr.split(getkey(), 25_000))
    for row in range(batch):
        counts = np.bincount(cells * index[:, row] + goal[:, row], minlength=cells**2)
        assert fits(counts, np.full(cells**2, 1 / cells**2))


def test_anywhere_never_returns_the_row_itself(getkey):
    index = jnp.arange(7)
    goals = jax.vmap(lambda k: Anywhere()(index, index, key=k))(jr.split(getkey(), 2000))
    assert not np.any(goals == index[None])
    shifts = np.bincount((goals[:, 0] - 0) % 7, minlength=7)
    assert fits(shifts, np.r_[0, np.full(6, 1 / 6)])


STRATEGIES = (
    Geometric(),
    Geometric(0.5),
    ClippedGeometric(),
    Uniform(),
    Current(),
    Final(),
    Windowed(Uniform(), 3),
    Mixture((Geometric(), Final()), (0.5, 0.5)),
)


@given(rows=datasets(), key=keys(), hindsight=st.sampled_from(STRATEGIES))
def test_never_leaves_the_trajectory(rows, key, hindsight):
    dkey, gkey = jr.split(key)
    index = rows.draw(64, key=dkey)
    goal = rows.take(hindsight(index, rows.last(index), key=gkey))
    start = rows.take(index)
    row, trajectory = start.observation.T
    reached, other = goal.achieved.T
    assert np.array_equal(trajectory, other)
    assert np.all(reached >= row)
    # The final row of a trajectory is a successor only, and never a goal.
    assert not np.any(np.isin(reached, np.setdiff1d(np.arange(len(rows.ends)), rows.drawable)))


@pytest.mark.parametrize("discount", [0.0, 1.0, -0.1, float("nan")])
@pytest.mark.parametrize("strategy", [Geometric, ClippedGeometric])
def test_impossible_discounts_are_refused(strategy, discount):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        strategy(discount)


def test_impossible_settings_are_refused(getkey):
    with pytest.raises(ValueError, match="one weight per choice"):
        Mixture((Current(),), (0.5, 0.5))
    with pytest.raises(ValueError, match="sum to one"):
        Mixture((Current(), Final()), (0.5, 0.6))
    with pytest.raises(ValueError, match="non-negative"):
        Mixture((Current(), Final()), (-0.5, 1.5))
    with pytest.raises(ValueError, match="at least 2 rows"):
        Windowed(Uniform(), 1)
    with pytest.raises(ValueError, match="a batch of at least 2"):
        Anywhere()(jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32), key=getkey())
