"""Networks so simple that NumPy repeats them in one line, and comparisons with formulas in float64.

Values are bent lines: of a line, the difference between two states would not depend on the goal.

A formula is a function `reference(moving, held, state, batch)` that returns all metrics. What a
term of the loss trains it reads from `moving`, what it must leave alone from `held`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from architectures import IQE, SharedTower
from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractDistribution,
    AbstractEncoder,
    Affine,
    Spec,
)
from objectives import Transitions

ROWS, DIM = 12, 6
SPEC, STATES = Spec(3, 2, 2), Spec(3, 2, 3)


class Line(AbstractEncoder):
    weight: jax.Array
    bias: jax.Array
    bent: bool = eqx.field(default=False, static=True)

    def __call__(self, x):
        out = self.weight @ x + self.bias
        return out + 0.5 * jnp.sin(2 * out) if self.bent else out


class Known(AbstractDistribution):
    """A normal distribution whose sample is known."""

    mean: jax.Array
    log_std: jax.Array
    noise: jax.Array

    def mode(self):
        return self.mean

    def log_prob(self, action):
        noise = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * noise**2 + self.log_std + 0.5 * np.log(2 * np.pi))

    def sample_and_log_prob(self, *, key):
        del key
        action = self.mean + jnp.exp(self.log_std) * self.noise
        return action, self.log_prob(action)


class LineActor(AbstractActor):
    """The mean is affine, and the noise a function of the observation."""

    mean: Line
    log_std: jax.Array

    def __call__(self, observation, goal):
        mean = self.mean(jnp.concatenate([observation, goal]))
        return Known(mean, self.log_std, jnp.sin(5 * jnp.resize(observation, mean.shape)))


class Lines(AbstractArchitecture):
    def critic(self, spec, *, key):
        ekey, mkey = jr.split(key)
        encoder = line(spec.observation_size + spec.action_size, DIM, key=ekey)
        energy = IQE(2).init(DIM, key=mkey)
        return SharedTower(encoder, energy, Affine(), spec.observation_size)

    def actor(self, spec, *, key):
        mkey, skey = jr.split(key)
        mean = line(spec.observation_size + spec.goal_size, spec.action_size, key=mkey)
        return LineActor(mean, 0.3 * jr.normal(skey, (spec.action_size,)))

    def encoder(self, in_size, out_size, *, key):
        return line(in_size, out_size, bent=True, key=key)


def line(in_size, out_size, *, bent=False, key):
    wkey, bkey = jr.split(key)
    weight = 0.8 * jr.normal(wkey, (out_size, in_size))
    return Line(weight, 0.3 * jr.normal(bkey, (out_size,)), bent)


def numbers(seed, *sizes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=(ROWS, size)), jnp.float32) for size in sizes]


def transitions(seed=1):
    """Rewards and masks are no function of anything else."""
    s, a, following, goal, actor_goal, reward = numbers(seed, 3, 2, 3, 2, 2, 1)
    mask = (jnp.arange(ROWS) % 4 > 0).astype(jnp.float32)
    return Transitions(s, jnp.tanh(a), following, goal, actor_goal, reward[:, 0], mask)


# Formulas in NumPy and float64.
def np_joint(network, s, a, g):
    """Networks read observation, goal and action; `[rows, out]`."""
    line = network.network
    return np_bent(np.concatenate([s, g, a], axis=1) @ line.weight.T + line.bias)


def np_values(ensemble, s, a, g):
    """`[rows, members]`."""
    line = ensemble.members.network.network
    x = np.concatenate([s, g, a], axis=1)
    return np_bent(np.einsum("ix,eox->ieo", x, line.weight)[..., 0] + line.bias[:, 0])


def np_bent(x):
    return x + 0.5 * np.sin(2 * x)


def np_mean(actor, s, g):
    return np.concatenate([s, g], axis=1) @ actor.mean.weight.T + actor.mean.bias


def np_log_prob(actor, s, g, action):
    noise = (action - np_mean(actor, s, g)) * np.exp(-actor.log_std)
    return -(0.5 * noise**2 + actor.log_std + 0.5 * np.log(2 * np.pi)).sum(axis=1)


def np_sample(actor, s, g):
    """Actions and their log-densities."""
    size = len(actor.log_std)
    noise = np.sin(5 * np.stack([np.resize(row, size) for row in s]))
    action = np_mean(actor, s, g) + np.exp(actor.log_std) * noise
    return action, np_log_prob(actor, s, g, action)


def np_awr(actor, s, g, action, advantage, alpha, cap=100.0):
    """Advantage-weighted regression, with its metrics."""
    weight = np.minimum(np.exp(alpha * advantage), cap)
    log_prob = np_log_prob(actor, s, g, action)
    return {
        "actor/loss": -np.mean(weight * log_prob),
        "actor/advantage": np.mean(advantage),
        "actor/weight": np.mean(weight),
        "actor/log_prob": np.mean(log_prob),
        "actor/saturated": np_saturated(np_mean(actor, s, g)),
    }


def np_ddpgbc(moving, held, s, g, action, score, alpha):
    """The scale of the scores is of actors `held`; `score` takes actions."""
    q = score(np.clip(np_mean(moving, s, g), -1, 1))
    scale = np.mean(np.abs(score(np.clip(np_mean(held, s, g), -1, 1))))
    log_prob = np.mean(np_log_prob(moving, s, g, action))
    return {
        "actor/loss": -np.mean(q) / (scale + 1e-6) - alpha * log_prob,
        "actor/q": np.mean(q),
        "actor/log_prob": log_prob,
        "actor/saturated": np_saturated(np_mean(moving, s, g)),
    }


def np_saturated(action):
    return np.mean(np.abs(action) >= 0.999)


def np_implicit(values, slow, slow_after, reward, mask, discount, expectile):
    """The loss of implicit values, with its metrics."""
    wanted = reward[:, None] + discount * mask[:, None] * slow_after
    best = reward + discount * mask * slow_after.min(axis=1)
    advantage = best - slow.mean(axis=1)
    weight = np.where(mixed(advantage < 0), 1 - expectile, expectile)
    return {
        "value/loss": np.sum(np.mean(weight[:, None] * (wanted - values) ** 2, axis=0)),
        "value/mean": np.mean(values),
        "value/target": np.mean(wanted),
        "value/advantage": np.mean(advantage),
    }


def mixed(mask):
    """The mask itself, which must hold in some rows and not in others."""
    assert 0 < np.mean(mask) < 1
    return mask


def doubled(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if eqx.is_array(x) else x, tree)


def central_differences(function, tree, step=1e-5):
    """The gradient of `function` by every number in `tree`."""
    arrays, static = eqx.partition(tree, lambda x: isinstance(x, np.ndarray))
    leaves, structure = jax.tree.flatten(arrays)

    def at(which, entry, change):
        moved = [x.copy() for x in leaves]
        moved[which][entry] += change
        return function(eqx.combine(jax.tree.unflatten(structure, moved), static))

    return [
        np.array(
            [(at(i, e, step) - at(i, e, -step)) / (2 * step) for e in np.ndindex(x.shape)]
        ).reshape(x.shape)
        for i, x in enumerate(leaves)
    ]


def check(objective, spec, batch, terms, reference, *, untrained=0):
    """The loss is the sum of `terms`; it, all metrics and all gradients are those of the formula.

    Gradients agree to 1e-3 of the largest entry of each array: differences of float64 lose little,
    and sums of float32 most of it. None but `untrained` arrays have a gradient of zero.
    """
    params, _ = objective.init(Lines(), spec, key=jr.key(1))
    _, state = objective.init(Lines(), spec, key=jr.key(2))  # Targets of their own.

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def evaluate(params, state, batch):
        return objective.loss(params, state, batch, key=jr.key(3))

    (loss, metrics), gradient = evaluate(params, state, batch)
    held, slow, rows = doubled(params), doubled(state), doubled(batch)

    def total(moving):
        found = reference(moving, held, slow, rows)
        return sum(found[term] for term in terms)

    expected = reference(held, held, slow, rows)
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(loss, total(held), rtol=1e-4, atol=1e-5)
    slopes = central_differences(total, held)
    for actual, wanted in zip(jax.tree.leaves(gradient), slopes, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
    assert sum(not np.any(slope) for slope in slopes) == untrained
