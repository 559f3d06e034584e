"""Losses, metrics and gradients of TD3 and SAC, against formulas in float64, and what their
targets are made of."""

import equinox as eqx
import jax
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
    np_bent,
    np_ddpgbc,
    np_mean,
    np_sample,
    np_saturated,
    np_values,
    transitions,
)

from objectives import AWR, DDPGBC, GCIQL, GCIVL, SAC, TD3, Deterministic, MaxEntropy

TERMS = "critic/loss", "actor/loss"


def np_regression(critic, s, a, goal, wanted):
    q = np_values(critic, s, a, goal)
    loss = 0.5 * np.mean((wanted[:, None] - q) ** 2)
    return {
        "critic/loss": loss,
        "critic/mean": np.mean(q),
        "critic/target": np.mean(wanted),
        "critic/disagreement": np.mean(np.std(q, axis=1)),
    }


def np_smallest(critic, s, a, goal):
    q = np_values(critic, s, a, goal)
    assert len(set(q.argmin(axis=1))) == 2
    return q.min(axis=1)


def into_box(mean, fixed, score):
    """The box's nearest actions, which follow the mean inside and, outside, where the score draws
    it back."""
    edge = np.clip(fixed, -1, 1)
    nudges = 1e-4 * np.eye(edge.shape[1])
    slope = np.stack([score(edge + e) - score(edge - e) for e in nudges], axis=1)
    follows = (np.abs(fixed) < 1) | (fixed * slope < 0)
    return edge + follows * (mean - fixed)


@pytest.mark.parametrize("term", (Deterministic(), DDPGBC(0.4), AWR(0.5, 2.0)))
def test_td3_equals_double_precision(term):
    """Without noise on the targets' actions. The actor climbs the first critic alone."""

    def reference(moving, held, slow, b):
        s, following = b.observation, b.next_observation
        after = np_mean(slow.actor, following, b.goal)
        mixed(np.abs(after) > 1)
        after = np_smallest(slow.critic, following, np.clip(after, -1, 1), b.goal)
        found = np_regression(moving.critic, s, b.action, b.goal, b.reward + 0.7 * b.mask * after)
        own = b.actor_goal

        def score(action):
            return np_values(held.critic, s, action, own)[:, 0]

        mean, fixed = (np_mean(x.actor, s, own) for x in (moving, held))
        if isinstance(term, DDPGBC):
            return found | np_ddpgbc(moving.actor, held.actor, s, own, b.action, score, 0.4)
        if isinstance(term, AWR):
            advantage = score(b.action) - score(np.clip(fixed, -1, 1))
            return found | np_awr(moving.actor, s, own, b.action, advantage, 0.5, 2.0)
        q = np.mean(score(into_box(mean, fixed, score)))
        return found | {"actor/loss": -q, "actor/q": q, "actor/saturated": np_saturated(mean)}

    objective = TD3(term, discount=0.7, target_noise=0.0)
    blind = isinstance(term, Deterministic)  # To the standard deviation.
    check(objective, SPEC, transitions(), TERMS, reference, untrained=int(blind))


@pytest.mark.parametrize("entropy", (None, 2.5))
def test_sac_equals_double_precision(entropy):
    """At temperature one, where it starts, and with noise that is known."""

    def reference(moving, held, slow, b):
        s, following, own = b.observation, b.next_observation, b.actor_goal
        action, log_prob = np_sample(held.actor, following, b.goal)
        mixed(np.abs(action) > 1)
        after = np_smallest(slow, following, np.clip(action, -1, 1), b.goal)
        soft = after - np.exp(held.actor_term) * log_prob
        found = np_regression(moving.critic, s, b.action, b.goal, b.reward + 0.7 * b.mask * soft)
        action, log_prob = np_sample(moving.actor, s, own)
        q = np_smallest(held.critic, s, np.clip(action, -1, 1), own)
        surprise = -np.mean(np_sample(held.actor, s, own)[1])
        excess = surprise - (-1.0 if entropy is None else entropy)
        alpha = np.exp(moving.actor_term)
        return found | {
            "actor/loss": np.mean(np.exp(held.actor_term) * log_prob - q) + alpha * excess,
            "actor/q": np.mean(q),
            "actor/entropy": -np.mean(log_prob),
            "actor/temperature": alpha,
            "actor/saturated": np_saturated(action),
        }

    check(SAC(MaxEntropy(entropy), discount=0.7), SPEC, transitions(), TERMS, reference)


OBJECTIVES = (TD3(), SAC(), GCIVL(), GCIQL())


def start(objective):
    params, _ = objective.init(Lines(), SPEC, key=jr.key(1))
    return params, objective.init(Lines(), SPEC, key=jr.key(2))[1]


def loss_and_metrics(objective):
    @eqx.filter_jit
    def evaluate(params, state, batch):
        return objective.loss(params, state, batch, key=jr.key(3))

    return evaluate


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_no_gradient_passes_through_targets(objective):
    """Exactly none, to the slow networks and to the policy that chooses what comes next."""
    params, state = start(objective)
    evaluate, batch = loss_and_metrics(objective), transitions()

    @eqx.filter_jit
    def slopes(state):
        return eqx.filter_grad(lambda s: evaluate(params, s, batch)[0])(state)

    leaves = jax.tree.leaves(eqx.filter(slopes(state), eqx.is_inexact_array))
    assert leaves
    assert not any(np.any(leaf) for leaf in leaves)
    name = "value/loss" if isinstance(objective, GCIVL) else "critic/loss"

    @eqx.filter_jit
    def by_actor(params):
        return eqx.filter_grad(lambda p: evaluate(p, state, batch)[1][name])(params).actor

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_actor(params)))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_nothing_is_expected_beyond_the_end(objective):
    """Where the mask is 0, what is wanted is the reward: nothing else moves it."""
    params, state = start(objective)
    evaluate, batch = loss_and_metrics(objective), transitions()
    name = "value/target" if isinstance(objective, GCIVL) else "critic/target"

    def wanted(mask, following):
        changed = eqx.tree_at(lambda b: (b.mask, b.next_observation), batch, (mask, following))
        return evaluate(params, state, changed)[1][name]

    other = jnp.flip(batch.next_observation, axis=0) + 1
    end, on = jnp.zeros(ROWS), jnp.ones(ROWS)
    for following in (batch.next_observation, other):
        np.testing.assert_allclose(wanted(end, following), batch.reward.mean(), rtol=1e-6)
    assert abs(wanted(on, other) - wanted(on, batch.next_observation)) > 0.01


def test_smoothing_is_clipped_normal_noise():
    """The law of wanted values, where the target's score is a function of the action alone."""
    objective = TD3(target_noise=0.3, noise_clip=0.4, discount=0.5)
    params, state = start(objective)
    line = state.critic.members.network.network
    weight = jnp.zeros_like(line.weight).at[:, 0, -2].set(1.0)
    mean = state.actor.mean
    values = (weight, jnp.zeros_like(line.bias), 0 * mean.weight, jnp.array([0.8, 0.0]))

    def where(s):
        critic = s.critic.members.network.network
        return critic.weight, critic.bias, s.actor.mean.weight, s.actor.mean.bias

    state = eqx.tree_at(where, state, values)
    row = jax.tree.map(lambda x: x[:1], transitions())
    row = eqx.tree_at(lambda b: (b.reward, b.mask), row, (jnp.zeros(1), jnp.ones(1)))

    @eqx.filter_jit
    @jax.vmap
    def draw(key):
        return objective.loss(params, state, row, key=key)[1]["critic/target"]

    drawn = np.sort(draw(jr.split(jr.key(0), 20_000)) / 0.5)
    noise = np.random.default_rng(0).normal(size=1_000_000)
    exact = np_bent(np.clip(0.8 + np.clip(0.3 * noise, -0.4, 0.4), -1, 1))
    # Both atoms are there: the smallest noise, and the bound of actions.
    for value in np_bent(np.array([0.4, 1.0])):
        share = np.mean(np.isclose(exact, value))
        assert share > 0.08
        assert abs(np.mean(np.isclose(drawn, value, atol=1e-5)) - share) < 0.012
    quantiles = np.linspace(0.01, 0.99, 99)
    error = np.quantile(drawn, quantiles) - np.quantile(exact, quantiles)
    np.testing.assert_allclose(error, 0, atol=0.02)


def test_targets_start_as_copies():
    for objective, pairs in (
        (TD3(), lambda p, s: ((p.critic, s.critic), (p.actor, s.actor))),
        (SAC(), lambda p, s: ((p.critic, s),)),
        (GCIVL(), lambda p, s: ((p.value, s),)),
        (GCIQL(), lambda p, s: ((p.critic, s),)),
    ):
        params, state = objective.init(Lines(), SPEC, key=jr.key(5))
        for network, slow in pairs(params, state):
            for x, y in zip(
                jax.tree.leaves(doubled(network)), jax.tree.leaves(doubled(slow)), strict=True
            ):
                np.testing.assert_array_equal(x, y)
