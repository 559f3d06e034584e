import collections
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from hypothesis import given
from jaxtyping import Array, Float
from spheres import SPEC, SPHERES, Bystander, Positive, assert_unit_rows, np_unit, spheres

from architectures import HyperDense, HypersphericalNetworks, unit
from crlx import AbstractObjective, Ensemble, Learner, project
from crlx.testing import batches, random_rows
from objectives import GCBC

fit = eqx.filter_jit(Learner.fit)

ARCHITECTURE = HypersphericalNetworks(depth=4, width=8, dim=4)


class Scores(AbstractObjective):
    """Brings the scores of an ensemble of critics to zero."""

    def init(self, architecture, spec, *, key):
        return Ensemble(functools.partial(architecture.critic, spec), 2, key=key), None

    def relabel(self, rows, index, *, key):
        del key
        return rows.take(index)

    def loss(self, params, state, batch, *, key):
        del state, key
        return jnp.mean(params.pairs(batch.observation, batch.action, batch.achieved) ** 2), {}

    def advance(self, params, state):
        return None

    def policy(self, params, state):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("objective", "optimizer", "shapes"),
    [
        (GCBC(), optax.sgd(0.05, momentum=0.9), {(2, 32, 8): 1, (2, 8, 32): 1}),
        # Of two towers, in two members, of two layers.
        (Scores(), optax.adam(0.05), {(2, 2, 32, 8): 2, (2, 2, 8, 32): 2}),
    ],
    ids=["actor", "ensemble"],
)
def test_networks_stay_on_the_sphere(objective, optimizer, shapes, getkey):
    learner, rows = Learner(objective, optimizer), random_rows(SPEC, [40, 25], key=getkey())
    start = eqx.filter_jit(learner.init)(ARCHITECTURE, SPEC, key=getkey())
    after, _ = fit(learner, start, rows, updates=5, batch_size=8, key=getkey())
    found = collections.Counter(weight.shape for weight in spheres(after.params))
    assert shapes.items() <= found.items()
    pairs = zip(spheres(after.params), spheres(start.params), strict=True)
    assert min(np.max(np.abs(new - old)) for new, old in pairs) > 1e-4
    for progress in (start, after):
        assert_unit_rows(progress.params)


class Part(eqx.Module):
    """A projected layer beside arrays that share its names and its shape."""

    dense: HyperDense
    linear: eqx.nn.Linear
    weight: Float[Array, "*stack out in"]
    steps: tuple[int, str] = (3, "three")


def test_modules_are_found_by_type_alone(getkey):
    dense, linear = HyperDense(3, 4, key=getkey()), eqx.nn.Linear(3, 4, key=getkey())
    raw, same, shared = (jr.normal(getkey(), SPHERES) for _ in range(3))
    tree = {
        "weight": jr.normal(getkey(), (4, 3)),
        "dense": Bystander(jr.normal(getkey(), (4, 3))),
        "nested": [
            Part(
                eqx.tree_at(lambda m: m.weight, dense, raw),
                eqx.tree_at(lambda m: m.weight, linear, same),
                shared,
            ),
            None,
            jnp.arange(3),
        ],
        "positive": (Positive(jr.normal(getkey(), (2, 5))), Positive(jnp.asarray([-0.0, -1.0]))),
    }
    after = project(tree)
    assert jax.tree.structure(after) == jax.tree.structure(tree)
    assert_unit_rows(after)
    (weight,) = spheres(after)
    np.testing.assert_allclose(weight, np_unit(np.float64(raw)), rtol=0, atol=1e-6)
    for new, old in zip(after["positive"], tree["positive"], strict=True):
        np.testing.assert_array_equal(new.weight, np.maximum(old.weight, 0))
        assert np.any(old.weight < 0)

    def others(tree):
        part, *rest = tree["nested"]
        return tree["weight"], tree["dense"], part.linear, part.weight, rest

    assert eqx.tree_equal(others(after), others(tree))


twice = jax.jit(lambda weight: (unit(weight), unit(unit(weight))))


@given(weight=batches(6, 4))
def test_projecting_twice_is_projecting_once(weight):
    """To within two units of rounding of float32 (2.4e-7), one for each projection, over magnitudes
    of 1e-3 to 1e2. Rows of zero have no direction and stay."""
    once, again = twice(weight)
    norms = np.linalg.norm(np.float64(once), axis=-1)
    np.testing.assert_allclose(norms, np.any(weight != 0, axis=-1), rtol=0, atol=1e-6)
    np.testing.assert_allclose(again, once, rtol=0, atol=2 * np.finfo(np.float32).eps)


def test_rows_of_the_default_width_hardly_move_again(getkey):
    """Entries are small there, and so is their rounding: to within 1e-7."""
    dense = HyperDense(256, 64, key=getkey())
    raw = eqx.tree_at(lambda m: m.weight, dense, 3 * jr.normal(getkey(), (5, 64, 256)))
    once = raw.project()
    assert_unit_rows(once)
    np.testing.assert_allclose(once.project().weight, once.weight, rtol=0, atol=1e-7)
