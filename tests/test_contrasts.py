import equinox as eqx
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from contrast_cases import (
    CASES,
    assert_close,
    loss,
    sums_and_ratio,
    tables,
    value_and_gradient,
)
from hypothesis import given

from architectures import MLPNetworks, Norm, ScaledDot
from crlx import Spec
from objectives import (
    AbstractSignedContrast,
    Backward,
    Binary,
    Contrastive,
    Forward,
    Symmetric,
    diagnostics,
)

every_contrast = pytest.mark.parametrize("name", CASES)
SIZES = [(name, size) for name in CASES for size in CASES[name].sizes]
measure = eqx.filter_jit(diagnostics)


@every_contrast
@given(st.data())
def test_values_and_gradients_equal_double_precision(name, data):
    case = CASES[name]
    logits = data.draw(tables(case.sizes))
    value, gradient = value_and_gradient(case.contrast, jnp.asarray(logits))
    assert_close(value, case.value(np.float64(logits)), logits, degree=case.degree)
    # A rounding error in a score becomes a relative one in a probability.
    assert_close(gradient, case.gradient(np.float64(logits)), logits)


@every_contrast
@pytest.mark.parametrize("size", (2, 3, 4))
def test_gradients_are_those_of_the_values(name, size):
    """Formulas of values in NumPy, differentiated by central differences."""
    case, step = CASES[name], 1e-4
    logits = np.random.default_rng(size).normal(size=(size, size)).astype(np.float32)
    expected = np.zeros((size, size))
    for place in np.ndindex(size, size):
        move = np.zeros((size, size))
        move[place] = step
        rise = case.value(logits + move) - case.value(logits - move)
        expected[place] = rise / (2 * step)
    _, gradient = value_and_gradient(case.contrast, jnp.asarray(logits))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@every_contrast
@given(st.data())
def test_log_sums_and_log_ratios_equal_double_precision(name, data):
    case = CASES[name]
    logits = data.draw(tables(case.sizes))
    sums, ratio = sums_and_ratio(case.contrast, jnp.asarray(logits))
    assert_close(sums, case.sums(np.float64(logits)), logits)
    expected = case.ratio(np.float64(logits))
    # The logarithm of a score of zero is larger than the score.
    assert_close(ratio, expected, np.maximum(np.abs(logits), np.abs(expected)))


@every_contrast
@given(tables((5,)), st.permutations(range(5)))
def test_the_order_of_rows_does_not_matter(name, logits, order):
    contrast, degree = CASES[name].contrast, CASES[name].degree
    shuffled = loss(contrast, logits[order][:, order])
    assert_close(shuffled, loss(contrast, logits), logits, 1e-5, degree)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].least == 2])
def test_a_table_without_negatives_is_refused(name):
    with pytest.raises(ValueError, match="at least 2 rows"):
        CASES[name].contrast(jnp.zeros((1, 1)))


@every_contrast
def test_scores_that_are_never_positive_are_refused_where_they_cannot_do(name, getkey):
    contrast = CASES[name].contrast
    objective, key = Contrastive(contrast), getkey()
    signed = isinstance(contrast, AbstractSignedContrast)
    assert signed == (name in ("binary", "forward-backward", "sppo"))
    for energy in (ScaledDot(), Norm()):
        networks = MLPNetworks(depth=2, width=8, dim=4, energy=energy)
        if signed and isinstance(energy, Norm):
            with pytest.raises(ValueError, match="both signs"):
                eqx.filter_eval_shape(objective.init, networks, Spec(4, 2, 4), key=key)
        else:
            eqx.filter_eval_shape(objective.init, networks, Spec(4, 2, 4), key=key)


@given(tables())
def test_backward_is_forward_of_the_transpose(logits):
    forward, backward = loss(Forward(), logits), loss(Backward(), logits)
    assert_close(loss(Backward(), logits.T), forward, logits)
    assert_close(loss(Symmetric(), logits), forward + backward, logits)


@given(tables((5,)), hnp.arrays(np.float32, 5, elements=st.floats(-50, 50, width=32)))
def test_shifts_that_a_contrast_cannot_see(logits, shift):
    rows, columns = logits + shift[:, None], logits + shift[None]
    assert_close(loss(Forward(), rows), loss(Forward(), logits), 50, 1e-4)
    assert_close(loss(Backward(), columns), loss(Backward(), logits), 50, 1e-4)
    # The penalty is on what they shift.
    for contrast, table in ((Forward(), rows), (Backward(), columns), (Binary(), rows)):
        sums, _ = sums_and_ratio(contrast, jnp.asarray(table))
        before, _ = sums_and_ratio(contrast, jnp.asarray(logits))
        assert_close(np.float64(sums) - np.float64(before), shift, 200)


def test_shifts_that_a_contrast_sees():
    logits, shift = np.diag([1.0, 2.0, 3.0]), np.array([0.0, 3.0, -2.0])
    rows, columns = logits + shift[:, None], logits + shift
    for contrast, table in ((Forward(), columns), (Backward(), rows)):
        assert abs(loss(contrast, table) - loss(contrast, logits)) > 0.1
    for contrast in (Symmetric(), Binary()):
        for table in (rows, columns):
            assert abs(loss(contrast, table) - loss(contrast, logits)) > 0.1


@given(tables())
def test_infonce_lies_in_its_bounds(logits):
    spread = np.log(len(logits)) + np.ptp(np.float64(logits))
    for contrast, factor in ((Forward(), 1), (Backward(), 1), (Symmetric(), 2)):
        assert -1e-4 <= loss(contrast, logits) <= factor * spread + 1e-4


@pytest.mark.parametrize("size", (1, 2, 5))
@pytest.mark.parametrize("level", (0.0, -328.0, 60.0))
def test_constant_scores_tell_nothing(size, level):
    logits = np.full((size, size), level)
    for contrast, factor in ((Forward(), 1), (Backward(), 1), (Symmetric(), 2)):
        np.testing.assert_allclose(loss(contrast, logits), factor * np.log(size), atol=1e-4)
    ratio = sums_and_ratio(Symmetric(), jnp.asarray(logits, jnp.float32))[1]
    np.testing.assert_allclose(ratio, 0, atol=1e-4)


@given(tables((2, 5)))
def test_infonce_gradients_balance(logits):
    logits = jnp.asarray(logits)
    off = ~np.eye(len(logits), dtype=bool)
    for contrast, axis in ((Forward(), 1), (Backward(), 0)):
        _, gradient = value_and_gradient(contrast, logits)
        np.testing.assert_allclose(np.sum(gradient, axis), 0, atol=1e-6)
        assert np.all(np.diagonal(gradient) <= 1e-7)
        assert np.all(gradient[off] >= 0)


@given(hnp.arrays(np.float32, (5, 5), elements=st.floats(-10, 10, width=32)))
def test_binary_has_labels(logits):
    _, gradient = value_and_gradient(Binary(), jnp.asarray(logits))
    own = np.eye(5, dtype=bool)
    assert np.all(gradient[own] < 0)
    assert np.all(gradient[~own] > 0)


@every_contrast
@given(hnp.arrays(np.float32, (5, 5), elements=st.floats(-1e4, 0)))
def test_results_are_right_at_far_scores(name, logits):
    case = CASES[name]
    contrast, double = case.contrast, np.float64(logits)
    logits = jnp.asarray(logits)
    value, gradient = value_and_gradient(contrast, logits)
    assert_close(value, case.value(double), double, degree=case.degree)
    assert_close(gradient, case.gradient(double), double)
    results = value, gradient, *sums_and_ratio(contrast, logits)
    for result in (*results, *measure(contrast, logits).values()):
        assert np.all(np.isfinite(result))


@given(tables((2, 5)))
def test_log_ratios_are_normalized(logits):
    """`p(g | s, a) / p(g)` averages to one over the goals of the batch, `p(g)`."""
    for contrast, axis in ((Forward(), 1), (Backward(), 0)):
        _, ratio = sums_and_ratio(contrast, jnp.asarray(logits))
        np.testing.assert_allclose(np.mean(np.exp(np.float64(ratio)), axis), 1, rtol=1e-4)


def loop_diagnostics(logits, sums, ratio):
    size = len(logits)
    rows, positives, negatives, told, spread = [], [], [], [], []
    for i in range(size):
        rows.append(all(logits[i, j] <= logits[i, i] for j in range(size)))
        mean = sum(logits[i]) / size
        spread.append(np.sqrt(sum((x - mean) ** 2 for x in logits[i]) / size))
        for j in range(size):
            (positives if i == j else negatives).append(logits[i, j])
            told.append((ratio[i, j] > 0) == (i == j))
    return {
        "categorical_accuracy": np.mean(rows),
        "binary_accuracy": np.mean(told),
        "logits_positive": np.mean(positives),
        "logits_negative": np.mean(negatives) if negatives else 0.0,
        "logits_spread": np.mean(spread),
        "logsumexp": np.mean(sums),
    }


@pytest.mark.parametrize("name, size", SIZES)
@pytest.mark.parametrize("seed", range(4))
def test_diagnostics_equal_loops(name, size, seed):
    case = CASES[name]
    rng = np.random.default_rng(seed)
    logits = (3 * np.eye(size) + 2 * rng.normal(size=(size, size))).astype(np.float32)
    double = np.float64(logits)
    expected = loop_diagnostics(double, case.sums(double), case.ratio(double))
    actual = measure(case.contrast, jnp.asarray(logits))
    if size == 1:  # The ratio of a lone pair is zero up to rounding, and its sign is chance.
        actual["binary_accuracy"] = expected["binary_accuracy"]
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=1e-5, atol=1e-5, err_msg=key)


@every_contrast
def test_perfect_scores(name):
    result = measure(CASES[name].contrast, 10 * jnp.eye(5) - 5)
    assert result["categorical_accuracy"] == result["binary_accuracy"] == 1
    assert (result["logits_positive"], result["logits_negative"]) == (5, -5)
    # Scores that are never positive are told apart as well, but not by their own sign.
    signed = isinstance(CASES[name].contrast, AbstractSignedContrast)
    accuracy = measure(CASES[name].contrast, 10 * jnp.eye(5) - 30)["binary_accuracy"]
    np.testing.assert_allclose(accuracy, 0.8 if signed else 1, rtol=1e-6)
    shifted = measure(CASES[name].contrast, jnp.roll(10 * jnp.eye(5), 1, axis=1))
    assert shifted["categorical_accuracy"] == 0


@every_contrast
@given(tables((2, 5)))
def test_accuracies_are_shares(name, logits):
    result = measure(CASES[name].contrast, jnp.asarray(logits))
    for key in ("categorical_accuracy", "binary_accuracy"):
        assert 0 <= result[key] <= 1
