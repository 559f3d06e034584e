import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contrast_cases import assert_close, loss, sums_and_ratio, tables, value_and_gradient
from hypothesis import given

from objectives import FlatNCE, Forward


def published(logits, with_positive=False):
    """The formula of the paper, or with the positive in the sum, as in JaxGCRL."""
    size = len(logits)
    gaps = logits - jnp.diagonal(logits)[:, None]
    kept = [[j for j in range(size) if with_positive or j != i] for i in range(size)]
    sums = [jax.nn.logsumexp(gaps[i][jnp.asarray(kept[i])]) for i in range(size)]
    return jnp.mean(jnp.stack([jnp.exp(c - jax.lax.stop_gradient(c)) for c in sums]))


@given(tables((2, 5)))
def test_the_gradient_is_the_published_one(logits):
    logits = jnp.asarray(logits)
    value, expected = value_and_gradient(published, logits)
    _, gradient = value_and_gradient(FlatNCE(), logits)
    np.testing.assert_allclose(value, 1, rtol=1e-6)
    # Near -128, a score is rounded by 1e-5, which is the relative error of a probability.
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def with_positive(logits):
    return published(logits, with_positive=True)


@given(tables((2, 5)))
def test_with_the_positive_in_the_sum_it_would_be_infonce(logits):
    logits = jnp.asarray(logits)
    value, gradient = value_and_gradient(with_positive, logits)
    _, infonce = value_and_gradient(Forward(), logits)
    np.testing.assert_allclose(value, 1, rtol=1e-6)
    np.testing.assert_allclose(gradient, infonce, rtol=1e-4, atol=1e-6)


def test_without_the_positive_the_gradient_does_not_vanish():
    logits = 20 * jnp.eye(5)
    _, infonce = value_and_gradient(Forward(), logits)
    _, gradient = value_and_gradient(FlatNCE(), logits)
    np.testing.assert_allclose(infonce, 0, atol=1e-7)
    np.testing.assert_allclose(gradient, (1 - 5 * np.eye(5)) / 20, rtol=1e-5)


@given(tables((5,)))
def test_infonce_is_a_function_of_each_row(logits):
    """`log(1 + exp(c))` of each row, hence the larger of the two."""
    rows = []
    for i in range(5):
        others = np.delete(np.float64(logits[i]), i)
        rows.append(np.logaddexp.reduce(others - logits[i, i]))
    assert_close(loss(FlatNCE(), logits), np.mean(rows), logits)
    assert_close(loss(Forward(), logits), np.mean(np.logaddexp(0, rows)), logits)


@given(tables((2, 5)))
def test_it_lies_in_its_bounds(logits):
    value, spread = loss(FlatNCE(), logits), np.ptp(np.float64(logits))
    assert abs(value - np.log(len(logits) - 1)) <= spread + 1e-4


@pytest.mark.parametrize("size", (2, 5))
@pytest.mark.parametrize("level", (0.0, -328.0, 60.0))
def test_constant_scores_tell_nothing(size, level):
    logits = np.full((size, size), level)
    np.testing.assert_allclose(loss(FlatNCE(), logits), np.log(size - 1), atol=1e-4)


@given(tables((2, 5)))
def test_gradients_balance(logits):
    _, gradient = value_and_gradient(FlatNCE(), jnp.asarray(logits))
    np.testing.assert_allclose(np.sum(gradient, 1), 0, atol=1e-6)
    np.testing.assert_allclose(np.diagonal(gradient), -1 / len(logits), rtol=1e-6)
    assert np.all(np.asarray(gradient)[~np.eye(len(logits), dtype=bool)] >= 0)


@given(tables((2,)))
def test_it_is_linear_in_a_single_negative(logits):
    value, gradient = value_and_gradient(FlatNCE(), jnp.asarray(logits))
    gaps = np.float64(logits[0, 1]) - logits[0, 0], np.float64(logits[1, 0]) - logits[1, 1]
    assert_close(value, np.mean(gaps), logits)
    np.testing.assert_allclose(gradient, [[-0.5, 0.5], [0.5, -0.5]], rtol=1e-6)


@given(tables((5,)), hnp.arrays(np.float32, 5, elements=st.floats(-50, 50, width=32)))
def test_a_shift_of_a_row_is_seen_by_the_penalty_alone(logits, shift):
    rows = logits + shift[:, None]
    assert_close(loss(FlatNCE(), rows), loss(FlatNCE(), logits), 50, 1e-4)
    sums, ratio = sums_and_ratio(FlatNCE(), jnp.asarray(rows))
    before, same = sums_and_ratio(FlatNCE(), jnp.asarray(logits))
    assert_close(np.float64(sums) - np.float64(before), shift, 200)
    assert_close(ratio, same, 200)


def test_a_shift_of_a_column_is_seen():
    logits, shift = np.diag([1.0, 2.0, 3.0]), np.array([0.0, 3.0, -2.0])
    assert abs(loss(FlatNCE(), logits + shift) - loss(FlatNCE(), logits)) > 0.1
