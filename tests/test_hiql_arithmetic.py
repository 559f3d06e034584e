"""HIQL's loss, metrics and gradients against formulas in float64, its subgoals, and its policy."""

import math

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
    mixed,
    np_awr,
    np_implicit,
    np_joint,
    np_values,
    numbers,
    transitions,
)
from hypothesis import given
from hypothesis import strategies as st

from crlx import Anywhere, Current, Final, Mixture, Uniform
from crlx.testing import keys, numbered_rows
from objectives import AWR, HIQL, HierarchicalActor, HIQLBatch

TERMS = "value/loss", "low/loss", "high/loss"


def np_normalized_length(x):
    return math.sqrt(x.shape[-1]) * x / np.linalg.norm(x, axis=-1, keepdims=True)


def np_meaning(representation, s, g):
    return np_normalized_length(np_joint(representation.network, s, s[:, :0], g))


def np_states(value, representation, s, g):
    return np_values(value, s, s[:, :0], np_meaning(representation, s, g))


def np_gain(held, before, after, g):
    rise = np_states(held.value, held.representation, after, g)
    return (rise - np_states(held.value, held.representation, before, g)).mean(axis=1)


def renamed(metrics, group):
    return {f"{group}/{name.split('/')[1]}": value for name, value in metrics.items()}


def reference(moving, held, slow, b):
    """Targets are slow values of the representation as it is now."""
    steps = b.transitions
    s, following, goal = steps.observation, steps.next_observation, steps.goal
    value = np_implicit(
        np_states(moving.value, moving.representation, s, goal),
        np_states(slow, held.representation, s, goal),
        np_states(slow, held.representation, following, goal),
        steps.reward,
        steps.mask,
        0.9,
        0.7,
    )
    gain = np_gain(held, s, following, b.subgoal)
    mixed(np.exp(2 * gain) > 3)
    own = np_meaning(held.representation, s, b.subgoal)
    low = np_awr(moving.low, s, own, steps.action, gain, 2.0, 3.0)
    gain = np_gain(held, s, b.target_observation, steps.actor_goal)
    chosen = np_meaning(held.representation, s, b.target)
    high = np_awr(moving.high, s, steps.actor_goal, chosen, gain, 1.5, 2.0)
    high.pop("actor/saturated")  # Subgoals are in no box.
    return value | renamed(low, "low") | renamed(high, "high")


def make_batch():
    subgoal, target, target_observation = numbers(9, 2, 2, 3)
    return HIQLBatch(transitions(), subgoal, target, target_observation)


def make(**fields):
    return HIQL(AWR(2.0, 3.0), AWR(1.5, 2.0), dim=4, discount=0.9, expectile=0.7, **fields)


def test_hiql_equals_double_precision():
    check(make(), SPEC, make_batch(), TERMS, reference)


def test_only_the_value_has_a_target():
    """Slow values are those of states and representations; none is kept of the representation."""
    objective = make(target_rate=1.0)
    params, state = objective.init(Lines(), SPEC, key=jr.key(0))
    other, _ = objective.init(Lines(), SPEC, key=jr.key(1))
    assert jax.tree.structure(state) == jax.tree.structure(params.value)
    moved = objective.advance(other, state)
    for x, y in zip(jax.tree.leaves(moved), jax.tree.leaves(other.value), strict=True):
        np.testing.assert_array_equal(x, y)

    @eqx.filter_jit
    def loss(params, state):
        return objective.loss(params, state, make_batch(), key=jr.key(0))[1]["value/loss"]

    # Exactly no gradient to the target; with values held, some to the representation.
    assert not any(
        np.any(x) for x in jax.tree.leaves(eqx.filter_grad(lambda s: loss(params, s))(state))
    )
    slopes = eqx.filter_grad(lambda p: loss(p, state))(params)
    assert all(np.any(x) for x in jax.tree.leaves((slopes.value, slopes.representation)))
    assert not any(np.any(x) for x in jax.tree.leaves((slopes.low, slopes.high)))
    # The target reads representations as they are now, so those move what is wanted.
    changed = eqx.tree_at(lambda p: p.representation, params, other.representation)

    @eqx.filter_jit
    def wanted(params):
        return objective.loss(params, state, make_batch(), key=jr.key(0))[1]["value/target"]

    assert abs(wanted(changed) - wanted(params)) > 0.01


@pytest.mark.parametrize("dim", (1, 10))
def test_representations_have_the_length_of_their_size(dim):
    params, _ = HIQL(dim=dim).init(Lines(), SPEC, key=jr.key(dim))
    meanings = eqx.filter_jit(jax.vmap(params.representation))(*numbers(0, 3, 2))
    assert meanings.shape == (ROWS, dim)
    np.testing.assert_allclose(np.linalg.norm(meanings, axis=1), math.sqrt(dim), rtol=1e-5)


def test_the_policy_heads_for_its_own_subgoal():
    """The low policy is told the mode of the high one, at the length of representations."""
    objective = make()
    params, state = objective.init(Lines(), SPEC, key=jr.key(0))
    policy = objective.policy(params, state)
    assert isinstance(policy, HierarchicalActor)
    for s, g in zip(*numbers(3, 3, 2), strict=True):
        aim = params.high.mean(jnp.concatenate([s, g]))
        expected = params.low.mean(jnp.concatenate([s, np_normalized_length(aim)]))
        np.testing.assert_allclose(policy(s, g).mode(), expected, rtol=1e-4, atol=1e-5)


GOALS = Mixture((Current(), Uniform(), Final(), Anywhere()), (0.2, 0.3, 0.1, 0.4))


@eqx.filter_jit
def relabelled(objective, rows, key):
    dkey, rkey = jr.split(key)
    index = rows.draw(32, key=dkey)
    return index, rows.last(index), objective.relabel(rows, index, key=rkey)


@given(key=keys(), lengths=st.tuples(st.integers(2, 18), st.integers(2, 18)))
def test_subgoals_by_index(key, lengths):
    """The subgoal is three rows on, or the last row; the target is the same, but never beyond a
    goal that lies ahead in the trajectory."""
    rows = numbered_rows([*lengths, 40 - sum(lengths)])
    index, last, batch = relabelled(HIQL(subgoal_steps=3, high_goals=GOALS), rows, key)
    index, last = np.asarray(index), np.asarray(last)
    row, trajectory = np.asarray(rows.steps.observation)[index].T
    np.testing.assert_array_equal(batch.transitions.observation[:, 0], row)
    goal, home = np.asarray(batch.transitions.actor_goal).T
    ahead = np.minimum(index + 3, last)
    np.testing.assert_array_equal(batch.subgoal, np.stack([ahead, trajectory], axis=1))
    inside = (home == trajectory) & (goal >= index)
    target = np.where(inside, np.minimum(ahead, goal), ahead)
    np.testing.assert_array_equal(batch.target, np.stack([target, trajectory], axis=1))
    np.testing.assert_array_equal(batch.target_observation, batch.target)


def test_all_cases_of_subgoals_occur():
    """The test above would notice nothing, had goals always lain inside or always outside."""
    rows, objective = numbered_rows([20, 5, 15]), HIQL(subgoal_steps=3, high_goals=GOALS)
    found = [relabelled(objective, rows, jr.key(i)) for i in range(12)]
    index, _, batch = jax.tree.map(lambda *x: np.concatenate(x), *found)
    goal, home = np.asarray(batch.transitions.actor_goal).T
    trajectory = np.asarray(batch.transitions.observation)[:, 1]
    mixed(home == trajectory)
    mixed((home == trajectory) & (goal < index))
    mixed((home == trajectory) & (goal > index + 3))
    mixed((home == trajectory) & (goal > index) & (goal < index + 3))
