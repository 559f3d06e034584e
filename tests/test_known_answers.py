"""Learning on a small chain whose answers can be computed.

Networks are tables over one-hot inputs, so nothing but the objective decides what is learnt.
"""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float

from architectures import Gaussian
from crlx import (
    AbstractActor,
    AbstractArchitecture,
    AbstractCritic,
    Geometric,
    Learner,
    OfflineRows,
    Spec,
    Step,
    Uniform,
)
from objectives import GCBC, Backward, Binary, Contrastive, Forward, Symmetric

STATES, ACTIONS, DISCOUNT = 4, 2, 0.8
SPEC = Spec(STATES, ACTIONS, STATES)
EPISODES, LENGTH = 60, 301
BATCH, UPDATES = 64, 8000
CLOSE = 0.08  # Sampling leaves an error of 0.03 to 0.07 in each log-ratio.

# Two actions try to step left or right on a line; chances of arriving left, here and right.
SLIP = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
# What the data were collected with: the chance of going right, by state.
RIGHT = np.array([0.8, 0.6, 0.5, 0.3])


class Table(AbstractCritic):
    score: Float[Array, "obs act goal"]

    def __call__(self, observation, action, goal):
        return self.pairs(observation[None], action[None], goal[None])[0, 0]

    def pairs(self, observations, actions, goals):
        rows = jnp.einsum("is,ia,sag->ig", observations, actions, self.score)
        return rows @ goals.T


class TableActor(AbstractActor):
    mean: Float[Array, "obs goal act"]

    def __call__(self, observation, goal):
        mean = jnp.einsum("s,g,sga->a", observation, goal, self.mean)
        return Gaussian(mean, jnp.zeros_like(mean))


class Tables(AbstractArchitecture):
    def critic(self, spec, *, key):
        shape = spec.observation_size, spec.action_size, spec.goal_size
        return Table(jr.normal(key, shape))  # Far from the answers.

    def actor(self, spec, *, key):
        del key
        return TableActor(jnp.zeros((spec.observation_size, spec.goal_size, spec.action_size)))

    def encoder(self, in_size, out_size, *, key):
        raise AssertionError("These objectives need no network but critics and actors.")


def transitions():
    """`[state, action, next state]`."""
    chances = np.zeros((STATES, ACTIONS, STATES))
    for state in range(STATES):
        for action in range(ACTIONS):
            for step, chance in zip((-1, 0, 1), SLIP[action], strict=True):
                chances[state, action, np.clip(state + step, 0, STATES - 1)] += chance
    return chances


def occupancy():
    """The chance that a geometrically discounted later state is `g`, `[state, action, g]`."""
    chances = transitions()
    policy = np.stack([1 - RIGHT, RIGHT], axis=1)
    step = np.einsum("sa,sag->sg", policy, chances)
    later = (1 - DISCOUNT) * np.linalg.inv(np.eye(STATES) - DISCOUNT * step)
    return chances @ later


@pytest.fixture(scope="module")
def data():
    """States and actions of all rows, `[episodes, length]`."""
    rng, chances = np.random.default_rng(0), transitions()
    states = np.zeros((EPISODES, LENGTH), int)
    actions = np.zeros((EPISODES, LENGTH), int)
    states[:, 0] = rng.integers(STATES, size=EPISODES)
    for t in range(LENGTH):
        actions[:, t] = rng.random(EPISODES) < RIGHT[states[:, t]]
        if t + 1 < LENGTH:
            bounds = chances[states[:, t], actions[:, t]].cumsum(axis=1)
            states[:, t + 1] = (rng.random((EPISODES, 1)) > bounds).sum(axis=1)
    return states, actions


@pytest.fixture(scope="module")
def rows(data):
    states, actions = (x.ravel() for x in data)
    one_hot = jnp.eye(STATES)[states]
    terminals = np.arange(states.size) % LENGTH == LENGTH - 1
    return OfflineRows(Step(one_hot, jnp.eye(ACTIONS)[actions], one_hot), terminals)


def joint(data, weight):
    """The law of (state, action, goal), counted pair by pair of rows.

    `weight` maps the number of steps between them to how likely such a goal is.
    """
    states, actions = data
    table = np.zeros((STATES, ACTIONS, STATES))
    for t in range(LENGTH - 1):  # The final row is a successor only.
        ahead = np.arange(1, LENGTH - 1 - t)
        chance = weight(ahead) / weight(ahead).sum() if len(ahead) else np.ones(1)
        reached = ahead if len(ahead) else np.zeros(1, int)  # Nothing follows: the row itself.
        for k, p in zip(reached, chance, strict=True):
            if p > 1e-9:
                np.add.at(table, (states[:, t], actions[:, t], states[:, t + k]), p)
    return table / table.sum()


@eqx.filter_jit
def train(objective, rows, key):
    ikey, fkey = jr.split(key)
    learner = Learner(objective, optax.adam(optax.cosine_decay_schedule(0.02, UPDATES)))
    progress = learner.init(Tables(), SPEC, key=ikey)
    sizes = {"updates": UPDATES, "batch_size": BATCH}
    progress, _ = learner.fit(progress, rows, **sizes, key=fkey)
    return progress.params


@pytest.fixture(scope="module")
def law(data):
    return joint(data, lambda steps: DISCOUNT**steps)


def log_ratio(law):
    both = law.sum(axis=2, keepdims=True) * law.sum(axis=(0, 1))
    return np.log(law / both)


def test_the_data_have_the_occupancy_of_the_chain(law):
    """What is counted from finite trajectories is close to the resolvent of the chain."""
    given = law / law.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(given, occupancy(), atol=0.02)


def learnt(objective, rows, key):
    return np.asarray(train(objective, rows, key).critic.members.score[0], np.float64)


def test_forward_infonce(rows, law, getkey):
    """The optimum is the log-ratio plus an offset of state and action, which the penalty fixes."""
    score = learnt(Contrastive(Forward(), goals=Geometric(DISCOUNT)), rows, getkey())
    offset = np.log(np.exp(score) @ law.sum(axis=(0, 1)))
    np.testing.assert_allclose(score - offset[..., None], log_ratio(law), atol=CLOSE)
    # A log-sum over the minibatch of zero is an offset of minus the logarithm of its size.
    np.testing.assert_allclose(offset, -np.log(BATCH), atol=0.04)


def test_without_the_penalty_the_offset_is_free(rows, law, getkey):
    objective = Contrastive(Forward(), goals=Geometric(DISCOUNT), logsumexp_penalty=0.0)
    score = learnt(objective, rows, getkey())
    offset = np.log(np.exp(score) @ law.sum(axis=(0, 1)))
    np.testing.assert_allclose(score - offset[..., None], log_ratio(law), atol=CLOSE)
    assert np.all(np.abs(offset + np.log(BATCH)) > 1)
    assert np.std(offset) > 2 * CLOSE


def test_backward_infonce(rows, law, getkey):
    """The optimum is the log-ratio plus an offset of the goal, which nothing fixes here."""
    objective = Contrastive(Backward(), goals=Geometric(DISCOUNT), logsumexp_penalty=0.0)
    score = learnt(objective, rows, getkey())
    offset = np.log(np.einsum("sa,sag->g", law.sum(axis=2), np.exp(score)))
    np.testing.assert_allclose(score - offset, log_ratio(law), atol=CLOSE)
    assert np.std(offset) > 2 * CLOSE


def test_symmetric_infonce(rows, law, getkey):
    """Only one number is free."""
    objective = Contrastive(Symmetric(), goals=Geometric(DISCOUNT), logsumexp_penalty=0.0)
    score = learnt(objective, rows, getkey())
    both = law.sum(axis=2, keepdims=True) * law.sum(axis=(0, 1))
    offset = np.log(np.sum(both * np.exp(score)))
    np.testing.assert_allclose(score - offset, log_ratio(law), atol=CLOSE)


def test_binary_nce(rows, law, getkey):
    """The optimum is the log-ratio minus the logarithm of the number of negatives."""
    objective = Contrastive(Binary(), goals=Geometric(DISCOUNT), logsumexp_penalty=0.0)
    score = learnt(objective, rows, getkey())
    np.testing.assert_allclose(score + np.log(BATCH - 1), log_ratio(law), atol=CLOSE)


def test_the_tolerance_tells_answers_apart(data, law):
    """The log-ratios of a discount of 0.7 are farther off than any test above allows."""
    other = joint(data, lambda steps: 0.7**steps)
    assert np.max(np.abs(log_ratio(law) - log_ratio(other))) > 4 * CLOSE
    assert np.ptp(log_ratio(law)) > 20 * CLOSE


@pytest.mark.parametrize(
    "goals, weight",
    [(Uniform(), np.ones_like), (Geometric(DISCOUNT), lambda steps: DISCOUNT**steps)],
)
def test_cloning_recovers_the_conditional_mean(goals, weight, rows, data, getkey):
    """With a fixed standard deviation, the optimum is the mean action, given state and goal."""
    counted = joint(data, lambda steps: weight(steps.astype(float)))
    mean = counted.transpose(0, 2, 1) / counted.sum(axis=1)[..., None]
    actor = train(GCBC(goals), rows, getkey()).actor
    np.testing.assert_allclose(actor.mean, mean, atol=0.03)
