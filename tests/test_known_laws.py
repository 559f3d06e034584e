"""Distances, times and imitations learnt on small chains, whose answers can be counted."""

import jax.numpy as jnp
import numpy as np
import pytest
from tabular import Tables, train, uniform, walk

from crlx import Spec
from objectives import AWR, BC, GCSL, QRL, Survival

STATES, ACTIONS = 5, 2
SPEC, TABLES = Spec(STATES, ACTIONS, STATES), Tables(STATES, ACTIONS)
RIGHT = np.array([0.9, 0.6, 0.5, 0.2, 0.4])  # The chance of the second action, by state.
SPANS = (1, 2, 4, 8)


def choose(rng, state):
    return (rng.random(len(state)) < RIGHT[state]).astype(int)


def evenly(rng, state):
    return rng.integers(2, size=len(state))


def line(rng, state, action):
    """Left or right on a line, but one time in ten the other way."""
    slip = rng.random(len(state)) < 0.1
    return np.clip(state + np.where(slip, -1, 1) * (2 * action - 1), 0, STATES - 1)


def ring(rng, state, action):
    """One step on around a ring, or two from the first state by the first action."""
    del rng
    return (state + np.where((state == 0) & (action == 0), 2, 1)) % STATES


def hops():
    """Fewest steps around the ring."""
    found = np.full((STATES, STATES), 99)
    np.fill_diagonal(found, 0)
    for _ in range(STATES):
        for s in range(STATES):
            for following in {(s + 1) % STATES} | ({2} if s == 0 else set()):
                found[s] = np.minimum(found[s], 1 + found[following])
    return found


@pytest.fixture(scope="module")
def data():
    return walk(line, STATES, 60, 21, choose)


@pytest.fixture(scope="module")
def rows(data):
    return data.rows(STATES, ACTIONS)


def test_qrl_learns_the_fewest_steps(getkey):
    """From above no more than the constraint allows for each step, by the triangle inequality, and
    close to it; there is no way back but around."""
    rows = walk(ring, STATES, 20, 41, evenly).rows(STATES, ACTIONS)
    objective = QRL(AWR(), epsilon=0.0025, sharpness=1.0, offset=10.0)
    params = train(objective, TABLES, SPEC, rows, updates=2500, rate=0.03, key=getkey())
    states = jnp.eye(STATES)
    distance = -np.asarray(params.critic.pairs(states, states[:, :0], states))
    exact = hops()
    assert exact[0, 3] == 2
    assert exact[3, 0] == 2
    assert exact[2, 0] == 3
    np.testing.assert_array_equal(np.diag(distance), 0)
    assert np.all(distance <= exact * 1.1 + 0.05), distance
    assert np.all(distance >= exact * 0.95 - 0.05), distance


def conditional_mean(data, chances):
    """Of the data's actions, by state and by the state of the goal."""
    s, action, _ = data.steps
    row, goal_row = np.indices(chances.shape)
    joint = np.zeros((STATES, STATES, ACTIONS))
    np.add.at(joint, (s[row], s[goal_row], action[row]), chances)
    return joint / joint.sum(axis=2, keepdims=True)


def test_gcsl_averages_over_all_pairs(data, rows, getkey):
    """Each pair of distinct times of a trajectory counts the same."""
    params = train(GCSL(), TABLES, SPEC, rows, updates=3000, key=getkey())
    pairs = data.goal_rows(lambda n: np.r_[0.0, np.ones(n)], 0.0)
    exact = conditional_mean(data, pairs)
    np.testing.assert_allclose(params.actor.table.values, exact, atol=0.03)
    # Later goals for each row alike is another law.
    other = conditional_mean(data, data.goal_rows(uniform, 0.0))
    assert np.max(np.abs(exact - other)) > 0.05


def test_bc_averages_over_the_rows_of_a_state(data, rows, getkey):
    params = train(BC(), TABLES, SPEC, rows, updates=1000, key=getkey())
    s, action, _ = data.steps
    right = np.array([action[s == state].mean() for state in range(STATES)])
    learnt = params.actor.inner.table.values
    np.testing.assert_allclose(learnt, np.stack([1 - right, right], axis=1), atol=0.03)


def test_survival_counts_events_among_those_at_risk(data, rows, getkey):
    """A goal that comes is at risk until it does, one that does not in every span that ends before
    the trajectory."""
    params = train(Survival(AWR(), spans=SPANS), TABLES, SPEC, rows, updates=4000, key=getkey())
    s, action, _ = data.steps
    length = data.states.shape[1] - 1
    come, anywhere = data.goal_rows(uniform, 0.0), data.goal_rows(uniform, 1.0)
    row, goal_row = np.indices(come.shape)
    cell = s[row], action[row], s[goal_row]
    ahead, left = goal_row - row, length - 1 - row % length
    events, at_risk = np.zeros((2, STATES, ACTIONS, STATES, len(SPANS)))
    for span, (first, end) in enumerate(zip(SPANS, (*SPANS[1:], np.inf), strict=True)):
        np.add.at(events[..., span], cell, come * ((ahead >= first) & (ahead < end)))
        np.add.at(at_risk[..., span], cell, come * (ahead >= first) + anywhere * (end - 1 <= left))
    exact = events / at_risk
    learnt = 1 / (1 + np.exp(-np.asarray(params.hazards.network.values, np.float64)))
    # Cells are indexed by state, goal and action in the network.
    learnt = learnt.transpose(0, 2, 1, 3)
    np.testing.assert_allclose(learnt, exact, atol=0.03)
    # In the last span, which has no end, nothing is censored.
    np.testing.assert_array_equal(exact[..., -1], 1)
    assert np.ptp(exact[..., :-1]) > 0.4
