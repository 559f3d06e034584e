"""QRL's loss, metrics and gradients against formulas in float64, and the laws of its terms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from affine import (
    DIM,
    ROWS,
    STATES,
    Lines,
    check,
    mixed,
    np_awr,
    np_bent,
    np_ddpgbc,
    np_mean,
    numbers,
)
from hypothesis import given
from hypothesis import strategies as st

from objectives import AWR, DDPGBC, QRL, QRLBatch

EPSILON, SHARPNESS, OFFSET = 0.05, 0.3, 4.0


def np_union(lefts, rights):
    """The length of what some interval covers."""
    cuts = np.unique(np.concatenate([lefts, rights]))
    centres = (cuts[1:] + cuts[:-1])[:, None] / 2
    return np.sum(np.diff(cuts) * np.any((lefts < centres) & (centres < rights), axis=1))


def np_iqe(mix, x, y):
    """Of each row, the distance from `x` to `y`."""
    pairs = zip(x.reshape(-1, 2), y.reshape(-1, 2), strict=True)
    unions = np.array([np_union(*pair) for pair in pairs]).reshape(len(x), -1)
    largest = 1 / (1 + np.exp(-mix))
    return largest * unions.max(axis=1) + (1 - largest) * unions.mean(axis=1)


def np_embed(critic, s):
    return s @ critic.encoder.weight.T + critic.encoder.bias


def np_distance(critic, x, y):
    return np_iqe(critic.energy.mix, x, y)


def np_predict(dynamics, z, action):
    return z + np_bent(np.concatenate([z, action], axis=1) @ dynamics.weight.T + dynamics.bias)


def np_critic(moving, held, b, modelled):
    """Distances, the model and the multiplier."""
    critic = moving.critic
    here, there, goal = (np_embed(critic, x) for x in (b.observation, b.next_observation, b.goal))
    far, near = np_distance(critic, here, goal), np_distance(critic, here, there)
    mixed(near > 1)
    found = {
        "critic/push": np.mean(np.log1p(np.exp(SHARPNESS * (OFFSET - far)))) / SHARPNESS,
        "critic/violation": np.mean(np.maximum(near - 1, 0) ** 2),
        "critic/distance_goal": np.mean(far),
        "critic/distance_step": np.mean(near),
    }
    multiplier = np.exp(held.log_multiplier)
    found["critic/loss"] = found["critic/push"] + multiplier * found["critic/violation"]
    if modelled:
        guess = np_predict(moving.dynamics, here, b.action)
        both = np_distance(critic, there, guess) + np_distance(critic, guess, there)
        found["critic/dynamics"] = np.mean(both) / 2
        found["critic/loss"] += found["critic/dynamics"]
    fixed = (np_embed(held.critic, x) for x in (b.observation, b.next_observation))
    violation = np.mean(np.maximum(np_distance(held.critic, *fixed) - 1, 0) ** 2)
    multiplier = np.exp(moving.log_multiplier)
    found["multiplier/loss"] = multiplier * (EPSILON - violation)
    return found | {"multiplier/value": multiplier}


def make_batch():
    s, a, following, goal, actor_goal = (0.7 * x for x in numbers(1, 3, 2, 3, 3, 3))
    return QRLBatch(s, jnp.tanh(a), following, goal, actor_goal)


def make(term, **fields):
    return QRL(term, epsilon=EPSILON, sharpness=SHARPNESS, offset=OFFSET, **fields)


@pytest.mark.parametrize("term", (DDPGBC(0.4), AWR(0.7, 1.2)))
def test_qrl_equals_double_precision(term):
    """With regression no model of the dynamics is there."""

    def reference(moving, held, state, b):
        own, modelled = b.actor_goal, isinstance(term, DDPGBC)
        here, there, goal = (
            np_embed(held.critic, x) for x in (b.observation, b.next_observation, own)
        )

        def score(action):
            return -np_distance(held.critic, np_predict(held.dynamics, here, action), goal)

        if modelled:
            mixed(np.abs(np_mean(moving.actor, b.observation, own)) > 1)
            actor = np_ddpgbc(
                moving.actor, held.actor, b.observation, own, b.action, score, term.alpha
            )
        else:
            assert moving.dynamics is None
            rise = np_distance(held.critic, here, goal) - np_distance(held.critic, there, goal)
            mixed(np.exp(0.7 * rise) > 1.2)
            actor = np_awr(moving.actor, b.observation, own, b.action, rise, 0.7, 1.2)
        return np_critic(moving, held, b, modelled) | actor

    terms = "critic/loss", "multiplier/loss", "actor/loss"
    check(make(term, multiplier=2.5), STATES, make_batch(), terms, reference)


def test_the_multiplier_starts_where_it_is_told():
    for value in (0.01, 1.0, 30.0):
        params, state = make(AWR(), multiplier=value).init(Lines(), STATES, key=jr.key(0))
        np.testing.assert_allclose(np.exp(params.log_multiplier), value, rtol=1e-6)
        assert state is None


@given(size=st.sampled_from((0.1, 0.3, 0.5, 1.0, 3.0)), log_multiplier=st.floats(-5, 5, width=32))
def test_the_multiplier_ascends_where_the_constraint_is_violated(size, log_multiplier):
    """What is minimized falls with the multiplier if steps are too long, and rises otherwise."""
    objective = make(AWR())
    params, _ = objective.init(Lines(), STATES, key=jr.key(0))
    params = eqx.tree_at(lambda p: p.log_multiplier, params, jnp.float32(log_multiplier))
    batch = jax.tree.map(lambda x: size * x, make_batch())
    slope, violation = multiplier_slope(objective, params, batch)
    expected = np.exp(log_multiplier) * (EPSILON - violation)
    assert abs(EPSILON - violation) > 1e-3
    np.testing.assert_allclose(slope, expected, rtol=1e-4)
    assert np.sign(slope) == -np.sign(violation - EPSILON)


@eqx.filter_jit
def multiplier_slope(objective, params, batch):
    def loss(params):
        loss, metrics = objective.loss(params, None, batch, key=jr.key(0))
        return loss, metrics["critic/violation"]

    slopes, violation = eqx.filter_grad(loss, has_aux=True)(params)
    return slopes.log_multiplier, violation


def test_both_signs_of_the_violation_occur():
    params, _ = make(AWR()).init(Lines(), STATES, key=jr.key(0))
    slopes = [
        multiplier_slope(make(AWR()), params, jax.tree.map(lambda x, c=c: c * x, make_batch()))[0]
        for c in (0.1, 3.0)
    ]
    assert slopes[0] > 0 > slopes[1]


@pytest.mark.parametrize("sharpness, offset", ((0.01, 500.0), (0.1, 15.0), (1.0, 3.0)))
def test_the_push_falls_with_distance(sharpness, offset):
    """Goals `c` times as far, by a metric that is homogeneous: the softplus of the formula, lower
    for every longer distance, and with a slope of at most one."""
    objective = QRL(AWR(), sharpness=sharpness, offset=offset)
    params, _ = objective.init(Lines(), STATES, key=jr.key(0))
    params = eqx.tree_at(lambda p: p.critic.encoder.bias, params, jnp.zeros(DIM))
    batch = make_batch()

    @eqx.filter_jit
    def push(factor):
        scaled = eqx.tree_at(
            lambda b: (b.observation, b.goal),
            batch,
            (
                factor * batch.observation[:1].repeat(ROWS, 0),
                factor * batch.goal[:1].repeat(ROWS, 0),
            ),
        )
        metrics = objective.loss(params, None, scaled, key=jr.key(0))[1]
        return metrics["critic/push"], metrics["critic/distance_goal"]

    pushes, distances = np.array([push(jnp.float32(c)) for c in (0.1, 1, 5, 20, 100)]).T
    expected = np.logaddexp(0, sharpness * (offset - np.float64(distances))) / sharpness
    np.testing.assert_allclose(pushes, expected, rtol=1e-4, atol=1e-6)
    assert np.all(np.diff(distances) > 0)
    assert np.all(np.diff(pushes) < 0)
    assert np.all(np.diff(pushes) >= -np.diff(distances) * (1 + 1e-3))
