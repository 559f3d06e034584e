from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from walk import Walk

from architectures import Gaussian
from crlx import AbstractActor, Agent, BatchEnv, Exploration, Online
from crlx.envs.wrappers import training


class Steady(AbstractActor):
    """Mode 0.01, with little noise."""

    def __call__(self, observation, goal):
        del goal
        return Gaussian(jnp.full_like(observation, 0.01), jnp.full_like(observation, -7.0))


def pushes(exploration, envs, steps, key):
    """What is added to two actions of each environment, `[steps, envs, act]`."""

    def step(push, key):
        push = exploration.next_push(push, key=key)
        return push, push

    return np.asarray(jax.lax.scan(step, jnp.zeros((envs, 2)), jr.split(key, steps))[1])


@given(st.floats(0, 1), st.integers(1, 50))
def test_a_share_of_the_environments_acts_greedily(greedy, envs):
    acts = np.asarray(Exploration(greedy).acts_greedily(envs))
    assert abs(acts.sum() - greedy * envs) <= 0.5
    assert np.all(np.diff(acts.astype(int)) <= 0)


def test_pushes_are_uniform_and_last(getkey):
    found = pushes(Exploration(pushed=0.25, hold=20), 80, 4000, getkey())
    pushed = np.any(found != 0, axis=-1)
    # A push is drawn at each step with probability 1/80, and changes or ends with 1/20.
    steady = pushed[200:]
    phases = steady.size / 20
    assert abs(steady.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 * 2 / phases)
    changes = np.any(np.diff(found, axis=0) != 0, axis=-1)[pushed[:-1]]
    assert abs(changes.mean() - 1 / 20) < 5 * np.sqrt(0.05 * 0.95 / changes.size)
    drawn = found[1:][np.any(np.diff(found, axis=0) != 0, axis=-1) & pushed[1:]]
    assert np.all(np.abs(drawn) <= 1)
    counts = np.histogram(drawn.ravel(), bins=10, range=(-1, 1))[0]
    expected = counts.sum() / 10
    assert np.sum((counts - expected) ** 2 / expected) < 27.9  # Chi-square, 9, p = 0.001.
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 5 / np.sqrt(len(drawn))


def test_each_environment_acts_in_its_way(getkey):
    exploration = Exploration(greedy=0.5, pushed=0.5, hold=3)
    env = cast(BatchEnv, training(Walk()))
    source = Online(env, envs=8, capacity=400, unroll=60, warm_up=60, exploration=exploration)
    data, collect = source.init(key=getkey()), eqx.filter_jit(source.collect)
    for _ in range(3):
        data, _ = collect(data, Agent(Steady()), key=getkey())
    rows = source.rows(data)
    actions = np.reshape(rows.take(rows.listed[: rows.count]).action, (8, 180))
    np.testing.assert_allclose(actions[:, -1], np.clip(data.push[:, 0] + 0.01, -1, 1), atol=0.01)
    # By the mode, exactly, unless pushed; samples of the policy differ from it and each other.
    modes, samples = np.split(actions, 2)
    calm = np.isclose(modes, 0.01, rtol=1e-6, atol=0)
    assert 0.25 < calm.mean() < 0.75
    inside = samples[np.abs(samples) < 1]
    assert len(np.unique(inside)) == len(inside) > 0.9 * samples.size
    # A push lasts for several steps, whatever ends meanwhile: 2/3 of them go on.
    lasts = np.diff(modes, axis=1)[~calm[:, :-1]] == 0
    assert abs(lasts.mean() - 2 / 3) < 5 * np.sqrt(2 / 9 / lasts.size)


def test_no_exploration_draws_nothing(getkey):
    assert not pushes(Exploration(), 5, 4, getkey()).any()
    drawn = jax.make_jaxpr(Exploration().next_push)(jnp.zeros((3, 2)), key=getkey())
    assert not drawn.eqns


@pytest.mark.parametrize(
    ("settings", "message"),
    (
        ({"greedy": 1.5}, "`greedy` is a share"),
        ({"pushed": -0.1}, "`pushed` is a share"),
        ({"hold": 0}, "`hold` is at least 1"),
    ),
)
def test_bad_values_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Exploration(**settings)
