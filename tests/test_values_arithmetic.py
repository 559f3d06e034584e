"""Losses, metrics and gradients of values learnt from data, against formulas in float64."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from affine import (
    ROWS,
    SPEC,
    Lines,
    check,
    doubled,
    mixed,
    np_awr,
    np_ddpgbc,
    np_implicit,
    np_log_prob,
    np_mean,
    np_saturated,
    np_values,
    numbers,
    transitions,
)

from crlx import Spec
from crlx.testing import numbered_rows
from objectives import (
    AWR,
    BC,
    DDPGBC,
    GCIQL,
    GCIVL,
    GCSL,
    ActorBatch,
    GCSLBatch,
    expectile_loss,
)


def states(ensemble, s, g):
    return np_values(ensemble, s, s[:, :0], g)


@pytest.mark.parametrize("expectile", (0.9, 0.3))
def test_gcivl_equals_double_precision(expectile):
    def reference(moving, held, slow, b):
        s, following, goal, own = b.observation, b.next_observation, b.goal, b.actor_goal
        rise = states(held.value, following, own) - states(held.value, s, own)
        values = states(moving.value, s, goal), states(slow, s, goal), states(slow, following, goal)
        assert len(set(values[2].argmin(axis=1))) == 2
        return np_implicit(*values, b.reward, b.mask, 0.9, expectile) | np_awr(
            moving.actor, s, own, b.action, rise.mean(axis=1), 2.0, 3.0
        )

    objective = GCIVL(AWR(2.0, 3.0), discount=0.9, expectile=expectile)
    check(objective, SPEC, transitions(), ("value/loss", "actor/loss"), reference)


def np_gciql(moving, held, slow, b, discount, expectile):
    """The two values' losses and metrics."""
    s, following, goal = b.observation, b.next_observation, b.goal
    target = np_values(slow, s, b.action, goal)
    assert len(set(target.argmin(axis=1))) == 2
    value = states(moving.value, s, goal)[:, 0]
    error = target.min(axis=1) - value
    weight = np.abs(expectile - mixed(error < 0))
    wanted = b.reward + discount * b.mask * states(held.value, following, goal)[:, 0]
    q = np_values(moving.critic, s, b.action, goal)
    return {
        "value/loss": np.mean(weight * error**2),
        "value/mean": np.mean(value),
        "value/advantage": np.mean(error),
        "critic/loss": np.mean(np.sum((wanted[:, None] - q) ** 2, axis=1)),
        "critic/mean": np.mean(q),
        "critic/target": np.mean(wanted),
    }


@pytest.mark.parametrize("term", (DDPGBC(0.4), AWR(0.7, 1.0)))
def test_gciql_equals_double_precision(term):
    def reference(moving, held, slow, b):
        s, goal = b.observation, b.actor_goal

        def score(action):
            return np_values(held.critic, s, action, goal).min(axis=1)

        if isinstance(term, DDPGBC):
            mixed(np.abs(np_mean(moving.actor, s, goal)) > 1)
            actor = np_ddpgbc(moving.actor, held.actor, s, goal, b.action, score, 0.4)
        else:
            advantage = score(b.action) - states(held.value, s, goal)[:, 0]
            mixed(np.exp(0.7 * advantage) > 1)
            actor = np_awr(moving.actor, s, goal, b.action, advantage, 0.7, 1.0)
        return np_gciql(moving, held, slow, b, 0.8, 0.9) | actor

    terms = "value/loss", "critic/loss", "actor/loss"
    check(GCIQL(term, discount=0.8), SPEC, transitions(), terms, reference)


def np_cloning(actor, s, g, action, weight):
    log_prob = np_log_prob(actor, s, g, action)
    return {
        "actor/loss": -np.mean(weight * log_prob),
        "actor/log_prob": np.mean(log_prob),
        "actor/mse": np.mean((np_mean(actor, s, g) - action) ** 2),
        "actor/saturated": np_saturated(np_mean(actor, s, g)),
    }


def test_bc_equals_double_precision():
    """Its actor sees no goal, not even one of the task's size."""
    s, action = numbers(4, 3, 2)

    def reference(moving, held, state, b):
        assert moving.actor.inner.mean.weight.shape == (2, 3)
        return np_cloning(moving.actor.inner, b.observation, b.goal, b.action, 1)

    check(BC(), SPEC, ActorBatch(s, action, s[:, :0]), ("actor/loss",), reference)
    params, state = BC().init(Lines(), SPEC, key=jr.key(0))
    policy = BC().policy(params, state)
    modes = [policy(s[0], jnp.full(2, goal)).mode() for goal in (-3.0, 5.0)]
    np.testing.assert_array_equal(*modes)


def test_gcsl_equals_double_precision():
    s, action, goal = numbers(5, 3, 2, 2)
    later = jnp.asarray(np.random.default_rng(0).integers(0, 9, ROWS), jnp.float32)

    def reference(moving, held, state, b):
        mixed(b.later == 0)
        rows, weight = b.rows, b.later / b.later.mean()
        return np_cloning(moving.actor, rows.observation, rows.goal, rows.action, weight)

    batch = GCSLBatch(ActorBatch(s, action, goal), later)
    check(GCSL(), SPEC, batch, ("actor/loss",), reference)


def test_gcsl_is_the_average_over_all_pairs():
    """Of an episode of five rows and a successor: with every goal of a row in proportion to its
    chance, the loss is exactly the mean over the ten pairs of distinct times, earlier first."""
    rows, objective, copies = numbered_rows([6]), GCSL(), 12  # Which 1, 2, 3 and 4 divide.
    params, _ = objective.init(Lines(), Spec(2, 1, 2), key=jr.key(0))
    row = np.repeat(np.arange(5), copies)
    goal = np.array([i + 1 + k % (4 - i) if i < 4 else i for i in range(5) for k in range(copies)])
    index = jnp.asarray(row, jnp.int32)
    batch = eqx.filter_jit(objective.relabel)(rows, index, key=jr.key(1))
    np.testing.assert_array_equal(batch.later, 4 - row)
    number = jnp.asarray(goal, jnp.int32)
    batch = eqx.tree_at(lambda b: b.rows.goal, batch, rows.take(number).achieved)
    loss, _ = eqx.filter_jit(objective.loss)(params, None, batch, key=jr.key(2))
    log_prob = np_log_prob(
        *doubled((params.actor, batch.rows.observation, batch.rows.goal, batch.rows.action))
    )
    pairs = {
        (i, j): log_prob[(row == i) & (goal == j)][0] for i in range(5) for j in range(i + 1, 5)
    }
    assert len(pairs) == 10
    np.testing.assert_allclose(loss, -np.mean(list(pairs.values())), rtol=1e-5)


@pytest.mark.parametrize("expectile", (0.1, 0.5, 0.9))
def test_expectiles_balance_what_lies_above_and_below(expectile):
    """The best constant has `κ Σ (x - v)⁺ = (1 - κ) Σ (v - x)⁺`; at one half it is the mean."""
    x = np.random.default_rng(0).normal(size=50)
    grid = np.linspace(-3, 3, 60_001)
    above = np.maximum(x[:, None] - grid, 0).sum(axis=0)
    below = np.maximum(grid - x[:, None], 0).sum(axis=0)
    balanced = grid[np.argmin(np.abs(expectile * above - (1 - expectile) * below))]
    error = jnp.asarray(x[:, None] - (balanced + np.array([-1e-2, 0, 1e-2])), jnp.float32)
    low, best, high = jnp.sum(expectile_loss(error, error, expectile), axis=0)
    assert best < min(low, high)
    # A parabola of this curvature, so the minimum is at the middle and not only near it.
    assert abs(low - high) < 0.05 * (low + high - 2 * best)
    if expectile == 0.5:
        assert abs(balanced - x.mean()) < 1e-4
