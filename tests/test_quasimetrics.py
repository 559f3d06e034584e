import json
import re

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given

from architectures import IQE, MRN, PQE
from crlx import decode, encode, pairwise
from crlx.testing import batches

# Each formula gives, in float64, the distance of one pair.


def np_mrn(energy, x, y):
    total = 0.0
    for part in np.split(x - y, energy.groups):
        symmetric, asymmetric = np.split(part, 2)
        total += np.linalg.norm(symmetric) + max(0, asymmetric.max())
    return total / energy.groups


def np_union(lefts, rights):
    """Cuts the line at every end and adds up the pieces that some interval covers."""
    cuts = np.unique(np.concatenate([lefts, rights]))
    centres = (cuts[1:] + cuts[:-1])[:, None] / 2
    covered = np.any((lefts < centres) & (centres < rights), axis=1)
    return np.sum(np.diff(cuts) * covered)


def np_iqe(energy, x, y):
    parts = zip(x.reshape(-1, energy.size), y.reshape(-1, energy.size), strict=True)
    unions = np.array([np_union(*part) for part in parts])
    largest = 1 / (1 + np.exp(-np.float64(energy.mix)))
    return largest * unions.max() + (1 - largest) * unions.mean()


def np_pqe(energy, x, y):
    weight = np.log1p(np.exp(np.float64(energy.weight)))
    excess = np.maximum(x - y, 0).reshape(-1, energy.size).mean(axis=1)
    return np.sum(weight * -np.expm1(-excess))


CASES = {
    "mrn": (MRN(), np_mrn),
    "grouped_mrn": (MRN(groups=2), np_mrn),
    "iqe": (IQE(2, mix=0.7), np_iqe),
    "built_iqe": (IQE(4, mix=-0.3).init(8, key=jr.key(0)), np_iqe),
    "pqe": (PQE(4, weight=jnp.array([-1.0, 2.0])), np_pqe),
}
every_quasimetric = pytest.mark.parametrize("name", CASES)
points = batches(6, 8)


@eqx.filter_jit
def table(energy, x, y):
    return jax.vmap(jax.vmap(energy.distance, (None, 0)), (0, None))(x, y)


@eqx.filter_jit
def single(energy, x, y):
    return energy(x, y)


@eqx.filter_jit
def gradients(energy, x, y):
    """Of every pair, with respect to the two sides and the parameters."""
    gradient = eqx.filter_grad(lambda pair: pair[2].distance(*pair[:2]))
    each = jax.vmap(lambda x, y: gradient((x, y, energy)), (None, 0))
    return jax.tree.leaves(jax.vmap(each, (0, None))(x, y))


def np_table(name, x, y):
    energy, formula = CASES[name]
    x, y = np.float64(x), np.float64(y)
    return np.array([[formula(energy, a, b) for b in y] for a in x])


@every_quasimetric
@given(points)
def test_distances_equal_double_precision(name, x):
    distance = table(CASES[name][0], x, x)
    np.testing.assert_allclose(distance, np_table(name, x, x), rtol=1e-5, atol=0)


@every_quasimetric
@given(points)
def test_laws(name, x):
    distance = np.float64(table(CASES[name][0], x, x))
    assert np.all(distance >= 0)
    assert not np.any(np.diagonal(distance))
    direct, first, second = distance[:, None, :], distance[:, :, None], distance[None]
    assert np.all(direct <= (first + second) * (1 + 1e-5) + 1e-6)


@every_quasimetric
@given(points)
def test_pairs_equal_singles(name, x):
    energy, _ = CASES[name]
    distance = np.asarray(table(energy, x, x))
    for j in range(len(x)):
        np.testing.assert_allclose(single(energy, x[0], x[j]), -distance[0, j], rtol=1e-6, atol=0)


@every_quasimetric
@given(points)
def test_gradients_are_finite_and_vanish_where_embeddings_meet(name, x):
    for gradient in gradients(CASES[name][0], x, x):
        assert np.all(np.isfinite(gradient))
        assert not np.any(np.asarray(gradient)[np.diag_indices(len(x))])


@every_quasimetric
@pytest.mark.parametrize("size", (0.0, 1e-30, 1e-20, 1e-10, 1e-6, 1e5, 1e10, 1e15))
def test_values_and_gradients_are_finite_at_every_size(name, size):
    energy, _ = CASES[name]
    base = np.arange(8.0)
    x = np.stack([base, 0 * base, base + 1e-6 * (base == 2), -base, 2 * base, base[::-1]])
    x = jnp.asarray(size * x, jnp.float32)
    for result in (table(energy, x, x), *gradients(energy, x, x)):
        assert np.all(np.isfinite(result))


@every_quasimetric
def test_gradients_equal_differences_in_double_precision(name, getkey):
    """At generic points all are smooth, so that central differences are good to 1e-9."""
    energy, formula = CASES[name]
    x, y = jr.normal(getkey(), (2, 6, 8))
    by_x, by_y, *_ = gradients(energy, x, y)
    step = 1e-6 * np.eye(8)
    for i, j in ((0, 0), (1, 2), (5, 3)):
        a, b = np.float64(x[i]), np.float64(y[j])
        slopes = [[formula(energy, a + s, b) - formula(energy, a - s, b) for s in step]]
        slopes += [[formula(energy, a, b + s) - formula(energy, a, b - s) for s in step]]
        expected = np.array(slopes) / 2e-6
        np.testing.assert_allclose(
            np.stack([by_x[i, j], by_y[i, j]]), expected, rtol=1e-5, atol=1e-6
        )


@every_quasimetric
@given(points, st.lists(st.integers(-6400, 6400), min_size=8, max_size=8))
def test_translations_change_nothing(name, x, shift):
    energy, _ = CASES[name]
    shift = np.float32(shift) / 64
    if isinstance(energy, IQE):  # A component's intervals lie on one line: they move together.
        shift = np.repeat(shift[: 8 // energy.size], energy.size)
    x = np.round(64 * np.asarray(x)) / 64  # On a grid, translation makes no rounding error.
    x, moved = jnp.asarray(x), jnp.asarray(x + shift)
    np.testing.assert_array_equal(table(energy, moved, moved), table(energy, x, x))


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"pqe"}))
@given(points, st.floats(2**-6, 64, width=32))
def test_distances_grow_with_the_embeddings(name, x, factor):
    energy, _ = CASES[name]
    scale = factor * 2 * float(jnp.max(jnp.abs(x)))  # Scaling rounds a vector, not a difference.
    scaled = table(energy, factor * x, factor * x)
    expected = factor * np.float64(table(energy, x, x))
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-6 * scale)


@every_quasimetric
def test_some_pair_is_asymmetric(name, getkey):
    x = jr.normal(getkey(), (6, 8))
    distance = np.asarray(table(CASES[name][0], x, x))
    assert np.max(np.abs(distance - distance.T)) > 0.1 * np.mean(distance)


def test_known_distances():
    x, zero = np.array([3.0, 4.0, 2.0, -1.0]), np.zeros(4)
    one_line = np.array([1.0, 5.0, 0.0, 9.0]), np.array([3.0, 4.0, 2.0, 10.0])
    for energy, start, end, expected in (
        (MRN(), x, zero, 5 + 2),
        (MRN(), zero, x, 5 + 1),
        (MRN(groups=2), x, zero, (3 + 4 + 2 + 0) / 2),
        # Intervals from 0 to 3 and 4, and to 2; then the way back, from -1 to 0.
        (IQE(2, mix=0.0), zero, x, (4 + (4 + 2) / 2) / 2),
        (IQE(2, mix=0.0), x, zero, (1 + (0 + 1) / 2) / 2),
        (IQE(4), *one_line, 4),  # From 0 to 3 and from 9 to 10; what begins at 5 is empty.
        (PQE(2), x, zero, 2 - np.exp(-3.5) - np.exp(-1)),
        (PQE(1), 1e6 + zero, zero, 4),  # Four weights, which start at one.
    ):
        score = single(energy, jnp.asarray(start, jnp.float32), jnp.asarray(end, jnp.float32))
        np.testing.assert_allclose(score, -expected, rtol=1e-6)


@given(points, points)
def test_longer_intervals_are_no_nearer(x, y):
    shorter, longer = (np.float64(table(IQE(4), x, y + z)) for z in (0 * y, jnp.abs(y[::-1])))
    assert np.all(longer >= shorter * (1 - 1e-6))


@given(points, st.permutations(range(4)), st.permutations(range(4)))
def test_the_order_within_a_component_is_irrelevant(x, first, second):
    order = np.array([*first, *(4 + np.array(second))])
    expected = table(IQE(4), x, x)
    np.testing.assert_allclose(table(IQE(4), x[:, order], x[:, order]), expected, rtol=1e-6, atol=0)


@given(points)
def test_each_head_vanishes_on_its_own_side(x):
    lower = x - jnp.abs(x[::-1])
    for energy, start, end in (
        (IQE(4), x, lower),
        (PQE(4), lower, x),
        (MRN(), jnp.concatenate([x[:, :4], lower[:, 4:]], axis=1), x),
    ):
        assert not np.any(np.diagonal(table(energy, start, end)))


@given(points, points)
def test_components_of_one_interval_are_positive_parts(x, y):
    ahead = np.maximum(np.float64(y)[None] - np.float64(x)[:, None], 0)
    expected = 0.25 * ahead.max(-1) + 0.75 * ahead.mean(-1)
    energy = IQE(1, mix=-float(np.log(3)))
    np.testing.assert_allclose(table(energy, x, y), expected, rtol=1e-5, atol=0)


def test_parameters_get_gradients(getkey):
    x, y = jr.normal(getkey(), (2, 8))
    gradient = eqx.filter_jit(eqx.filter_grad(lambda energy: energy.distance(x, y)))
    iqe = IQE(4).init(8, key=getkey())
    pairs = np.float64([x, y]).reshape(2, 2, 4)
    unions = [np_union(pairs[0, i], pairs[1, i]) for i in (0, 1)]
    slope = 1 / (2 + np.exp(-1) + np.exp(1))  # a(1 - a) of the sigmoid at -1.
    expected = slope * (max(unions) - np.mean(unions))
    np.testing.assert_allclose(gradient(iqe).mix, expected, rtol=1e-5)
    pqe = PQE(4).init(8, key=getkey())
    excess = np.maximum(pairs[0] - pairs[1], 0).mean(axis=1)
    slope = 1 - np.exp(-1)  # Of the softplus, where it is one.
    np.testing.assert_allclose(gradient(pqe).weight, slope * -np.expm1(-excess), rtol=1e-5)


@pytest.mark.parametrize("energy", (IQE(4), PQE(4)), ids=("iqe", "pqe"))
def test_building_changes_no_distance(energy, getkey):
    built = energy.init(8, key=getkey())
    assert not jax.tree.leaves(eqx.filter(energy, eqx.is_array))
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(eqx.filter(built, eqx.is_array)))
    x = jr.normal(getkey(), (6, 8))
    np.testing.assert_allclose(table(built, x, x), table(energy, x, x), rtol=1e-6)


@pytest.mark.parametrize("energy", (MRN(2), IQE(4, mix=0.5), PQE(4)), ids=("mrn", "iqe", "pqe"))
def test_configurations_come_back(energy):
    text = json.dumps(encode(energy))
    assert "architectures." in text
    assert decode(json.loads(text)) == energy


def test_a_table_sorts_once_per_row():
    def total(x, y):
        return jnp.sum(pairwise(IQE(4), x, y))

    x, y = jnp.zeros((3, 8)), jnp.zeros((5, 8))
    for function in (total, jax.grad(total, (0, 1))):
        sorts = re.findall(r"(.*) = sort\[", str(jax.make_jaxpr(function)(x, y)))
        assert len(sorts) == 1
        assert set(re.findall(r"\w+\[([\d,]*)\]", sorts[0])) == {"3,2,4"}


@pytest.mark.parametrize(
    ("energy", "dim", "multiple"),
    [(MRN(), 7, 2), (MRN(groups=4), 12, 8), (IQE(), 12, 8), (PQE(4), 6, 4), (IQE(4), 0, 4)],
)
def test_lengths_must_be_multiples(energy, dim, multiple):
    with pytest.raises(ValueError, match=f"multiple of {multiple}.* got {dim}"):
        energy.distance(jnp.zeros(dim), jnp.zeros(dim))
    if not isinstance(energy, MRN):
        with pytest.raises(ValueError, match=f"multiple of {multiple}.* got {dim}"):
            energy.init(dim, key=jr.key(0))


@pytest.mark.parametrize("make", (lambda: MRN(0), lambda: IQE(0), lambda: PQE(-1)))
def test_sizes_are_positive(make):
    with pytest.raises(ValueError, match="at least one"):
        make()
