"""What a newcomer gets wrong is refused early, with what to write in its place."""

import dataclasses
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import optax
import pytest

from architectures import MLPNetworks, ResidualNetworks
from crlx import (
    AbstractEnergy,
    AbstractHindsight,
    AbstractObjective,
    Geometric,
    Learner,
    OfflineRows,
    Online,
    Spec,
    Step,
)
from crlx.testing import check_objective, random_rows
from objectives import GCBC

SPEC, MLP = Spec(4, 2, 3), MLPNetworks(depth=1, width=8, dim=8)


@pytest.fixture
def untyped():
    """As a user's program runs: this suite's type checks would be first to complain."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def rows():
    return random_rows(SPEC, [40, 100], key=jr.key(0))


class Params(eqx.Module):
    weight: jax.Array | float


class Fit(AbstractObjective):
    """Fits one number to the states, with a mistake."""

    mistake: str = ""
    goals: AbstractHindsight = eqx.field(default_factory=Geometric)

    def init(self, architecture, spec, *, key):
        del architecture, spec
        weight = 0.5 if self.mistake == "number" else jr.normal(key)
        return Params(weight) if self.mistake == "init" else (Params(weight), 0)

    def relabel(self, rows, index, *, key):
        del key
        return rows.take(index).observation

    def loss(self, params, state, batch, *, key):
        del state, key
        value = jnp.mean((batch - params.weight) ** 2)
        return value if self.mistake == "loss" else (value, {})

    def advance(self, params, state):
        del params
        return state + 1 if self.mistake == "counter" else state

    def policy(self, params, state):
        raise NotImplementedError


def fit(objective, rows):
    learner = Learner(objective, optax.adam(1e-3))
    start = learner.init(MLP, SPEC, key=jr.key(0))
    return learner.fit(start, rows, updates=2, batch_size=4, key=jr.key(0))


def test_without_a_mistake_it_fits(rows):
    progress, _ = fit(Fit(), rows)
    assert int(progress.step) == 2


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("init", "`init` of Fit returns Params; return `params, state`"),
        ("loss", "`loss` of Fit returns .*; return `value, metrics`"),
        ("counter", r"changes Python's number 0 to 1.*such as `jnp.zeros"),
    ],
)
def test_what_methods_must_return(mistake, message, rows):
    with pytest.raises(ValueError, match=message):
        fit(Fit(mistake), rows)


def test_parameters_are_arrays(rows):
    with pytest.raises(AssertionError, match=r"`weight` of `params` is the number 0\.5"):
        check_objective(Fit("number"), MLP, SPEC, rows, key=jr.key(0))


def test_parts_are_instances():
    with pytest.raises(ValueError, match=r"`goals` is the class Geometric; .* Geometric\(\)"):
        Fit(goals=Geometric)


@pytest.mark.parametrize(
    ("spec", "name"),
    [(Spec(5, 2, 3), "observation"), (Spec(4, 1, 3), "action"), (Spec(4, 2, 2), "achieved")],
)
def test_sizes_are_those_of_the_rows(spec, name, rows, untyped):
    with pytest.raises(AssertionError, match=f"`{name}` of the rows has"):
        check_objective(GCBC(), MLP, spec, rows, key=jr.key(0))
    learner = Learner(GCBC(), optax.adam(1e-3))
    start = learner.init(MLP, spec, key=jr.key(0))
    with pytest.raises(ValueError, match="`Spec`"):
        learner.fit(start, rows, updates=1, batch_size=4, key=jr.key(0))


def test_networks_are_built_for_a_spec(untyped):
    with pytest.raises(
        ValueError, match=r"got tuple. The one of a task is its `spec.networks\(\)`"
    ):
        Learner(GCBC(), optax.adam(1e-3)).init(MLP, (4, 2, 3), key=jr.key(0))
    with pytest.raises(ValueError, match="`architecture` is the class MLPNetworks"):
        Learner(GCBC(), optax.adam(1e-3)).init(MLPNetworks, SPEC, key=jr.key(0))
    with pytest.raises(ValueError, match=r"`objective` is the class GCBC; .* GCBC\(\)"):
        Learner(GCBC, optax.adam(1e-3))


@pytest.mark.parametrize("name", ("observation", "action", "achieved"))
@pytest.mark.parametrize(
    "spoil", (lambda x: x[:, 0], lambda x: x.astype(jnp.int32)), ids=("flat", "integer")
)
def test_rows_are_floating_matrices(name, spoil, untyped):
    steps = Step(jnp.ones((4, 2)), jnp.ones((4, 1)), jnp.ones((4, 1)))
    spoilt = dataclasses.replace(steps, **{name: spoil(getattr(steps, name))})
    with pytest.raises(ValueError, match=rf"`{name}` is .*; give floats of `\[rows, size\]`"):
        OfflineRows(spoilt, np.arange(4) == 3)


def test_terminals_are_a_vector(untyped):
    steps = Step(jnp.ones((4, 2)), jnp.ones((4, 1)), jnp.ones((4, 1)))
    with pytest.raises(ValueError, match=r"`terminals` has the shape \[4, 1\]; give `\[rows\]`"):
        OfflineRows(steps, (np.arange(4) == 3)[:, None])


def test_an_array_of_numpy_that_is_passed_twice_is_stored_once(untyped):
    same = np.ones((4, 2))
    rows = OfflineRows(Step(same, np.ones((4, 1)), same), np.arange(4) == 3)
    assert rows.steps.observation is rows.steps.achieved


class Vector(AbstractEnergy):
    def __call__(self, x, y):
        return -((x - y) ** 2)


@pytest.mark.parametrize("architecture", (MLPNetworks, ResidualNetworks))
def test_energies_are_one_number(architecture, untyped):
    with pytest.raises(ValueError, match=r"Vector makes .*shape=\(8,\).* of two embeddings of 8"):
        architecture(dim=8, energy=Vector())
    with pytest.raises(ValueError, match="`energy` is the class Vector"):
        architecture(dim=8, energy=Vector)


class Single:
    """One environment, where a batch is asked for."""

    spec = None

    def __init__(self, random):
        self.random = random

    def reset(self, rng):
        done = jr.normal(jr.split(rng)[0]) if self.random else jnp.zeros(())
        return types.SimpleNamespace(obs=jnp.zeros(3), done=done)

    def step(self, state, action):
        return state


@pytest.mark.parametrize("random", (True, False))
def test_online_training_asks_for_a_batch(random, untyped):
    with pytest.raises((TypeError, ValueError)) as caught:
        Online(Single(random), envs=4).init(key=jr.key(0))
    told = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any("crlx.envs.wrappers.training" in text for text in told)
