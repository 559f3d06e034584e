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

SHARES = st.floats(0, 1, width=32)


class Steady(AbstractActor):
    """Mode 0.01, with little noise."""

    def __call__(self, observation, goal):
        del goal
        return Gaussian(jnp.full_like(observation, 0.01), jnp.full_like(observation, -7.0))


def pushes(exploration, envs, steps, key):
    """What is added to two actions of each environment, `[steps, envs, act]`."""

    def step(push, key):
        push = exploration.push(push, key=key)
        return push, push

    return np.asarray(jax.lax.scan(step, jnp.zeros((envs, 2)), jr.split(key, steps))[1])


@given(SHARES, SHARES, st.integers(1, 50))
def test_shares_are_of_different_environments(greedy, rest, envs):
    exploration = Exploration(greedy, (1 - greedy) * rest)
    modes = np.asarray(exploration.acts_greedily(envs))
    moved = np.asarray(exploration.is_pushed(envs))
    assert not np.any(modes & moved)
    assert abs(modes.sum() - exploration.greedy * envs) <= 0.5 + 1e-3
    assert abs(moved.sum() - exploration.pushed * envs) <= 0.5 + 1e-3


def test_pushes_are_uniform_and_last(getkey):
    exploration = Exploration(greedy=0.5, pushed=0.25, hold=20)
    found = pushes(exploration, 80, 4000, getkey())
    assert not found[:, :60].any()
    moved = found[:, 60:]
    new = np.any(np.diff(moved, axis=0) != 0, axis=-1)
    # Five standard errors of a share of 1/20.
    assert abs(new.mean() - 1 / 20) < 5 * np.sqrt(0.05 * 0.95 / new.size)
    drawn = moved[1:][new]
    assert np.all(np.abs(drawn) <= 1)
    counts = np.histogram(drawn.ravel(), bins=10, range=(-1, 1))[0]
    expected = counts.sum() / 10
    assert np.sum((counts - expected) ** 2 / expected) < 27.9  # Chi-square, 9, p = 0.001.
    correlation = np.corrcoef(drawn.T)[0, 1]
    assert abs(correlation) < 5 / np.sqrt(len(drawn))


def test_each_environment_acts_in_its_way(getkey):
    exploration = Exploration(greedy=0.25, pushed=0.5, hold=3)
    env = cast(BatchEnv, training(Walk()))
    source = Online(env, envs=8, capacity=40, unroll=6, warm_up=6, exploration=exploration)
    data, _ = eqx.filter_jit(source.collect)(
        source.init(key=getkey()), Agent(Steady()), key=getkey()
    )
    rows = source.rows(data)
    actions = np.reshape(rows.take(rows.listed[: rows.count]).action, (8, 6))
    np.testing.assert_allclose(actions[:2], 0.01, rtol=1e-6)
    noise = actions[2:4] - 0.01
    assert np.all((noise != 0) & (np.abs(noise) < 0.01))
    # Samples of the policy differ from step to step, and the last push is remembered.
    assert np.all(np.abs(actions[4:] - 0.01) > 0.01)
    np.testing.assert_allclose(actions[4:, -1], data.push[4:, 0] + 0.01, atol=0.01)
    assert not data.push[:4].any()


def test_no_exploration_draws_nothing(getkey):
    assert not pushes(Exploration(), 5, 4, getkey()).any()
    drawn = jax.make_jaxpr(Exploration().push)(jnp.zeros((3, 2)), key=getkey())
    assert not drawn.eqns


@pytest.mark.parametrize(
    ("settings", "message"),
    (
        ({"greedy": 1.5}, "`greedy` is a share"),
        ({"pushed": -0.1}, "`pushed` is a share"),
        ({"greedy": 0.75, "pushed": 0.5}, "use `pushed` 0.25 or less"),
        ({"hold": 0}, "`hold` is at least 1"),
    ),
)
def test_bad_values_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Exploration(**settings)
