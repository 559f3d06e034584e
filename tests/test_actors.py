import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given

from architectures import Gaussian, MLPNetworks, ResidualNetworks, TanhGaussian
from crlx import Spec
from objectives import ActorBatch, MaxEntropy

SPEC = Spec(3, 2, 2)
SIZES = (1, 3)  # Lengths of an action; a pool, since each is compiled.


def np_normal(u, mean, log_std):
    """Terms of the log-density of independent normals."""
    noise = (u - mean) * np.exp(-log_std)
    return np.stack([-0.5 * noise**2, -log_std, np.full_like(u, -0.5 * np.log(2 * np.pi))])


def np_log_det(u):
    """log(1 - tanh(u)**2) = -2 log cosh(u), without cancellation."""
    return -2 * (np.abs(u) + np.log1p(np.exp(-2 * np.abs(u))) - np.log(2))


def close(actual, terms, tolerance):
    """`actual` is the sum of `terms` to within a share of the sum of their sizes."""
    assert abs(float(actual) - np.sum(terms)) <= tolerance * np.sum(np.abs(terms))


def vector(seed, size, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=size), jnp.float32)


@eqx.filter_jit
def log_prob(policy, action):
    return policy.log_prob(action)


@eqx.filter_jit
def sample(policy, key):
    return policy.sample_and_log_prob(key=key)


def noise_of(key, size):
    """The noise behind a sample, which may depend on the key alone: from a narrow policy."""
    action, _ = sample(Gaussian(jnp.zeros(size), jnp.full(size, -3.0)), key)
    return np.exp(3.0) * np.float64(action)


@pytest.mark.parametrize("size", SIZES)
@given(st.integers(0, 999), st.floats(-3, 2, width=32))
def test_gaussian_log_prob_equals_double_precision(size, seed, log_std):
    mean, action = vector(seed, size, 3), vector(seed + 1, size, 3)
    log_std = jnp.float32(log_std) + 0.1 * jnp.arange(size, dtype=jnp.float32)
    terms = np_normal(*(np.float64(x) for x in (action, mean, log_std)))
    close(log_prob(Gaussian(mean, log_std), action), terms, 1e-5)


@pytest.mark.parametrize("size", SIZES)
@given(st.integers(0, 999), st.floats(-3, 2, width=32))
def test_gaussian_samples_are_reparameterized(size, seed, log_std):
    key, mean = jr.key(seed), vector(seed, size, 3)
    log_std = jnp.full(size, log_std, jnp.float32)
    action, value = sample(Gaussian(mean, log_std), key)
    expected = np.float64(mean) + np.exp(np.float64(log_std)) * noise_of(key, size)
    np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-4)
    close(value, np_normal(expected, np.float64(mean), np.float64(log_std)), 1e-4)


@pytest.mark.parametrize("size", SIZES)
@given(st.integers(0, 999), st.floats(-15, 15, width=32), st.floats(-5, 0, width=32))
def test_squashed_samples_equal_double_precision(size, seed, centre, log_std):
    key, mean = jr.key(seed), jnp.float32(centre) + vector(seed, size, 0.1)
    log_std = jnp.full(size, log_std, jnp.float32)
    noise = noise_of(key, size)
    action, value = sample(TanhGaussian(mean, log_std), key)
    u = np.float64(mean) + np.exp(np.float64(log_std)) * noise
    assert np.all(np.abs(action) <= 1)
    np.testing.assert_allclose(action, np.tanh(u), atol=1e-5)
    close(value, [*np_normal(u, np.float64(mean), np.float64(log_std)), -np_log_det(u)], 1e-4)


@pytest.mark.parametrize("size", SIZES)
@given(st.integers(0, 999), st.floats(-2.5, 2.5, width=32), st.floats(-5, 2, width=32))
def test_squashed_log_prob_equals_double_precision(size, seed, centre, log_std):
    action = jnp.tanh(jnp.float32(centre) + vector(seed, size, 0.1))
    mean, log_std = vector(seed + 1, size), jnp.full(size, log_std, jnp.float32)
    u = np.arctanh(np.float64(action))
    terms = [*np_normal(u, np.float64(mean), np.float64(log_std)), -np_log_det(u)]
    close(log_prob(TanhGaussian(mean, log_std), action), terms, 1e-4)


@pytest.mark.parametrize("u", (-50.0, -20.0, -8.5, -3.0, 0.0, 3.0, 7.5, 8.5, 12.0, 20.0, 50.0))
def test_saturation_keeps_its_gradient(u):
    """With the noise held, the log-density of a sample grows by 2 tanh(u) per unit of mean."""
    log_std = jnp.full(2, -20.0)  # So narrow that a sample is the mean.

    @eqx.filter_jit
    def slope(mean):
        def value(mean):
            return TanhGaussian(mean, log_std).sample_and_log_prob(key=jr.key(0))[1]

        return jax.grad(value)(mean)

    np.testing.assert_allclose(slope(jnp.full(2, u)), 2 * np.tanh(u), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("log_std", (-5.0, 0.0, 2.0))
def test_log_prob_is_finite_at_the_border(log_std):
    action = jnp.array([1.0, -1.0, 0.0])

    @eqx.filter_jit
    def value_and_gradient(mean, log_std):
        def value(policy):
            return policy.log_prob(action)

        return eqx.filter_value_and_grad(value)(TanhGaussian(mean, log_std))

    mean = jnp.array([0.5, 2.0, -0.1])
    value, gradient = value_and_gradient(mean, jnp.full(3, log_std))
    u = np.arctanh(np.array([1 - 1e-6, 1e-6 - 1, 0.0]))  # Where the action is clipped.
    terms = [*np_normal(u, np.float64(mean), np.full(3, log_std)), -np_log_det(u)]
    close(value, terms, 0.02)  # Float32 has sixteen steps between there and one.
    inverse = np.exp(-2 * log_std)
    np.testing.assert_allclose(gradient.mean, (u - np.float64(mean)) * inverse, rtol=0.02)
    assert np.all(np.isfinite(gradient.log_std))


@pytest.mark.parametrize("mean, log_std", ((0.0, -1.5), (0.6, -0.5), (-1.0, 0.0), (0.2, -3.0)))
def test_densities_integrate_to_one(mean, log_std):
    u = np.linspace(-6.5, 6.5, 20001)
    parameters = jnp.array([mean], jnp.float32), jnp.array([log_std], jnp.float32)

    def mass(kind, action, step):
        values = jax.vmap(lambda a: kind(*parameters).log_prob(a[None]))(action)
        return np.trapezoid(np.exp(np.float64(values)) * step, u)

    action = jnp.asarray(np.tanh(u), jnp.float32)
    squashed = mass(TanhGaussian, action, np.exp(np_log_det(u)))
    np.testing.assert_allclose(squashed, 1, atol=1e-3)
    np.testing.assert_allclose(mass(Gaussian, jnp.asarray(u, jnp.float32), 1), 1, atol=1e-3)


@pytest.mark.parametrize("kind", (Gaussian, TanhGaussian))
def test_samples_are_normal_before_squashing(kind):
    """Mean and variance within five sigma, and no correlation of the dimensions."""
    policy, count = kind(jnp.array([0.3, -0.2]), jnp.array([-1.0, -2.0])), 20_000
    draw = eqx.filter_jit(jax.vmap(lambda key: policy.sample_and_log_prob(key=key)[0]))
    samples = np.float64(draw(jr.split(jr.key(0), count)))
    u = samples if kind is Gaussian else np.arctanh(samples)
    noise = (u - np.float64(policy.mean)) * np.exp(-np.float64(policy.log_std))
    assert np.all(np.abs(noise.mean(0)) <= 5 / np.sqrt(count))
    assert np.all(np.abs((noise**2).mean(0) - 1) <= 5 * np.sqrt(2 / count))
    assert abs((noise[:, 0] * noise[:, 1]).mean()) <= 5 / np.sqrt(count)


def test_modes():
    mean = np.array([-2.0, 0.5, 40.0])
    parameters = jnp.asarray(mean, jnp.float32), jnp.zeros(3)
    np.testing.assert_allclose(Gaussian(*parameters).mode(), mean)
    np.testing.assert_allclose(TanhGaussian(*parameters).mode(), np.tanh(mean), rtol=1e-6)


def shape_of(build):
    return eqx.filter_eval_shape(build, SPEC, key=jr.key(0))


def filled(tree, scale):
    rng = np.random.default_rng(0)

    def fill(x):
        is_shape = isinstance(x, jax.ShapeDtypeStruct)
        return jnp.asarray(scale * rng.normal(size=x.shape), x.dtype) if is_shape else x

    return jax.tree.map(fill, tree)


def test_log_std_stays_in_its_bounds():
    networks = ResidualNetworks(width=8, squashed=True)
    actor = filled(shape_of(networks.actor), 1.0)
    inputs = jr.normal(jr.key(1), (20, 3)), jr.normal(jr.key(2), (20, 2))

    @eqx.filter_jit
    def log_std(actor, factor):
        def head(a):
            return a.raw_log_std.weight, a.raw_log_std.bias

        scaled = tuple(factor * x for x in head(actor))
        return jax.vmap(eqx.tree_at(head, actor, scaled))(*inputs).log_std

    # A raw output of zero means a standard deviation of exp(-1.5).
    np.testing.assert_allclose(log_std(actor, jnp.float32(0)), -1.5, rtol=1e-6)
    for factor in (1.0, 1e3):
        values = log_std(actor, jnp.float32(factor))
        assert np.all((values >= -5) & (values <= 2))
    np.testing.assert_allclose([np.min(values), np.max(values)], [-5, 2], rtol=1e-6)


@pytest.mark.parametrize("networks", (MLPNetworks(depth=1, width=8), ResidualNetworks(width=8)))
def test_offline_actors_have_a_constant_deviation(networks):
    actor = filled(shape_of(networks.actor), 1.0)
    inputs = jr.normal(jr.key(1), (5, 3)), jr.normal(jr.key(2), (5, 2))
    for std in (1.0, 0.5):
        actor = eqx.tree_at(lambda a: a.std, actor, std)
        policy = jax.vmap(lambda s, g, a=actor: a(s, g))(*inputs)
        assert isinstance(policy, Gaussian)
        np.testing.assert_allclose(policy.log_std, np.log(std), rtol=1e-6)


@eqx.filter_jit
@eqx.filter_grad
def temperature_slope(log_alpha, log_std, target, batch):
    term = eqx.tree_at(lambda t: t.target_entropy, MaxEntropy(target_entropy=0.0), target)
    # The same everywhere, with a known entropy.
    spread = jnp.full(batch.action.shape, log_std)
    policy = jax.vmap(Gaussian)(jnp.zeros_like(spread), spread)
    score, key = lambda action: jnp.sum(action, axis=1), jr.key(0)
    return term(log_alpha, policy, batch, score=score, advantage=None, key=key)[0]


@given(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32), st.floats(-2, 2, width=32))
def test_the_temperature_falls_while_entropy_is_above_its_target(log_std, target, log_alpha):
    rows, size = 2000, 2
    batch = ActorBatch(jnp.zeros((rows, 1)), jnp.zeros((rows, size)), jnp.zeros((rows, 1)))
    numbers = (jnp.float32(x) for x in (log_alpha, log_std, target))
    slope = temperature_slope(*numbers, batch)
    excess = size * (0.5 + 0.5 * np.log(2 * np.pi) + log_std) - target
    # The sample mean of a log-density in two dimensions strays by one over the root of the rows.
    error = 5 / np.sqrt(rows)
    np.testing.assert_allclose(slope, np.exp(log_alpha) * excess, atol=error * np.exp(log_alpha))
    assert np.sign(slope) == np.sign(excess) or abs(excess) <= error
