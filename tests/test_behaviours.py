import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from architectures import MRN, Gaussian, MLPNetworks, ResidualNetworks
from crlx import AbstractActor, Agent, BestOf, Greedy, Learner, Spec, Stochastic
from objectives import GCBC, GCIQL, SAC, TD3, Backward, Contrastive, Survival

SPEC = Spec(3, 2, 2)
MLP = MLPNetworks(depth=1, width=8, dim=4)
SQUASHED = ResidualNetworks(depth=4, width=8, dim=4, squashed=True)
DRAWS = 50_000
MEAN, STD = np.array([0.3, -0.6]), np.array([0.5, 1.5])


class Known(AbstractActor):
    """A normal policy that depends on neither."""

    def __call__(self, observation, goal):
        del observation, goal
        return Gaussian(jnp.asarray(MEAN, jnp.float32), jnp.log(jnp.asarray(STD, jnp.float32)))


def closeness(observation, action, goal):
    """Best where the action is what is missing of the goal."""
    return -jnp.sum((observation[:2] + action - goal) ** 2)


def inputs(key):
    okey, akey, gkey = jr.split(key, 3)
    return jr.normal(okey, (3,)), jr.uniform(akey, (2,), minval=-1), jr.normal(gkey, (2,))


def acted(behaviour, agent, keys):
    observation, goal = jnp.zeros(3), jnp.asarray([0.2, 0.9])
    act = jax.vmap(lambda key: behaviour(agent, observation, goal, key=key))
    return np.asarray(jax.jit(act)(keys))


def has_moments(actions, mean, std):
    """Within five standard errors, of a normal law."""
    error = std / np.sqrt(len(actions))
    assert np.all(np.abs(actions.mean(0) - mean) < 5 * error)
    assert np.all(np.abs(actions.std(0) - std) < 5 * error / np.sqrt(2))
    covariance = np.mean(np.prod(actions - actions.mean(0), axis=1))
    assert abs(covariance) < 5 * np.prod(std) / np.sqrt(len(actions))


def test_stochastic_samples_the_policy(getkey):
    has_moments(acted(Stochastic(), Agent(Known()), jr.split(getkey(), DRAWS)), MEAN, STD)
    actor, key = MLP.actor(SPEC, key=getkey()), getkey()
    observation, _, goal = inputs(getkey())
    sample, _ = actor(observation, goal).sample_and_log_prob(key=key)
    assert np.array_equal(Stochastic()(Agent(actor), observation, goal, key=key), sample)


def test_greedy_is_the_mode(getkey):
    actions = acted(Greedy(), Agent(Known()), jr.split(getkey(), 3))
    np.testing.assert_allclose(actions, [MEAN] * 3, rtol=1e-6)
    actor = MLP.actor(SPEC, key=getkey())
    observation, _, goal = inputs(getkey())
    action = Greedy()(Agent(actor), observation, goal, key=getkey())
    assert np.array_equal(action, actor(observation, goal).mode())


def test_noise_of_greedy(getkey):
    """Its standard deviation is that of the noise, not the policy's."""
    actions = acted(Greedy(0.2), Agent(Known()), jr.split(getkey(), DRAWS))
    has_moments(actions, MEAN, np.array([0.2, 0.2]))


@pytest.mark.parametrize("samples", (1, 2, 7))
def test_the_best_of_its_samples(samples, getkey):
    agent = Agent(Known(), closeness)
    for key in jr.split(getkey(), 10):
        observation, _, goal = inputs(key)
        drawn = [
            np.clip(Stochastic()(agent, observation, goal, key=k), -1, 1)
            for k in jr.split(key, samples)
        ]
        missing = np.asarray(goal - observation[:2])
        distances = [np.sum((action - missing) ** 2) for action in drawn]
        best = drawn[int(np.argmin(distances))]
        action = BestOf(samples)(agent, observation, goal, key=key)
        np.testing.assert_allclose(action, best, rtol=1e-6)


def test_more_samples_are_better(getkey):
    """The expected score rises; the first sample's law is the policy's own, clipped."""
    agent, keys = Agent(Known(), closeness), jr.split(getkey(), DRAWS // 10)
    goal = np.array([0.2, 0.9])
    errors = [
        np.mean(np.sum((acted(BestOf(samples), agent, keys) - goal) ** 2, axis=1))
        for samples in (1, 2, 4, 16)
    ]
    policy = np.clip(acted(Stochastic(), agent, keys), -1, 1)
    own = np.sum((policy - goal) ** 2, axis=1)
    assert abs(errors[0] - own.mean()) < 5 * own.std() * np.sqrt(2 / len(own))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_impossible_settings_are_refused(getkey):
    with pytest.raises(ValueError, match=r"`noise` is a standard deviation.*got -0\.1"):
        Greedy(-0.1)
    with pytest.raises(ValueError, match="`samples` is at least 1; got 0"):
        BestOf(0)
    observation, _, goal = inputs(getkey())
    with pytest.raises(ValueError, match=r"scores no actions: use Stochastic\(\) or Greedy\(\)"):
        BestOf()(Agent(Known()), observation, goal, key=getkey())


OBJECTIVES = {
    "contrastive": (Contrastive(ensemble=3), MLP),
    "sac": (SAC(), SQUASHED),
    "td3": (TD3(), MLP),
    "gciql": (GCIQL(), MLP),
}


def learnt(objective, key, architecture=MLP):
    """A learner and its progress, whose target networks, if it has any, are behind."""
    learner = Learner(objective, optax.adam(1e-3))
    progress = learner.init(architecture, SPEC, key=key)
    arrays, static = eqx.partition(progress.params, eqx.is_inexact_array)
    params = eqx.combine(jax.tree.map(lambda x: 1.1 * x + 0.05, arrays), static)
    return learner, dataclasses.replace(progress, params=params)


def judged(ensemble, *inputs):
    """What each critic of an ensemble says, by itself."""
    arrays, static = eqx.partition(ensemble.members, eqx.is_array)
    say = eqx.filter_jit(lambda critic: critic(*inputs))
    size = len(jax.tree.leaves(arrays)[0])
    own = [jax.tree.map(lambda x, i=i: x[i], arrays) for i in range(size)]
    return [float(say(eqx.combine(arrays, static))) for arrays in own]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_scores_are_the_smallest_critic_s(name, getkey):
    objective, architecture = OBJECTIVES[name]
    learner, progress = learnt(objective, getkey(), architecture)
    scored = eqx.filter_jit(lambda agent, *inputs: agent.score(*inputs))
    scores = []
    for _ in range(4):
        observation, action, goal = inputs(getkey())
        each = judged(progress.params.critic, observation, action, goal)
        assert len(set(each)) == len(each) > 1
        scores.append(min(each))
        score = scored(learner.agent(progress), observation, action, goal)
        assert score.shape == ()
        np.testing.assert_allclose(score, scores[-1], rtol=1e-5, atol=1e-6)
    assert len(set(scores)) == 4


def test_score_of_survival(getkey):
    """The logarithm of the expected discount, by a sum over the spans."""
    objective = Survival(spans=(1, 2, 5), discount=0.9)
    learner, progress = learnt(objective, getkey())
    observation, action, goal = inputs(getkey())
    logits = np.asarray(progress.params.hazards(observation, action, goal), float)
    one, two, three = 1 / (1 + np.exp(-logits))
    worth = 0.9 * one + 0.9**2 * (1 - one) * two + 0.9**5 * (1 - one) * (1 - two) * three
    score = learner.agent(progress).score(observation, action, goal)
    np.testing.assert_allclose(score, np.log(worth), rtol=1e-5, atol=1e-6)


def test_cloning_scores_nothing(getkey):
    learner, progress = learnt(GCBC(), getkey())
    agent = learner.agent(progress)
    assert agent.score is None
    observation, _, goal = inputs(getkey())
    mode = progress.params.actor(observation, goal).mode()
    assert np.array_equal(Greedy()(agent, observation, goal, key=getkey()), mode)


def test_goals_with_actions_leave_nothing_to_score(getkey):
    shared = MLPNetworks(depth=1, width=8, dim=4, energy=MRN(), shared=True)
    objective = Contrastive(Backward(), future_actions=True)
    learner, progress = learnt(objective, getkey(), shared)
    observation, _, goal = inputs(getkey())
    with pytest.raises(ValueError, match=r"cannot be scored.*use Stochastic\(\) or Greedy\(\)"):
        BestOf()(learner.agent(progress), observation, goal, key=getkey())


def test_the_agent_of_a_learner_acts_best_by_its_critic(getkey):
    """Compiled, with the agent as an argument, as a source has it."""
    learner, progress = learnt(TD3(), getkey())
    agent, key = learner.agent(progress), getkey()
    observation, _, goal = inputs(getkey())
    actions = [
        jnp.clip(Stochastic()(agent, observation, goal, key=k), -1, 1) for k in jr.split(key, 8)
    ]
    critic = progress.params.critic
    scores = [min(judged(critic, observation, action, goal)) for action in actions]
    best = eqx.filter_jit(BestOf(8))(agent, observation, goal, key=key)
    np.testing.assert_allclose(best, actions[int(np.argmax(scores))], rtol=1e-5, atol=1e-6)
