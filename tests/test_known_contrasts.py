"""What contrasts other than InfoNCE and `Binary` learn on the chain of `test_known_answers`."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_known_answers as chain

from crlx import Geometric
from objectives import DPO, IPO, SPPO, Contrastive, FlatNCE, ForwardBackward

data, rows, law = chain.data, chain.rows, chain.law
CLOSE = chain.CLOSE


def learnt(contrast, rows, key, penalty=0.0):
    goals = Geometric(chain.DISCOUNT)
    objective = Contrastive(contrast, goals=goals, logsumexp_penalty=penalty)
    return chain.learnt(objective, rows, key)


def goals_given(law):
    """The chances of goals: given each state and action, and at large."""
    return law / law.sum(axis=2, keepdims=True), law.sum(axis=(0, 1))


def flat_optimum(given, goals, negatives):
    """Scores with the smallest expected `FlatNCE`, exactly, over all draws of negatives."""
    counts = [
        np.diff([-1, *bars, negatives + len(goals) - 1]) - 1
        for bars in itertools.combinations(range(negatives + len(goals) - 1), len(goals) - 1)
    ]
    counts = np.asarray(counts, float)
    logs = [math.lgamma(negatives + 1) - sum(math.lgamma(n + 1) for n in row) for row in counts]
    chance = np.exp(logs + counts @ np.log(goals))
    np.testing.assert_allclose(chance.sum(), 1, rtol=1e-9)
    score = np.log(given / goals)
    for _ in range(50):  # At the optimum, goals are as likely as their shares of the sum.
        parts = counts * np.exp(score)
        share = chance @ (parts / parts.sum(axis=1, keepdims=True))
        score = score + np.log(given / share)
    np.testing.assert_allclose(share, given, rtol=1e-9)
    return score - np.log(goals @ np.exp(score))


def ipo_scale(law):
    given, goals = goals_given(law)
    return 2 / (2 + np.sum((given - goals) ** 2 / (given + goals), axis=2, keepdims=True))


@eqx.filter_jit
def expected_gradient(contrast, score, law, batch):
    """Of the loss of tabular scores, averaged over all minibatches by their chances."""
    rows = np.asarray(list(itertools.product(range(law.size), repeat=batch)))
    chance = jnp.asarray(np.prod(law.ravel()[rows], axis=1), jnp.float32)
    pair, goal = np.divmod(rows, chain.STATES)

    def expected(score):
        flat = score.reshape(-1, chain.STATES)
        return chance @ jax.vmap(contrast)(flat[pair[:, :, None], goal[:, None, :]])

    return jax.grad(expected)(jnp.asarray(score, jnp.float32))


@pytest.mark.parametrize("batch", (2, 3))
def test_optima_do_not_depend_on_the_batch(batch, law):
    """The losses are convex in the scores: no gradient means the optimum."""
    log_ratio = chain.log_ratio(law)
    bounded = np.tanh(log_ratio / 2)
    optima = {
        ForwardBackward(): np.exp(log_ratio),
        DPO(): log_ratio,
        IPO(): ipo_scale(law) * bounded,
        SPPO(): bounded,
    }
    offset = np.random.default_rng(0).normal(size=(chain.STATES, chain.ACTIONS, 1))
    for contrast, score in optima.items():
        gradient = expected_gradient(contrast, score, law, batch)
        np.testing.assert_allclose(gradient, 0, atol=1e-7)
        shifted = expected_gradient(contrast, score + offset, law, batch)
        free = isinstance(contrast, (DPO, IPO))
        assert (np.max(np.abs(shifted)) < 1e-7) == free
        # Other scales of the same order are told from the optimum.
        scaled = expected_gradient(contrast, 1.05 * score, law, batch)
        assert np.max(np.abs(scaled)) > 1e-4


def test_flat_nce(rows, law, getkey):
    """The optimum is the log-ratio plus an offset of state and action, which the penalty fixes."""
    score = learnt(FlatNCE(), rows, getkey(), penalty=0.1)
    offset = np.log(np.exp(score) @ law.sum(axis=(0, 1)))
    np.testing.assert_allclose(score - offset[..., None], chain.log_ratio(law), atol=CLOSE)
    np.testing.assert_allclose(offset, -np.log(chain.BATCH), atol=0.04)


def test_without_the_penalty_the_offset_is_free(rows, law, getkey):
    score = learnt(FlatNCE(), rows, getkey())
    offset = np.log(np.exp(score) @ law.sum(axis=(0, 1)))
    np.testing.assert_allclose(score - offset[..., None], chain.log_ratio(law), atol=CLOSE)
    assert np.std(offset) > 2 * CLOSE


@pytest.mark.parametrize("batch", (16, 32))
def test_what_small_batches_add_to_flat_nce(batch, law):
    given, goals = goals_given(law)
    for state, action in np.ndindex(given.shape[:2]):
        ratio = given[state, action] / goals
        exact = flat_optimum(given[state, action], goals, batch - 1)
        excess = exact - np.log(ratio)
        expected = (ratio - 1) / (batch - 1)
        gap = (excess - expected) - goals @ (excess - expected)
        assert np.max(np.abs(gap)) < 4 / batch * np.ptp(expected)  # Of the second order.


def test_forward_backward(rows, law, getkey):
    """The optimum is the ratio itself, with nothing left free."""
    score = learnt(ForwardBackward(), rows, getkey())
    np.testing.assert_allclose(score, np.exp(chain.log_ratio(law)), rtol=CLOSE)


def test_dpo(rows, law, getkey):
    """The optimum is the log-ratio plus an offset of state and action, which is free."""
    score = learnt(DPO(), rows, getkey())
    offset = np.log(np.exp(score) @ law.sum(axis=(0, 1)))
    np.testing.assert_allclose(score - offset[..., None], chain.log_ratio(law), atol=CLOSE)
    assert np.std(offset) > 2 * CLOSE


def test_ipo(rows, law, getkey):
    """The optimum is bounded, on a scale of state and action, plus an offset, which is free."""
    score = learnt(IPO(), rows, getkey())
    given, goals = goals_given(law)
    offset = (np.sum(given * score, axis=2) + score @ goals) / 2
    expected = ipo_scale(law) * np.tanh(chain.log_ratio(law) / 2)
    np.testing.assert_allclose(score - offset[..., None], expected, atol=CLOSE / 2)
    assert np.std(offset) > 2 * CLOSE


def test_sppo(rows, law, getkey):
    """The optimum is bounded, with nothing left free."""
    score = learnt(SPPO(), rows, getkey())
    np.testing.assert_allclose(score, np.tanh(chain.log_ratio(law) / 2), atol=CLOSE / 2)
