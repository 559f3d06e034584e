import equinox as eqx
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from architectures import L1, Cosine, Dot, Norm, ScaledDot, SquaredNorm
from crlx import pairwise

# Each formula, in float64, gives for broadcast `x` and `y` the value, the gradient with respect
# to `x`, and the sizes against which their rounding errors are measured.


def np_norm(x, y):
    distance = np.sqrt(((x - y) ** 2).sum(-1))
    direction = (x - y) / np.where(distance > 0, distance, 1)[..., None]
    return -distance, -direction, distance, 1.0


def np_squared_norm(x, y):
    square = ((x - y) ** 2).sum(-1)
    return -square, -2 * (x - y), square, 2 * np.abs(x - y)


def np_l1(x, y):
    distance = np.abs(x - y).sum(-1)
    # Where coordinates meet any slope in [-1, 1] is a subgradient: 1e5 times the tolerance is 1.
    return -distance, -np.sign(x - y), distance, np.where(x == y, 1e5, 1.0)


def np_dot(x, y):
    return (x * y).sum(-1), y + 0 * x, np.abs(x * y).sum(-1), np.abs(y)


def np_scaled_dot(x, y):
    return tuple(z / np.sqrt(x.shape[-1]) for z in np_dot(x, y))


def np_cosine(x, y, temperature=0.1, eps=1e-6):
    size_x, size_y = (np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), eps) for z in (x, y))
    u, v = x / size_x, y / size_y
    cosine = (u * v).sum(-1)
    inside = size_x > eps  # The floor is constant: no projection there.
    gradient = (v - np.where(inside, cosine[..., None] * u, 0)) / (size_x * temperature)
    return cosine / temperature, gradient, 1 / temperature, 1 / (size_x * temperature)


CASES = {
    "norm": (Norm(), np_norm),
    "squared_norm": (SquaredNorm(), np_squared_norm),
    "l1": (L1(), np_l1),
    "dot": (Dot(), np_dot),
    "scaled_dot": (ScaledDot(), np_scaled_dot),
    "cosine": (Cosine(), np_cosine),
    "warm_cosine": (Cosine(temperature=2.0), lambda x, y: np_cosine(x, y, 2.0)),
}
every_energy = pytest.mark.parametrize("name", CASES)

table = eqx.filter_jit(pairwise)


@eqx.filter_jit
def single(energy, x, y):
    return energy(x, y)


@eqx.filter_jit
def gradients(energy, x, y):
    """Of every pair, with respect to both sides."""
    gradient = jax.grad(energy, (0, 1))
    return jax.vmap(jax.vmap(gradient, (None, 0)), (0, None))(x, y)


# Shapes come from a pool, since each is compiled.
SHAPES = ((1, 1, 1), (3, 3, 8), (4, 2, 3))
numbers = st.floats(2**-10, 128, width=32)
numbers = st.just(0.0) | numbers | numbers.map(lambda x: -x)


@st.composite
def embeddings(draw, shapes=SHAPES):
    rows, goals, dim = draw(st.sampled_from(shapes))
    x = draw(hnp.arrays(np.float32, (rows, dim), elements=numbers))
    y = draw(hnp.arrays(np.float32, (goals, dim), elements=numbers))
    special = draw(st.sampled_from(("none", "equal", "collinear", "zero")))
    if special == "equal":
        y[0] = x[-1]
    elif special == "collinear":
        y[0] = -2 * x[0]
    elif special == "zero":
        x[0] = 0
    return x, y


def close(actual, expected, scale, tolerance):
    assert np.all(np.abs(np.float64(actual) - expected) <= tolerance * scale)


@every_energy
@given(embeddings())
def test_values_and_gradients_equal_double_precision(name, xy):
    energy, formula = CASES[name]
    x, y = map(jnp.asarray, xy)
    left, right = np.float64(xy[0])[:, None], np.float64(xy[1])[None]
    value, gradient, value_scale, gradient_scale = formula(left, right)
    close(table(energy, x, y), value, value_scale, 1e-5)
    by_x, by_y = gradients(energy, x, y)
    close(by_x, gradient, gradient_scale, 1e-5)
    _, gradient, _, gradient_scale = formula(right, left)  # Every one of them is symmetric.
    close(by_y, gradient, gradient_scale, 1e-5)


@every_energy
@given(embeddings())
def test_pairs_equal_singles(name, xy):
    energy, formula = CASES[name]
    x, y = map(jnp.asarray, xy)
    pairs = table(energy, x, y)
    assert pairs.shape == (len(x), len(y))
    scale = np.broadcast_to(formula(np.float64(x)[:, None], np.float64(y)[None])[2], pairs.shape)
    for i, j in np.ndindex(pairs.shape):
        close(single(energy, x[i], y[j]), np.float64(pairs[i, j]), scale[i, j], 1e-5)


@every_energy
@pytest.mark.parametrize("size", (0.0, 1e-30, 1e-20, 1e-10, 1e-6, 1.0, 1e5, 1e10, 1e15))
def test_values_and_gradients_are_finite(name, size):
    energy, _ = CASES[name]
    x = size * np.array([[1, 2, 3], [0, 0, 0], [1, 2, 3 + 1e-6], [-1, 0, 1]])
    x = jnp.asarray(x, jnp.float32)
    for result in (table(energy, x, x), *gradients(energy, x, x)):
        assert np.all(np.isfinite(result))


@pytest.mark.parametrize("name", ("norm", "squared_norm", "l1"))
@given(embeddings())
def test_distances_vanish_where_embeddings_meet(name, xy):
    energy, _ = CASES[name]
    x = jnp.asarray(xy[0])
    assert not np.any(np.diagonal(table(energy, x, x)))
    for gradient in gradients(energy, x, x) if name != "l1" else ():
        assert not np.any(np.diagonal(gradient))


@pytest.mark.parametrize("name", ("norm", "squared_norm", "l1"))
@given(embeddings(SHAPES[1:]), st.integers(0, 999))
def test_distances_are_translation_invariant(name, xy, seed):
    energy, formula = CASES[name]
    x, y = (np.round(64 * z) / 64 for z in xy)  # On a grid, translation makes no rounding error.
    shift = np.random.default_rng(seed).integers(-6400, 6400, x.shape[1]).astype(np.float32) / 64
    scale = formula(np.float64(x)[:, None], np.float64(y)[None])[2]
    moved = table(energy, jnp.asarray(x + shift), jnp.asarray(y + shift))
    close(moved, np.float64(table(energy, jnp.asarray(x), jnp.asarray(y))), scale, 1e-5)


def rotation(seed, dim):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"l1"}))
@given(embeddings(SHAPES[1:]), st.integers(0, 999))
def test_joint_rotations_change_nothing(name, xy, seed):
    energy, _ = CASES[name]
    x, y = map(np.float64, xy)
    turn = rotation(seed, x.shape[1])
    turned = table(energy, *(jnp.asarray(z @ turn, jnp.float32) for z in (x, y)))
    # Rotating rounds each vector by a share of its own size.
    size = np.linalg.norm(x, axis=1)[:, None] + np.linalg.norm(y, axis=1)[None]
    scale = {"norm": size, "squared_norm": size**2, "dot": size**2, "scaled_dot": size**2}
    scale = scale.get(name, 10.0)
    close(turned, np.float64(table(energy, *map(jnp.asarray, xy))), scale, 1e-4)


def test_the_taxicab_distance_feels_rotations():
    x, turned = jnp.array([[1.0, 0.0]]), jnp.array([[0.6, 0.8]])
    zero = jnp.zeros((1, 2))
    np.testing.assert_allclose(table(L1(), x, zero), -1, rtol=1e-6)
    np.testing.assert_allclose(table(L1(), turned, zero), -1.4, rtol=1e-6)


@given(embeddings(SHAPES[1:]), st.floats(2**-6, 64, width=32))
def test_the_cosine_ignores_sizes(xy, factor):
    energy = Cosine(temperature=1.0)
    x, y = map(jnp.asarray, xy)
    cosine = np.float64(table(energy, x, y))
    assert np.all(np.abs(cosine) <= 1 + 1e-6)
    close(table(energy, factor * x, y), cosine, 1, 1e-5)
    close(table(energy, x, factor * y), cosine, 1, 1e-5)
    close(table(Cosine(temperature=0.25), x, y), 4 * cosine, 4, 1e-5)


def test_known_cosines():
    x = jnp.array([[3.0, 4.0], [0.0, 2.0]])
    y = jnp.array([[6.0, 8.0], [-4.0, 3.0], [0.0, -1.0], [0.0, 0.0]])
    expected = [[1, 0, -0.8, 0], [0.8, 0.6, -1, 0]]
    np.testing.assert_allclose(table(Cosine(temperature=1.0), x, y), expected, atol=1e-6)
    np.testing.assert_allclose(table(Cosine(), x, y), 10 * np.array(expected), atol=1e-5)


def test_known_distances():
    x, y = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, -4.0], [0.0, 0.0]])
    for energy, expected in ((Norm(), -5), (SquaredNorm(), -25), (L1(), -7)):
        np.testing.assert_allclose(table(energy, x, y), [[expected, 0]], rtol=1e-6)


@given(embeddings(SHAPES[1:2]), embeddings(SHAPES[1:2]))
def test_the_norm_obeys_the_triangle(xy, zz):
    x, y, z = (jnp.asarray(v) for v in (*xy, zz[0]))
    direct = -np.float64(table(Norm(), x, z))[:, None, :]  # From i to k, by way of j.
    first, second = -np.float64(table(Norm(), x, y)), -np.float64(table(Norm(), y, z))
    assert np.all(direct <= (first[:, :, None] + second[None]) * (1 + 1e-5) + 1e-6)


@pytest.mark.parametrize("temperature", (0.0, -1.0, float("nan")))
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="must be positive"):
        Cosine(temperature=temperature)
