import equinox as eqx
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from objectives import Backward, Binary, Forward, Symmetric, diagnostics

# Formulas in NumPy and float64. The positives of a table are on its diagonal.


def np_sums(s, axis):
    top = s.max(axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(s - top).sum(axis))


def np_softmax(s, axis):
    return np.exp(s - np.expand_dims(np_sums(s, axis), axis))


def np_softplus(s):
    return np.maximum(s, 0) + np.log1p(np.exp(-np.abs(s)))


def np_forward(s):
    return np.mean([np_sums(s, 1)[i] - s[i, i] for i in range(len(s))])


def np_backward(s):
    return np.mean([np_sums(s, 0)[j] - s[j, j] for j in range(len(s))])


def np_binary(s):
    """Cross-entropy of every pair with its label."""
    label = np.eye(len(s))
    return np.mean(label * np_softplus(-s) + (1 - label) * np_softplus(s))


def np_forward_gradient(s):
    return (np_softmax(s, 1) - np.eye(len(s))) / len(s)


def np_backward_gradient(s):
    return (np_softmax(s, 0) - np.eye(len(s))) / len(s)


def np_binary_gradient(s):
    return (np.exp(-np_softplus(-s)) - np.eye(len(s))) / len(s) ** 2


def np_forward_ratio(s):
    return s - np_sums(s, 1)[:, None] + np.log(len(s))


def np_backward_ratio(s):
    return s - np_sums(s, 0)[None] + np.log(len(s))


# Contrast: value, gradient, log-sums, log-ratio.
CASES = {
    "forward": (
        Forward(),
        np_forward,
        np_forward_gradient,
        lambda s: np_sums(s, 1),
        np_forward_ratio,
    ),
    "backward": (
        Backward(),
        np_backward,
        np_backward_gradient,
        lambda s: np_sums(s, 0),
        np_backward_ratio,
    ),
    "symmetric": (
        Symmetric(),
        lambda s: np_forward(s) + np_backward(s),
        lambda s: np_forward_gradient(s) + np_backward_gradient(s),
        lambda s: np.concatenate([np_sums(s, 1), np_sums(s, 0)]),
        lambda s: (np_forward_ratio(s) + np_backward_ratio(s)) / 2,
    ),
    "binary": (
        Binary(),
        np_binary,
        np_binary_gradient,
        lambda s: np_sums(s, 1),
        lambda s: s,
    ),
}
every_contrast = pytest.mark.parametrize("name", CASES)


@eqx.filter_jit
def value_and_gradient(contrast, logits):
    return eqx.filter_value_and_grad(lambda s: contrast(s))(logits)


@eqx.filter_jit
def sums_and_ratio(contrast, logits):
    return contrast.logsumexp(logits), contrast.log_ratio(logits)


measure = eqx.filter_jit(diagnostics)


def loss(contrast, logits):
    return float(value_and_gradient(contrast, jnp.asarray(logits, jnp.float32))[0])


# Sizes come from a pool, since each is compiled.
numbers = st.floats(2**-10, 128, width=32)
numbers = st.just(0.0) | numbers | numbers.map(lambda x: -x)


@st.composite
def tables(draw, sizes=(1, 2, 5)):
    size = draw(st.sampled_from(sizes))
    table = draw(hnp.arrays(np.float32, (size, size), elements=numbers))
    if draw(st.booleans()):  # Ties.
        table[0] = table[-1]
    return table


def assert_close(actual, expected, logits, tolerance=1e-6):
    """Rounding errors are a share of the largest score."""
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * (1 + np.max(np.abs(logits)))
    )


@every_contrast
@given(tables())
def test_values_and_gradients_equal_double_precision(name, logits):
    contrast, np_value, np_gradient, *_ = CASES[name]
    value, gradient = value_and_gradient(contrast, jnp.asarray(logits))
    assert_close(value, np_value(np.float64(logits)), logits)
    # A rounding error in a score becomes a relative one in a probability.
    assert_close(gradient, np_gradient(np.float64(logits)), logits)


@every_contrast
@given(tables())
def test_log_sums_and_log_ratios_equal_double_precision(name, logits):
    contrast, *_, np_log_sums, np_ratio = CASES[name]
    sums, ratio = sums_and_ratio(contrast, jnp.asarray(logits))
    assert_close(sums, np_log_sums(np.float64(logits)), logits)
    assert_close(ratio, np_ratio(np.float64(logits)), logits)


@every_contrast
@given(tables((5,)), st.permutations(range(5)))
def test_the_order_of_rows_does_not_matter(name, logits, order):
    contrast = CASES[name][0]
    assert_close(loss(contrast, logits[order][:, order]), loss(contrast, logits), logits, 1e-5)


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
def test_results_are_finite_at_far_scores(name, logits):
    contrast = CASES[name][0]
    logits = jnp.asarray(logits)
    results = *value_and_gradient(contrast, logits), *sums_and_ratio(contrast, logits)
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


@every_contrast
@pytest.mark.parametrize("size", (1, 2, 5))
@pytest.mark.parametrize("seed", range(4))
def test_diagnostics_equal_loops(name, size, seed):
    contrast, *_, np_log_sums, np_ratio = CASES[name]
    rng = np.random.default_rng(seed)
    logits = (3 * np.eye(size) + 2 * rng.normal(size=(size, size))).astype(np.float32)
    double = np.float64(logits)
    expected = loop_diagnostics(double, np_log_sums(double), np_ratio(double))
    actual = measure(contrast, jnp.asarray(logits))
    if size == 1:  # The ratio of a lone pair is zero up to rounding, and its sign is chance.
        actual["binary_accuracy"] = expected["binary_accuracy"]
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=1e-5, atol=1e-5, err_msg=key)


@every_contrast
def test_perfect_scores(name):
    result = measure(CASES[name][0], 10 * jnp.eye(5) - 5)
    assert result["categorical_accuracy"] == result["binary_accuracy"] == 1
    assert (result["logits_positive"], result["logits_negative"]) == (5, -5)
    # Scores that are never positive are told apart as well, but not by their own sign.
    accuracy = measure(CASES[name][0], 10 * jnp.eye(5) - 30)["binary_accuracy"]
    np.testing.assert_allclose(accuracy, 0.8 if name == "binary" else 1, rtol=1e-6)
    shifted = measure(CASES[name][0], jnp.roll(10 * jnp.eye(5), 1, axis=1))
    assert shifted["categorical_accuracy"] == 0


@every_contrast
@given(tables())
def test_accuracies_are_shares(name, logits):
    result = measure(CASES[name][0], jnp.asarray(logits))
    for key in ("categorical_accuracy", "binary_accuracy"):
        assert 0 <= result[key] <= 1
