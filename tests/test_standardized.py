import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float
from lengths import at_length

from architectures import MLPNetworks
from crlx import (
    AbstractCritic,
    AbstractObjective,
    AbstractStacked,
    Affine,
    Checkpoints,
    Learner,
    Moments,
    RunningUnits,
    Spec,
    encode,
    load_policy,
    with_moments,
)
from crlx.testing import check_objective, check_term_gradients, random_rows
from objectives import GCBC, TD3, Contrastive, Standardized

SPEC, COLUMNS = Spec(3, 2, 2), (2, 0)
MLP = MLPNetworks(depth=1, width=8, dim=4)
# Ensembles, whose members each read the statistics; and which term trains which fields.
OBJECTIVES = {
    "contrastive": (
        Contrastive(ensemble=2),
        {"critic/loss": {"critic"}, "actor/loss": {"actor"}},
    ),
    "cloning": (GCBC(), {"actor/loss": {"actor"}}),
}


class FollowParams(eqx.Module):
    critic: AbstractCritic
    actor: eqx.Module


class Follow(AbstractObjective):
    """A critic that keeps ahead of its own target: networks in the state read statistics too."""

    rate: float = 0.1

    def init(self, architecture, spec, *, key):
        ckey, akey, tkey = jr.split(key, 3)
        params = FollowParams(
            architecture.critic(spec, key=ckey), architecture.actor(spec, key=akey)
        )
        return params, architecture.critic(spec, key=tkey)

    def relabel(self, rows, index, *, key):
        del key
        return rows.take(index)

    def loss(self, params, state, batch, *, key):
        del key
        values = [
            jax.vmap(c)(batch.observation, batch.action, batch.achieved)
            for c in (params.critic, state)
        ]
        error = jnp.mean((values[0] - values[1] - 1) ** 2)
        return error, {"critic/loss": error}

    def advance(self, params, state):
        old, static = eqx.partition(state, eqx.is_inexact_array)
        new = eqx.filter(params.critic, eqx.is_inexact_array)
        return eqx.combine(optax.incremental_update(new, old, self.rate), static)

    def policy(self, params, state):
        del state
        return params.actor


@pytest.fixture(scope="module")
def rows():
    return random_rows(SPEC, [40, 2, 60, 7, 91], key=jr.key(0))


def observations(seed=1):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(50, 3)) * [0.1, 2.0, 30.0] + [5.0, -0.5, 100.0]
    return jnp.asarray(rows, jnp.float32)


def known(rows, columns=None):
    """The same units as fixed numbers, in double precision."""
    mean, std = np.float64(rows).mean(0), np.sqrt(np.float64(rows).var(0))
    mean, std = (x if columns is None else x[list(columns)] for x in (mean, std))
    return Affine(tuple(mean.tolist()), tuple(std.tolist()))


# As if many rows had been seen, of which the weight of the start takes nothing.
def moments(rows):
    zero = jnp.zeros(rows.shape[1])
    empty = Moments(jnp.zeros(()), zero, zero, (jnp.zeros(()), zero, zero))
    return empty.merge(rows)


def with_statistics(state, rows):
    return eqx.tree_at(lambda s: s.moments, state, moments(rows))


def assert_same(a, b):
    a, b = (jax.tree.leaves(eqx.filter(x, eqx.is_array)) for x in (a, b))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", at_length(OBJECTIVES, {"cloning"}))
def test_it_keeps_the_contract(name, rows, getkey):
    objective, terms = OBJECTIVES[name]
    running = Standardized(objective, COLUMNS)
    check_objective(running, MLP, SPEC, rows, key=getkey())
    params, state = running.init(MLP, SPEC, key=getkey())
    state = running.observe(state, observations())
    batch = running.relabel(rows, rows.draw(8, key=getkey()), key=getkey())
    check_term_gradients(running, params, state, batch, terms=terms, key=getkey())


@pytest.mark.parametrize("objective", [*(o for o, _ in OBJECTIVES.values()), Follow()])
def test_it_equals_the_objective_on_fixed_units(objective, rows, getkey):
    seen = observations()
    fixed = Spec(3, 2, 2, known(seen), known(seen, COLUMNS))
    running = Standardized(objective, COLUMNS)
    key, lkey = getkey(), getkey()
    params, state = running.init(MLP, SPEC, key=key)
    state = with_statistics(state, seen)
    fixed_params, fixed_state = objective.init(MLP, fixed, key=key)
    assert_same(params, fixed_params)

    batch = running.relabel(rows, rows.draw(8, key=getkey()), key=getkey())
    for part in ("observation", "achieved", "goal", "actor_goal"):
        # Into the range of the statistics, to be of order one in the end.
        if hasattr(batch, part):
            units = known(seen, None if part == "observation" else COLUMNS)
            value = getattr(batch, part) * jnp.asarray(units.scale)[None]
            value = value + jnp.asarray(units.shift)[None]
            batch = eqx.tree_at(lambda b, part=part: getattr(b, part), batch, value)

    @eqx.filter_jit
    def evaluate(objective, params, state):
        def loss(params):
            return objective.loss(params, state, batch, key=lkey)

        return eqx.filter_value_and_grad(loss, has_aux=True)(params)

    results = evaluate(running, params, state), evaluate(objective, fixed_params, fixed_state)
    assert_same(*results)
    acted = [
        actor(batch.observation[0], batch.goal[0] if hasattr(batch, "goal") else jnp.ones(2)).mode()
        for actor in (
            running.policy(params, state),
            objective.policy(fixed_params, fixed_state),
        )
    ]
    assert_same(*acted)


def test_updates_leave_the_statistics_alone(rows, getkey):
    learner = Learner(Standardized(Follow(), COLUMNS), optax.adam(1e-2))
    start = learner.init(MLP, SPEC, key=getkey())
    state = learner.objective.observe(start.state, observations())
    start = eqx.tree_at(lambda p: p.state, start, state)
    after, _ = eqx.filter_jit(learner.fit)(start, rows, updates=3, batch_size=8, key=getkey())
    assert eqx.tree_equal(after.state.moments, state.moments)
    # Neither parameters nor the optimizer hold any, and the inner rule is followed.
    plain = Learner(Follow(), optax.adam(1e-2)).init(MLP, SPEC, key=getkey())
    for a, b in ((after.params, plain.params), (after.opt_state, plain.opt_state)):
        assert [x.shape for x in jax.tree.leaves(eqx.filter(a, eqx.is_array))] == [
            x.shape for x in jax.tree.leaves(eqx.filter(b, eqx.is_array))
        ]
    targets = [p.state.inner.goal.output.weight for p in (start, after)]
    assert np.all(targets[0] != targets[1])


def test_the_policy_acts_with_the_statistics_of_the_state(getkey):
    objective = Standardized(GCBC(), COLUMNS)
    params, state = objective.init(MLP, SPEC, key=getkey())
    # A new agent has seen nothing, and leaves its inputs as they are.
    plain, _ = GCBC().init(MLP, SPEC, key=jr.key(2026))
    assert eqx.tree_equal(state.moments, Moments.start(3))
    here, there = jnp.array([5.1, 0.5, 80.0]), jnp.array([90.0, 4.9])
    action = objective.policy(params, state)(here, there).mode()
    np.testing.assert_allclose(action, plain.actor(here, there).mode(), rtol=1e-4)

    seen = observations()
    for part in (seen[:20], seen[20:]):
        state = objective.observe(state, part)
    moved = objective.policy(params, state)(here, there).mode()
    units, goal_units = known(seen), known(seen, COLUMNS)
    expected = plain.actor(units(here), goal_units(there)).mode()
    np.testing.assert_allclose(moved, expected, rtol=5e-2)  # The start weighs a little.
    assert np.max(np.abs(moved - action)) > 0.1

    with pytest.raises(ValueError, match=r"objective\.policy\(params, state\)"):
        params.actor(here, there)


def test_goals_use_the_statistics_of_the_columns_that_they_copy():
    seen = observations()
    state, goal = (RunningUnits(c, moments(seen)) for c in (None, COLUMNS))
    at = seen[7]
    np.testing.assert_allclose(goal(at[jnp.array(COLUMNS)]), state(at)[jnp.array(COLUMNS)])
    np.testing.assert_allclose(state(at), known(seen)(at), rtol=1e-3)


def test_no_gradient_reaches_the_statistics():
    def total(moments, x):
        return jnp.sum(RunningUnits(None, moments)(x))

    statistics = moments(observations())
    gradient, slope = jax.grad(total, (0, 1))(statistics, jnp.ones(3))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(slope, 1 / np.sqrt(statistics.variance), rtol=1e-5)


def test_a_coordinate_that_never_changes_is_not_divided_by_zero():
    seen = jnp.ones((5, 3))
    assert np.all(np.abs(RunningUnits(None, moments(seen))(seen[0])) < 1e-3)


class Layers(AbstractStacked):
    weight: Float[Array, "*stack layers"]
    units: RunningUnits


def test_every_part_of_nested_stacks_gets_its_copy():
    layers = eqx.filter_vmap(lambda x: Layers(x, RunningUnits()))(jnp.ones((4, 5)))
    outer = Layers(jnp.ones(4), layers)
    seen = moments(observations())
    assert with_moments(layers, seen).units.moments.mean.shape == (4, 3)
    inner = with_moments(outer, seen).units
    assert inner.units.moments.mean.shape == (4, 5, 3)
    assert inner.units.moments.count.shape == (4, 5)
    assert np.all(inner.units.moments.mean == seen.mean[None, None])


def test_a_policy_is_loaded_with_its_statistics(tmp_path, getkey):
    objective = Standardized(GCBC(), COLUMNS)
    params, state = objective.init(MLP, SPEC, key=getkey())
    state = objective.observe(state, observations())
    parts = {"objective": objective, "architecture": MLP, "spec": SPEC}
    config = {name: encode(part) for name, part in parts.items()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_policy(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"params": params, "state": state}, {})
    checkpoints.close()
    actor = objective.policy(params, state)
    here, there = observations()[0], observations()[1, 1:]
    np.testing.assert_allclose(
        load_policy(tmp_path).act(here, there),
        jnp.clip(actor(here, there).mode(), -1, 1),
        rtol=1e-5,
    )


def test_units_and_statistics_exclude_each_other(getkey):
    units = Affine((1.0, 2.0), (3.0, 4.0))
    for spec in (Spec(2, 2, 2, units), Spec(2, 2, 2, goal_units=units)):
        with pytest.raises(ValueError, match="without `observation_units` and `goal_units`"):
            Standardized(GCBC()).init(MLP, spec, key=getkey())


@pytest.mark.parametrize(
    "columns, message",
    [
        (None, "3 coordinates of observations for a vector of 2"),
        ((0,), "give `columns`"),
        ((0, 3), "count from 0"),
        ((-1, 0), "count from 0"),
    ],
)
def test_impossible_columns_are_refused(columns, message, getkey):
    with pytest.raises(ValueError, match=message):
        Standardized(GCBC(), columns).init(MLP, SPEC, key=getkey())


def test_paces_are_those_of_the_objective():
    """Or else a delayed policy would move at every update."""
    networks = MLPNetworks(depth=1, width=4, dim=4)
    for inner, fields in ((TD3(), {"actor", "actor_term"}), (GCBC(), set())):
        learner = Learner(Standardized(inner), optax.adam(1e-3))
        progress = eqx.filter_jit(learner.init)(networks, Spec(3, 2, 3), key=jr.key(0))
        assert learner.objective.pace(progress.state).keys() == fields
        kept = getattr(progress.opt_state, "inner_states", {}).keys()
        assert kept == (fields | {""} if fields else set())
