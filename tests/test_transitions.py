"""Goals, rewards and masks of transitions, on rows that say who they are."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crlx import (
    Anywhere,
    ClippedGeometric,
    Current,
    Final,
    Geometric,
    Mixture,
    Outcome,
    Uniform,
)
from crlx.testing import chi_square, keys, numbered_rows
from objectives import (
    GCIQL,
    GCIVL,
    GCSL,
    QRL,
    SAC,
    TD3,
    Relabelling,
    Reward,
    SameRow,
    Within,
)

BATCH, TOLERANCE = 32, 2.5
COMMANDED = 1000.0  # Added to the numbers of rows, to tell the goals that were commanded.
OWN = (Uniform(), Final(), Geometric(0.8), ClippedGeometric(0.8), Current())


def with_outcomes(rows, terminated):
    """The same rows, each with a goal that was commanded and some with a termination."""
    goal = rows.steps.observation + COMMANDED
    outcome = Outcome(goal, jnp.asarray(terminated))
    return eqx.tree_at(lambda r: r.steps, rows, dataclasses.replace(rows.steps, extras=outcome))


# Three trajectories of 40 rows in all, so that one program serves them all.
lengths = st.tuples(st.integers(2, 18), st.integers(2, 18))
datasets = lengths.map(lambda two: numbered_rows([*two, 40 - sum(two)]))
terminations = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).random(40) < 0.3
)


@eqx.filter_jit
def relabelled(objective, rows, key):
    dkey, rkey = jr.split(key)
    index = rows.draw(BATCH, key=dkey)
    return index, rows.last(index), objective.relabel(rows, index, key=rkey)


def drawn(objective, rows, key):
    index, last, batch = relabelled(objective, rows, key)
    trajectory = np.asarray(rows.steps.observation)[np.asarray(index), 1]
    return np.asarray(index), np.asarray(last), trajectory, batch


def near(achieved, goal):
    distance = np.linalg.norm(np.float64(achieved) - np.float64(goal), axis=1)
    return distance <= TOLERANCE


@pytest.mark.parametrize("goals", OWN, ids=lambda g: type(g).__name__)
@given(rows=datasets, key=keys(), terminated=terminations)
def test_goals_stay_in_the_trajectory(goals, rows, key, terminated):
    """For every pattern of terminations: goals lie at or after the row, never beyond the end."""
    objective = TD3(relabelling=Relabelling(goals, reward=Reward(Within(TOLERANCE))))
    index, last, trajectory, batch = drawn(objective, with_outcomes(rows, terminated), key)
    goal, home = np.asarray(batch.goal).T
    np.testing.assert_array_equal(home, trajectory)
    assert np.all((index <= goal) & (goal <= last))
    np.testing.assert_array_equal(batch.observation[:, 0], index)
    np.testing.assert_array_equal(batch.action[:, 0], index)
    np.testing.assert_array_equal(batch.next_observation, np.stack([index + 1, trajectory], 1))
    np.testing.assert_array_equal(batch.actor_goal, batch.goal)


REWARDS = [
    Reward(Within(TOLERANCE), cost=cost, absorbing=absorbing)
    for cost in (True, False)
    for absorbing in (True, False)
]


@pytest.mark.parametrize("reward", REWARDS, ids=lambda r: f"{r.cost}-{r.absorbing}")
@given(rows=datasets, key=keys(), terminated=terminations)
def test_rewards_are_computed_from_what_the_action_led_to(reward, rows, key, terminated):
    """From the state after the action and the goal of the batch, whether it was commanded or comes
    from hindsight; masks are 0 at terminations, and at goals if they absorb."""
    objective = SAC(relabelling=Relabelling(Uniform(), fraction=0.5, reward=reward))
    rows = with_outcomes(rows, terminated)
    # Commands that some rows fulfil.
    close = rows.steps.observation + jnp.array([[3.0, 0.0]])
    rows = eqx.tree_at(lambda r: r.steps.extras.goal, rows, close)
    index, _, _, batch = drawn(objective, rows, key)
    reached = near(np.asarray(rows.steps.achieved)[index + 1], batch.goal)
    ended = terminated[index]
    np.testing.assert_array_equal(batch.reward, reached - 1.0 if reward.cost else reached)
    going = ~ended & ~reached if reward.absorbing else ~ended
    np.testing.assert_array_equal(batch.mask, going)


def test_what_follows_counts_and_not_the_state_before():
    """Goals two rows on: within 1.5 of the next state, and beyond it from the state itself."""
    rows, index = numbered_rows([12]), jnp.arange(4, dtype=jnp.int32)
    for tolerance, reached in ((1.5, 1.0), (0.5, 0.0), (2.5, 1.0)):
        reward = Reward(Within(tolerance), cost=False)
        goal = rows.take(index + 2).achieved
        found, mask = reward(index, index + 2, rows.take(index + 1).achieved, goal)
        np.testing.assert_array_equal(found, reached)
        np.testing.assert_array_equal(mask, 1 - reached)
    later = Relabelling(Final(), reward=Reward(Within(0.5), cost=False))
    batch = later(
        numbered_rows([5]), jnp.arange(4, dtype=jnp.int32), None, discount=0.9, key=jr.key(0)
    )
    # The goal is row 3, which row 2 leads to and row 3 leaves.
    np.testing.assert_array_equal(batch.reward, [0, 0, 1, 0])


@given(rows=datasets, key=keys(), terminated=terminations)
def test_same_row_is_equality_of_numbers(rows, key, terminated):
    """Not of states: here all states are alike, and only the row itself counts."""
    alike = eqx.tree_at(lambda r: r.steps.achieved, rows, 0 * rows.steps.achieved)
    mixture = Mixture((Current(), ClippedGeometric(), Anywhere()), (0.3, 0.4, 0.3))
    relabelling = Relabelling(mixture, reward=Reward(SameRow()))
    results = [
        drawn(GCIVL(relabelling=relabelling), with_outcomes(data, terminated), key)
        for data in (rows, alike)
    ]
    index, _, _, batch = results[0]
    same = np.asarray(batch.goal)[:, 0] == index
    for _, _, _, found in results:
        np.testing.assert_array_equal(found.reward, same - 1.0)
        np.testing.assert_array_equal(found.mask, ~same & ~terminated[index])


@pytest.mark.parametrize("fraction", (0.0, 0.3, 0.8, 1.0))
def test_the_share_of_goals_from_hindsight(fraction):
    """Row by row, whatever else is drawn; none at 0 and all at 1. Commands are those of the row."""
    rows = with_outcomes(numbered_rows([20, 5, 15]), np.zeros(40, bool))
    relabelling = Relabelling(Uniform(), fraction, Reward(Within(TOLERANCE)))
    kept, objective = [], TD3(relabelling=relabelling)
    for seed in range(60):
        index, last, _, batch = drawn(objective, rows, jr.key(seed))
        commanded = np.asarray(batch.goal)[:, 0] >= COMMANDED
        np.testing.assert_array_equal(
            np.asarray(batch.goal)[commanded, 0], COMMANDED + index[commanded]
        )
        later = np.asarray(batch.goal)[~commanded, 0]
        assert np.all(later >= np.minimum(index + 1, last)[~commanded])
        kept.append(commanded)
    kept = np.stack(kept)
    if fraction in (0.0, 1.0):
        assert np.all(kept == (fraction == 0.0))
    else:
        counts = np.bincount(kept.ravel(), minlength=2)
        assert chi_square(counts, np.array([fraction, 1 - fraction])) > 1e-3
        by_row = np.bincount(kept.sum(axis=1), minlength=BATCH + 1)
        assert np.count_nonzero(by_row) > 5  # Neither all rows of a batch at once nor a quota.


def test_actor_goals_are_their_own():
    """Drawn apart from the value's, and never commanded; those of the value if there are none."""
    rows = numbered_rows([20, 5, 15])
    for goals in (Uniform(), None):
        batches = [drawn(GCIQL(actor_goals=goals), rows, jr.key(i)) for i in range(5)]
        values, actors = (
            np.concatenate([np.asarray(getattr(b, name)) for *_, b in batches])
            for name in ("goal", "actor_goal")
        )
        assert np.all(values == actors) == (goals is None)
        if goals is not None:
            homes = np.concatenate([home for _, _, home, _ in batches])
            np.testing.assert_array_equal(actors[:, 1], homes)
            assert np.any(values[:, 1] != homes)
            # Independent: given by the value's goal, the actor's is no more likely.
            inside = values[:, 1] == homes
            assert np.mean(values[inside, 0] == actors[inside, 0]) < 0.4


@given(rows=datasets, key=keys())
def test_qrl_and_gcsl_gather_by_index(rows, key):
    index, last, trajectory, batch = drawn(QRL(), rows, key)
    np.testing.assert_array_equal(batch.observation, np.stack([index, trajectory], 1))
    np.testing.assert_array_equal(batch.next_observation, np.stack([index + 1, trajectory], 1))
    assert np.all(np.isin(batch.goal[:, 0], index))
    goal, home = np.asarray(batch.actor_goal).T
    np.testing.assert_array_equal(home, trajectory)
    assert np.all((np.minimum(index + 1, last) <= goal) & (goal <= last))
    index, last, trajectory, batch = drawn(GCSL(), rows, key)
    goal, home = np.asarray(batch.rows.goal).T
    np.testing.assert_array_equal(home, trajectory)
    np.testing.assert_array_equal(batch.later, last - index)
    # Two distinct times, wherever the weight is not zero.
    assert np.all((index < goal) | (batch.later == 0))
    assert np.all(goal <= last)


def test_rows_without_commands_are_refused():
    rows, index = numbered_rows([5]), jnp.arange(2, dtype=jnp.int32)
    relabelling = Relabelling(fraction=0.5, reward=Reward(Within(1.0)))
    with pytest.raises(ValueError, match="do not hold the goals that were commanded"):
        relabelling(rows, index, None, discount=0.9, key=jr.key(0))
    with pytest.raises(ValueError, match="no row of the data"):
        Relabelling(fraction=0.5)
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="is a share"):
            Relabelling(fraction=fraction)
    for tolerance in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            Within(tolerance)
