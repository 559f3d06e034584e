"""The survival objective's loss, metrics and gradients against formulas in float64, and the laws of
its chances."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from affine import (
    ROWS,
    SPEC,
    check,
    mixed,
    np_awr,
    np_ddpgbc,
    np_joint,
    np_mean,
    numbers,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crlx.testing import keys, numbered_rows
from objectives import AWR, DDPGBC, Survival, SurvivalBatch

SPANS, DISCOUNT = (1, 2, 4, 8), 0.9
AHEAD = jnp.array([1, 2, 3, 4, 7, 8, 30, 1, 5, 0, 2, 9], jnp.int32)
LEFT = jnp.array([0, 1, 2, 3, 4, 6, 7, 8, 50, 3, 1, 2], jnp.int32)


def hazards(logits):
    return 1 / (1 + np.exp(-np.float64(logits)))


def np_reached(logits, steps):
    """Step by step of spans: not in those before, and then in this."""
    if steps < 1:
        return 0.0
    span = max(b for b, first in enumerate(SPANS) if first <= steps)
    chance = hazards(logits)
    return -np.log(chance[span]) - np.sum(np.log(1 - chance[:span]))


def np_censored(logits, steps):
    """Not in any span whose last step was lived through; the last span has none."""
    over = [b for b in range(len(SPANS) - 1) if SPANS[b + 1] - 1 <= steps]
    return -np.sum(np.log(1 - hazards(logits)[over]))


def np_score(logits):
    chance = hazards(logits)
    before = np.concatenate([[1.0], np.cumprod(1 - chance)[:-1]])
    return np.log(np.sum(DISCOUNT ** np.array(SPANS) * chance * before))


def make_batch():
    s, a, goal, missed, actor_goal = numbers(1, 3, 2, 2, 2, 2)
    return SurvivalBatch(s, jnp.tanh(a), goal, AHEAD, missed, LEFT, actor_goal)


@pytest.mark.parametrize("term", (DDPGBC(0.4), AWR(2.0, 1.02)))
def test_survival_equals_double_precision(term):
    def reference(moving, held, state, b):
        came, missed = (
            np_joint(moving.hazards, b.observation, b.action, g) for g in (b.goal, b.missed)
        )
        reached = np.mean([np_reached(*row) for row in zip(came, b.ahead, strict=True)])
        censored = np.mean([np_censored(*row) for row in zip(missed, b.left, strict=True)])
        s, own = b.observation, b.actor_goal

        def score(action):
            return np.array([np_score(row) for row in np_joint(held.hazards, s, action, own)])

        if isinstance(term, DDPGBC):
            actor = np_ddpgbc(moving.actor, held.actor, s, own, b.action, score, 0.4)
        else:
            mode = np.clip(np_mean(held.actor, s, own), -1, 1)
            advantage = score(b.action) - score(mode)
            mixed(np.exp(2 * advantage) > 1.02)
            actor = np_awr(moving.actor, s, own, b.action, advantage, 2.0, 1.02)
        loss = (reached + censored) / 2
        metrics = {"critic/loss": loss, "critic/reached": reached, "critic/censored": censored}
        return metrics | actor

    objective = Survival(term, spans=SPANS, discount=DISCOUNT)
    check(objective, SPEC, make_batch(), ("critic/loss", "actor/loss"), reference)


tables = hnp.arrays(np.float32, 4, elements=st.floats(-8, 8, width=32))


@eqx.filter_jit
def terms(objective, logits, steps):
    vectors = jax.vmap(objective.reached, (None, 0)), jax.vmap(objective.censored, (None, 0))
    return [f(logits, steps) for f in vectors] + [objective.worth(logits)]


@given(logits=tables)
def test_losses_are_those_of_the_chances(logits):
    """For every number of steps; no goal and no time cost nothing, and more time costs more."""
    objective, steps = Survival(spans=SPANS, discount=DISCOUNT), jnp.arange(20)
    reached, censored, score = terms(objective, jnp.asarray(logits), steps)
    exact = [[f(logits, k) for k in range(20)] for f in (np_reached, np_censored)]
    np.testing.assert_allclose(reached, exact[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(censored, exact[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(score, np_score(logits), rtol=1e-4, atol=1e-5)
    assert reached[0] == censored[0] == 0
    assert np.all(np.diff(censored) >= 0)
    assert score <= np.log(DISCOUNT) + 1e-6


@given(logits=tables)
def test_chances_sum_to_one(logits):
    """The chances of each span, and of none: a goal comes in one of them, or is censored in all
    but the last, and then does not come in the last."""
    objective = Survival(spans=SPANS, discount=DISCOUNT)
    reached, censored, _ = terms(objective, jnp.asarray(logits), jnp.asarray(SPANS))
    never = np.exp(-np_censored(logits, 1000)) * (1 - hazards(logits)[-1])
    np.testing.assert_allclose(np.exp(-np.float64(reached)).sum() + never, 1, rtol=1e-4)
    np.testing.assert_allclose(censored[-1], np_censored(logits, 8), rtol=1e-4, atol=1e-5)


def test_a_certain_goal_scores_its_discount():
    """If a span's hazard is one and those before are zero, the score is that of its first step."""
    objective = Survival(spans=SPANS, discount=DISCOUNT)
    for span, first in enumerate(SPANS):
        logits = jnp.where(jnp.arange(4) < span, -30.0, 30.0)
        np.testing.assert_allclose(objective.worth(logits), first * np.log(DISCOUNT), rtol=1e-5)


def test_extreme_logits_stay_finite():
    objective = Survival(spans=SPANS, discount=DISCOUNT)
    for value in (-1e4, 1e4):
        logits = jnp.full(4, value)
        found, slopes = jax.value_and_grad(
            lambda x: sum(terms(objective, x, jnp.array([5]))[i].sum() for i in range(3))
        )(logits)
        assert np.isfinite(found)
        assert np.all(np.isfinite(slopes))


@eqx.filter_jit
def relabelled(objective, rows, key):
    dkey, rkey = jr.split(key)
    index = rows.draw(ROWS, key=dkey)
    return index, rows.last(index), objective.relabel(rows, index, key=rkey)


@given(key=keys(), lengths=st.tuples(st.integers(2, 18), st.integers(2, 18)))
def test_times_are_those_of_the_rows(key, lengths):
    """Goals that come lie `ahead` rows on in the trajectory, which ends `left` rows on."""
    rows = numbered_rows([*lengths, 40 - sum(lengths)])
    index, last, batch = relabelled(Survival(), rows, key)
    trajectory = np.asarray(rows.steps.observation)[np.asarray(index), 1]
    goal = np.stack([np.asarray(index + batch.ahead), trajectory], axis=1)
    np.testing.assert_array_equal(batch.goal, goal)
    np.testing.assert_array_equal(batch.left, last - index)
    assert np.all((batch.ahead > 0) == (index < last))
    assert np.all(np.isin(batch.missed[:, 0], index))
    assert np.all(np.asarray(batch.actor_goal)[:, 1] == trajectory)


@pytest.mark.parametrize("spans", ((), (2, 4), (1, 4, 3), (1, 1, 2), (0, 1)))
def test_impossible_spans_are_refused(spans):
    with pytest.raises(ValueError, match="ascend from 1"):
        Survival(spans=spans)
