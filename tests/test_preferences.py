import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from contrast_cases import CASES, assert_close, loss, sums_and_ratio, tables, value_and_gradient
from hypothesis import given

from objectives import DPO, IPO, SPPO

shift_blind = pytest.mark.parametrize("name", ("dpo", "ipo"))


def every_pair(name, s):
    """The means over all pairs, with those on the diagonal, as in JaxGCRL."""
    total = 0.0
    for i in range(len(s)):
        for j in range(len(s)):
            gap, own = s[i, i] - s[i, j], i == j
            if name == "dpo":
                total += np.logaddexp(0, -gap)
            elif name == "ipo":
                total += (gap - 1) ** 2
            else:
                total += (len(s) if own else 1) * (s[i, j] - (1 if own else -1)) ** 2
    return total / len(s) ** 2


@pytest.mark.parametrize("name, constant", (("dpo", np.log(2)), ("ipo", 1)))
@given(tables((2, 5)))
def test_pairs_on_the_diagonal_would_add_a_constant(name, constant, logits):
    size, value = len(logits), loss(CASES[name].contrast, logits)
    expected = every_pair(name, np.float64(logits))
    actual = ((size - 1) * value + constant) / size
    assert_close(actual, expected, logits, degree=CASES[name].degree)


@given(tables((2, 5)))
def test_sppo_weighs_negatives_like_positives(logits):
    size, double = len(logits), np.float64(logits)
    positive = np.mean((np.diag(double) - 1) ** 2)
    negative = loss(SPPO(), logits) - positive
    expected = every_pair("sppo", double)
    assert_close(positive + (size - 1) / size * negative, expected, logits, degree=2)


@pytest.mark.parametrize("size", (2, 5, 16))
@pytest.mark.parametrize("level", (0.0, -328.0, 60.0))
def test_constant_scores_tell_nothing(size, level):
    logits = np.full((size, size), level)
    np.testing.assert_allclose(loss(DPO(), logits), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(loss(IPO(), logits), 1, rtol=1e-6)
    np.testing.assert_allclose(loss(SPPO(), logits), 2 * level**2 + 2, rtol=1e-6)


@given(tables((2, 5)))
def test_losses_are_never_negative(logits):
    for contrast in (DPO(), IPO(), SPPO()):
        assert loss(contrast, logits) >= 0


@pytest.mark.parametrize("size", (2, 5))
def test_perfect_tables_have_no_gradient(size):
    own = np.eye(size)
    rows = np.arange(size, dtype=float)[:, None]
    for contrast, logits in ((IPO(), own + rows), (SPPO(), 2 * own - 1), (DPO(), 200 * own)):
        value, gradient = value_and_gradient(contrast, jnp.asarray(logits, jnp.float32))
        np.testing.assert_allclose(value, 0, atol=1e-6)
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


@shift_blind
@given(tables((2, 5)))
def test_gradients_of_preferences_balance(name, logits):
    """A score on the diagonal moves only as the positive of its row."""
    _, gradient = value_and_gradient(CASES[name].contrast, jnp.asarray(logits))
    assert_close(np.sum(np.float64(gradient), 1), 0, logits)


@given(hnp.arrays(np.float32, (5, 5), elements=st.floats(-10, 10, width=32)))
def test_dpo_raises_positives_above_negatives(logits):
    _, gradient = value_and_gradient(DPO(), jnp.asarray(logits))
    own = np.eye(5, dtype=bool)
    assert np.all(np.asarray(gradient)[own] < 0)
    assert np.all(np.asarray(gradient)[~own] > 0)


@given(tables((2, 5)))
def test_ipo_and_sppo_have_targets(logits):
    _, ipo = value_and_gradient(IPO(), jnp.asarray(logits))
    _, sppo = value_and_gradient(SPPO(), jnp.asarray(logits))
    own, double = np.eye(len(logits), dtype=bool), np.float64(logits)
    gaps = np.diag(double)[:, None] - double
    assert np.all(np.sign(ipo)[~own] == np.sign(1 - gaps)[~own])
    assert np.all(np.sign(sppo) == np.sign(double - np.where(own, 1, -1)))


@shift_blind
@given(tables((5,)), hnp.arrays(np.float32, 5, elements=st.floats(-50, 50, width=32)))
def test_a_shift_of_a_row_is_seen_by_the_penalty_alone(name, logits, shift):
    contrast, rows = CASES[name].contrast, logits + shift[:, None]
    assert_close(loss(contrast, rows), loss(contrast, logits), 200, degree=CASES[name].degree)
    sums, ratio = sums_and_ratio(contrast, jnp.asarray(rows))
    before, same = sums_and_ratio(contrast, jnp.asarray(logits))
    assert_close(np.float64(sums) - np.float64(before), shift, 200)
    assert_close(ratio, same, 200)


def test_shifts_that_are_seen():
    logits, shift = np.diag([1.0, 2.0, 3.0]), np.array([0.0, 3.0, -2.0])
    rows, columns = logits + shift[:, None], logits + shift
    tables = ((DPO(), columns), (IPO(), columns), (SPPO(), columns), (SPPO(), rows))
    for contrast, table in tables:
        assert abs(loss(contrast, table) - loss(contrast, logits)) > 0.1


@given(hnp.arrays(np.float32, (5, 5), elements=st.floats(-5, 5, width=32)))
def test_scores_of_sppo_are_ratios(log_ratio):
    _, ratio = sums_and_ratio(SPPO(), jnp.tanh(log_ratio / 2))
    # Where the hyperbolic tangent is flat, rounding it matters more.
    np.testing.assert_allclose(ratio, log_ratio, rtol=1e-5, atol=2e-5)


def test_scores_of_sppo_beyond_its_targets_have_a_ratio():
    far = jnp.asarray([[1.0, 1e4], [-1.0, -1e4]])
    _, ratio = sums_and_ratio(SPPO(), far)
    assert np.all(np.isfinite(ratio))
    assert 15 < ratio[0, 0] < ratio[0, 1]
    np.testing.assert_array_equal(ratio[1], -ratio[0])
