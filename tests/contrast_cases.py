"""Every contrast beside its formulas in NumPy, for the tests of contrasts."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np

from objectives import (
    DPO,
    IPO,
    SPPO,
    AbstractContrast,
    Backward,
    Binary,
    FlatNCE,
    Forward,
    ForwardBackward,
    Symmetric,
)

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


# The others pair by pair, with the gradient on the diagonal and off it.


def pairs(s):
    return [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]


def np_flat(s):
    rows = [[s[i, j] - s[i, i] for j in range(len(s)) if j != i] for i in range(len(s))]
    return np.mean([np.logaddexp.reduce(row) for row in rows])


def np_flat_gradient(s):
    gradient = -np.eye(len(s)) / len(s)
    for i, j in pairs(s):
        others = [s[i, k] - s[i, j] for k in range(len(s)) if k != i]
        gradient[i, j] = np.exp(-np.logaddexp.reduce(others)) / len(s)
    return gradient


def np_forward_backward(s):
    squares = [s[i, j] ** 2 for i, j in pairs(s)]
    return np.mean(squares) / 2 - np.mean([s[i, i] for i in range(len(s))])


def np_forward_backward_gradient(s):
    gradient = -np.eye(len(s)) / len(s)
    for i, j in pairs(s):
        gradient[i, j] = s[i, j] / len(pairs(s))
    return gradient


def np_dpo(s):
    return np.mean([np_softplus(s[i, j] - s[i, i]) for i, j in pairs(s)])


def np_dpo_gradient(s):
    gradient = np.zeros_like(s)
    for i, j in pairs(s):
        push = np.exp(-np_softplus(s[i, i] - s[i, j])) / len(pairs(s))
        gradient[i, j] += push
        gradient[i, i] -= push
    return gradient


def np_ipo(s):
    return np.mean([(s[i, i] - s[i, j] - 1) ** 2 for i, j in pairs(s)])


def np_ipo_gradient(s):
    gradient = np.zeros_like(s)
    for i, j in pairs(s):
        push = 2 * (s[i, i] - s[i, j] - 1) / len(pairs(s))
        gradient[i, j] -= push
        gradient[i, i] += push
    return gradient


def np_ipo_ratio(s):
    ratio = np.zeros_like(s)
    for i in range(len(s)):
        others = [s[i, j] for j in range(len(s)) if j != i]
        ratio[i] = s[i] - (s[i, i] + np.mean(others)) / 2
    return ratio


def np_sppo(s):
    positive = np.mean([(s[i, i] - 1) ** 2 for i in range(len(s))])
    return positive + np.mean([(s[i, j] + 1) ** 2 for i, j in pairs(s)])


def np_sppo_gradient(s):
    gradient = np.diag(2 * (np.diag(s) - 1)) / len(s)
    for i, j in pairs(s):
        gradient[i, j] = 2 * (s[i, j] + 1) / len(pairs(s))
    return gradient


def np_sppo_ratio(s):
    return np.log(np.maximum(1 + s, 2**-23)) - np.log(np.maximum(1 - s, 2**-23))


def np_row_sums(s):
    return np_sums(s, 1)


@dataclasses.dataclass(frozen=True)
class Case:
    """A contrast, its formulas, the size of the smallest table and how the value grows."""

    contrast: AbstractContrast
    value: Callable[[np.ndarray], float]
    gradient: Callable[[np.ndarray], np.ndarray]
    ratio: Callable[[np.ndarray], np.ndarray]
    sums: Callable[[np.ndarray], np.ndarray] = np_row_sums
    least: int = 1
    degree: int = 1

    @property
    def sizes(self):
        return tuple(size for size in (1, 2, 5, 16) if size >= self.least)


CASES = {
    "forward": Case(Forward(), np_forward, np_forward_gradient, np_forward_ratio),
    "backward": Case(
        Backward(),
        np_backward,
        np_backward_gradient,
        np_backward_ratio,
        lambda s: np_sums(s, 0),
    ),
    "symmetric": Case(
        Symmetric(),
        lambda s: np_forward(s) + np_backward(s),
        lambda s: np_forward_gradient(s) + np_backward_gradient(s),
        lambda s: (np_forward_ratio(s) + np_backward_ratio(s)) / 2,
        lambda s: np.concatenate([np_sums(s, 1), np_sums(s, 0)]),
    ),
    "binary": Case(Binary(), np_binary, np_binary_gradient, lambda s: s),
    "flat-nce": Case(FlatNCE(), np_flat, np_flat_gradient, np_forward_ratio, least=2),
    "forward-backward": Case(
        ForwardBackward(),
        np_forward_backward,
        np_forward_backward_gradient,
        lambda s: np.log(np.maximum(s, 2.0**-126)),
        least=2,
        degree=2,
    ),
    "dpo": Case(DPO(), np_dpo, np_dpo_gradient, np_forward_ratio, least=2),
    "ipo": Case(IPO(), np_ipo, np_ipo_gradient, np_ipo_ratio, least=2, degree=2),
    "sppo": Case(SPPO(), np_sppo, np_sppo_gradient, np_sppo_ratio, least=2, degree=2),
}


@eqx.filter_jit
def value_and_gradient(contrast, logits):
    return eqx.filter_value_and_grad(lambda s: contrast(s))(logits)


@eqx.filter_jit
def sums_and_ratio(contrast, logits):
    return contrast.logsumexp(logits), contrast.log_ratio(logits)


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


def assert_close(actual, expected, logits, tolerance=1e-6, degree=1):
    """Rounding errors are a share of the largest score, or of its square."""
    scale = (1 + np.max(np.abs(np.float64(logits)))) ** degree
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)
