import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from contrast_cases import assert_close, loss, sums_and_ratio, tables, value_and_gradient
from hypothesis import given

from objectives import ForwardBackward


@pytest.mark.parametrize("size", (2, 5, 16))
@pytest.mark.parametrize("level", (0.0, 1.0, -3.0))
def test_constant_scores(size, level):
    """Of which the best is one, the ratio of goals that do not depend on states and actions."""
    value = loss(ForwardBackward(), np.full((size, size), level))
    np.testing.assert_allclose(value, level**2 / 2 - level, rtol=1e-6, atol=1e-6)


@given(tables((2, 5)))
def test_it_lies_above_its_bound(logits):
    assert loss(ForwardBackward(), logits) >= -np.max(np.diag(logits)) - 1e-4


@given(tables((2, 5)))
def test_positives_rise_alike_and_negatives_shrink(logits):
    _, gradient = value_and_gradient(ForwardBackward(), jnp.asarray(logits))
    own = np.eye(len(logits), dtype=bool)
    np.testing.assert_allclose(np.asarray(gradient)[own], -1 / len(logits), rtol=1e-6)
    assert np.all(np.sign(gradient)[~own] == np.sign(logits)[~own])


@given(tables((2, 5)))
def test_the_transpose_has_the_same_loss(logits):
    expected = loss(ForwardBackward(), logits)
    assert_close(loss(ForwardBackward(), logits.T), expected, logits, degree=2)


def test_shifts_are_seen():
    logits, shift = np.diag([1.0, 2.0, 3.0]), np.array([0.0, 3.0, -2.0])
    for table in (logits + shift, logits + shift[:, None]):
        assert abs(loss(ForwardBackward(), table) - loss(ForwardBackward(), logits)) > 0.1


@given(hnp.arrays(np.float32, (5, 5), elements=st.floats(-20, 20, width=32)))
def test_scores_are_ratios(log_ratio):
    _, ratio = sums_and_ratio(ForwardBackward(), jnp.exp(log_ratio))
    np.testing.assert_allclose(ratio, log_ratio, rtol=1e-5, atol=1e-5)


def test_scores_that_are_no_ratios_are_told_as_negatives():
    _, ratio = sums_and_ratio(ForwardBackward(), jnp.asarray([[0.0, -1e4], [1.0, 1e-38]]))
    assert np.all(np.isfinite(ratio))
    assert ratio[1, 0] == 0
    assert np.all(ratio[[0, 0, 1], [0, 1, 1]] < -80)
