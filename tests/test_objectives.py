import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from architectures import Gaussian, MLPNetworks
from crlx import AbstractActor, AbstractArchitecture, AbstractCritic, Spec
from objectives import (
    AWR,
    DDPGBC,
    AbstractActorTerm,
    Backward,
    Binary,
    Contrastive,
    ContrastiveBatch,
    Forward,
    MaxEntropy,
    Symmetric,
)

SPEC, ROWS = Spec(3, 2, 2), 6


class Bilinear(AbstractCritic):
    weight: jax.Array

    def __call__(self, observation, action, goal):
        return jnp.concatenate([observation, action]) @ self.weight @ goal

    def pairs(self, observations, actions, goals):
        return jnp.concatenate([observations, actions], axis=1) @ self.weight @ goals.T


class Linear(AbstractActor):
    weight: jax.Array

    def __call__(self, observation, goal):
        mean = self.weight @ jnp.concatenate([observation, goal])
        return Gaussian(mean, jnp.zeros_like(mean))


class Tiny(AbstractArchitecture):
    """Networks so simple that NumPy repeats them in one line."""

    def critic(self, spec, *, key):
        shape = spec.observation_size + spec.action_size, spec.goal_size
        return Bilinear(0.7 * jr.normal(key, shape))

    def actor(self, spec, *, key):
        shape = spec.action_size, spec.observation_size + spec.goal_size
        return Linear(2.0 * jr.normal(key, shape))

    def encoder(self, in_size, out_size, *, key):
        raise AssertionError("A contrast needs no network but critics and actors.")


def start(objective):
    params, state = objective.init(Tiny(), SPEC, key=jr.key(4))
    assert state is None
    return params


def random(seed, *sizes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=(ROWS, size)), jnp.float32) for size in sizes]


def make_batch():
    s, a, goal, actor_goal = random(1, 3, 2, 2, 2)
    return ContrastiveBatch(s, jnp.tanh(a), goal, actor_goal, actor_goal)


@eqx.filter_jit
def evaluate(objective, params, batch):
    return objective.loss(params, None, batch, key=jr.key(7))


# Formulas in NumPy and float64.
def np_tables(ensemble, s, a, goal):
    """Of each member, the score of state-action i with goal j."""
    x = np.concatenate([s, a], 1, dtype=np.float64)
    return np.einsum("ix,exy,jy->eij", x, np.float64(ensemble.members.weight), np.float64(goal))


def np_scores(ensemble, s, a, goal):
    """Of each member, the scores of the rows with their own goals."""
    return np.diagonal(np_tables(ensemble, s, a, goal), axis1=1, axis2=2)


def np_mean(actor, s, goal):
    return np.concatenate([s, goal], 1, dtype=np.float64) @ np.float64(actor.weight).T


def np_log_prob(action, mean):
    return (-0.5 * (np.float64(action) - mean) ** 2 - 0.5 * np.log(2 * np.pi)).sum(1)


def np_sums(axis, table):
    return np.log(np.exp(table).sum(axis))


def np_infonce(axis, table):
    return np.mean(np_sums(axis, table) - np.diag(table))


def np_binary(table):
    label, chance = np.eye(ROWS), 1 / (1 + np.exp(-table))
    return -np.mean(label * np.log(chance) + (1 - label) * np.log(1 - chance))


CONTRASTS = {
    "forward": (Forward(), functools.partial(np_infonce, 1), functools.partial(np_sums, 1)),
    "backward": (Backward(), functools.partial(np_infonce, 0), functools.partial(np_sums, 0)),
    "symmetric": (
        Symmetric(),
        lambda table: np_infonce(0, table) + np_infonce(1, table),
        lambda table: np.stack([np_sums(0, table), np_sums(1, table)]),
    ),
    "binary": (Binary(), np_binary, functools.partial(np_sums, 1)),
}


def np_critic(name, tables, penalty):
    """Contrast and weighted penalty, both averaged over the ensemble."""
    _, contrast, sums = CONTRASTS[name]
    return (
        np.mean([contrast(table) for table in tables]),
        penalty * np.mean([np.mean(sums(table) ** 2) for table in tables]),
    )


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONTRASTS)
@pytest.mark.parametrize("ensemble, penalty", ((1, 0.0), (3, 0.2)))
def test_contrastive_with_ddpgbc_equals_double_precision(name, ensemble, penalty):
    objective = Contrastive(
        CONTRASTS[name][0], DDPGBC(0.3), logsumexp_penalty=penalty, ensemble=ensemble
    )
    params, batch = start(objective), make_batch()
    loss, metrics = evaluate(objective, params, batch)
    s, goal = batch.observation, batch.actor_goal
    tables = np_tables(params.critic, s, batch.action, batch.goal)
    assert tables.shape == (ensemble, ROWS, ROWS)
    contrast, penalty = np_critic(name, tables, penalty)
    mean = np_mean(params.actor, s, goal)
    assert np.any(np.abs(mean) > 1)
    scores = np_scores(params.critic, s, np.clip(mean, -1, 1), goal)
    assert ensemble == 1 or len(set(scores.argmin(0))) > 1
    q = scores.min(0)
    log_prob = np_log_prob(batch.action, mean).mean()
    actor = -q.mean() / (np.abs(q).mean() + 1e-6) - 0.3 * log_prob
    assert_close(loss, contrast + penalty + actor)
    expected = {
        "critic/loss": contrast + penalty,
        "critic/contrast": contrast,
        "critic/categorical_accuracy": np.mean(tables.argmax(2) == np.arange(ROWS)),
        "critic/logits_positive": np.mean(np.diagonal(tables, axis1=1, axis2=2)),
        "critic/logits_spread": np.mean(tables.std(2)),
        "actor/loss": actor,
        "actor/q": q.mean(),
        "actor/log_prob": log_prob,
    }
    if penalty:
        expected["critic/penalty"] = penalty
    assert ("critic/penalty" in metrics) == bool(penalty)
    for key, value in expected.items():
        np.testing.assert_allclose(metrics[key], value, rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("ensemble", (1, 2))
def test_contrastive_with_awr_equals_double_precision(ensemble):
    objective = Contrastive(Binary(), AWR(2.0, 3.0), logsumexp_penalty=0.01, ensemble=ensemble)
    params, batch = start(objective), make_batch()
    loss, metrics = evaluate(objective, params, batch)
    s, goal, nothing = batch.observation, batch.actor_goal, np.zeros((ROWS, 0))
    critic = sum(np_critic("binary", np_tables(params.critic, s, batch.action, batch.goal), 0.01))
    value = sum(np_critic("binary", np_tables(params.value, s, nothing, batch.goal), 0.01))
    advantage = np_scores(params.critic, s, batch.action, goal).min(0)
    advantage = advantage - np_scores(params.value, s, nothing, goal).mean(0)
    weight = np.minimum(np.exp(2 * advantage), 3)
    assert 0 < np.mean(weight == 3) < 1
    mean = np_mean(params.actor, s, goal)
    actor = -np.mean(weight * np_log_prob(batch.action, mean))
    assert_close(loss, critic + value + actor)
    for name, expected in (("critic", critic), ("value", value), ("actor", actor)):
        assert_close(metrics[f"{name}/loss"], expected)
    assert_close(metrics["actor/advantage"], advantage.mean())


class Probe(AbstractActorTerm):
    """Reports projections of what an objective hands to its actor term."""

    needs_score = True
    needs_advantage = True

    def init(self, architecture, spec, *, key):
        return jnp.full(spec.action_size, 0.3)

    def __call__(self, trainables, policy, batch, *, score, advantage, key):
        seen = {"score": score(jnp.sin(batch.action) + trainables[None])}
        seen |= {"advantage": advantage, "goal": batch.goal[:, 0], "action": batch.action[:, 1]}
        weights = jnp.cos(jnp.arange(ROWS, dtype=jnp.float32))
        metrics = {f"probe/{name}": weights @ value for name, value in seen.items()}
        return metrics["probe/score"], metrics


def test_what_the_actor_term_is_given():
    """The smallest member's score, at the actor's goals, and its own trainables."""
    objective, batch = Contrastive(Forward(), Probe(), ensemble=3), make_batch()
    params = start(objective)
    _, metrics = evaluate(objective, params, batch)
    s, a, goal = batch.observation, np.float64(batch.action), batch.actor_goal
    scores = np_scores(params.critic, s, np.sin(a) + 0.3, goal)
    assert len(set(scores.argmin(0))) > 1
    baseline = np_scores(params.value, s, a[:, :0], goal).mean(0)
    expected = {
        "score": scores.min(0),
        "advantage": np_scores(params.critic, s, a, goal).min(0) - baseline,
        "goal": np.float64(goal)[:, 0],
        "action": a[:, 1],
    }
    for name, value in expected.items():
        assert_close(metrics[f"probe/{name}"], np.cos(np.arange(ROWS)) @ value)


@pytest.mark.parametrize("term", (DDPGBC(), AWR(), MaxEntropy()))
def test_no_loss_trains_the_networks_of_another(term):
    objective, batch = Contrastive(Forward(), term, ensemble=2), make_batch()
    params = start(objective)
    own = {"critic/loss": {"critic"}, "actor/loss": {"actor", "actor_term"}}
    own |= {"value/loss": {"value"}} if params.value is not None else {}

    @eqx.filter_jit
    def gradients(params):
        def total(params):
            return evaluate(objective, params, batch)[0]

        def part(name):
            return eqx.filter_grad(lambda p: evaluate(objective, p, batch)[1][name])(params)

        return eqx.filter_grad(total)(params), {name: part(name) for name in own}

    total, parts = gradients(params)
    for name, gradient in parts.items():
        for field in ("critic", "actor", "value", "actor_term"):
            leaves = jax.tree.leaves(getattr(gradient, field))
            assert all(np.any(x) == (field in own[name]) for x in leaves)
    # What is minimized is the sum of what is reported.
    summed = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts.values())
    for x, y in zip(jax.tree.leaves(total), jax.tree.leaves(summed), strict=True):
        assert_close(x, y)


def test_networks_start_independent():
    params = start(Contrastive(actor=AWR(), ensemble=2))
    states = [e.members.weight[:, :3] for e in (params.critic, params.value)]
    assert len({np.asarray(w).tobytes() for pair in states for w in pair}) == 3
    assert start(Contrastive()).value is None
    assert start(Contrastive(actor=MaxEntropy())).actor_term == 0


def test_value_networks_take_no_action():
    """With networks of the library."""
    objective = Contrastive(actor=AWR(), ensemble=2)
    make = functools.partial(objective.init, MLPNetworks(depth=1, width=8, dim=4), SPEC)
    params, _ = eqx.filter_eval_shape(make, key=jr.key(0))
    for ensemble, size, inputs in ((params.critic, 2, 3 + 2), (params.value, 1, 3)):
        assert ensemble.members.state_action.trunk.stem.linear.weight.shape == (size, 8, inputs)
        assert ensemble.members.goal.trunk.stem.linear.weight.shape == (size, 8, 2)
    assert params.actor.trunk.stem.linear.weight.shape == (8, 3 + 2)


def test_the_actor_is_the_policy():
    params = start(Contrastive())
    assert Contrastive().policy(params, None) is params.actor
    assert Contrastive().advance(params, None) is None


@pytest.mark.parametrize(
    "field", ({"ensemble": 0}, {"logsumexp_penalty": -0.1}, {"logsumexp_penalty": float("nan")})
)
def test_impossible_objectives_are_refused(field):
    with pytest.raises(ValueError, match=f"`{next(iter(field))}` (is at least|must not be)"):
        Contrastive(**field)
