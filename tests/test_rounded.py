"""Products of operands rounded to bfloat16, against rounding them by hand."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import Precision, ResidualNetworks
from architectures._products import product
from architectures._rounded import rounded_matmul


def rounded(x):
    return np.float64(jnp.asarray(x).astype(jnp.bfloat16))


@settings(max_examples=6)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5))
def test_the_product_and_its_gradients(rows, size, dim, seed):
    keys = jr.split(jr.key(seed), 3)
    x, weight = jr.normal(keys[0], (rows, size)), jr.normal(keys[1], (dim, size))
    slope = jr.normal(keys[2], (rows, dim))
    y, pull = jax.vjp(jax.vmap(rounded_matmul, (0, None)), x, weight)
    np.testing.assert_allclose(y, rounded(x) @ rounded(weight).T, rtol=1e-5, atol=1e-5)
    by_x, by_weight = pull(slope)
    np.testing.assert_allclose(by_x, rounded(slope) @ rounded(weight), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_weight, rounded(slope).T @ rounded(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", ((0, 0), (None, 0), (0, None), (1, None), (1, 2), (None, 1)))
def test_any_axes_may_be_vectorized(axes):
    """Members of ensembles: of inputs, of weights, or of both."""
    shapes = {None: (), 0: (2,), 1: (2,), 2: (2,)}
    x = np.moveaxis(jr.normal(jr.key(0), (*shapes[axes[0]], 3, 5)), 0, axes[0] or 0)
    weight = np.moveaxis(jr.normal(jr.key(1), (*shapes[axes[1]], 4, 5)), 0, axes[1] or 0)
    x, weight = jnp.asarray(x), jnp.asarray(weight)

    def exact(x, weight):
        return jax.vmap(lambda v: weight @ v)(x)

    def value(layer, x, weight):
        y = jax.vmap(layer, axes)(x, weight)
        return jnp.sum(jnp.floor(4 * y) * y)  # Slopes that bfloat16 holds.

    def layer(x, weight):
        return jax.vmap(rounded_matmul, (0, None))(x, weight)

    bf = [a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, weight)]
    np.testing.assert_allclose(
        jax.vmap(layer, axes)(*bf), jax.vmap(exact, axes)(*bf), rtol=1e-5, atol=1e-5
    )
    for which in (0, 1):
        found = jax.grad(lambda *a: value(layer, *a), which)(*bf)
        expected = jax.grad(lambda *a: value(exact, *a), which)(*bf)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_precision_is_that_of_the_scope():
    x, weight = jr.normal(jr.key(0), (64,)), jr.normal(jr.key(1), (8, 64))
    exact = np.float64(weight) @ np.float64(x)
    with Precision.BFLOAT16.scope():
        low = product(x, weight)
    high = product(x, weight)
    assert np.abs(high - exact).max() < 1e-4 < 1e-3 < np.abs(low - exact).max() < 0.2


def outputs(precision, seed=0):
    networks = ResidualNetworks(depth=8, width=32, dim=8, precision=precision)
    encoder = networks.encoder(6, 8, key=jr.key(seed))
    return jax.jit(jax.vmap(encoder))(jr.normal(jr.key(1), (16, 6)))


def test_networks_round_within_blocks_alone():
    exact, rough = outputs(Precision.HIGHEST), outputs(Precision.BFLOAT16)
    error = np.abs(rough - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 3e-2
    np.testing.assert_array_equal(outputs(Precision.DEFAULT), exact)  # The setting of all tests.


def test_parameters_and_activations_are_float32():
    networks = ResidualNetworks(depth=8, width=8, precision=Precision.BFLOAT16)
    encoder = networks.encoder(6, 8, key=jr.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(encoder) if hasattr(leaf, "dtype")} == {
        jnp.dtype(jnp.float32)
    }
    text = str(jax.make_jaxpr(encoder)(jnp.ones(6)))
    assert "rounded_dot" in text
    assert "bf16[" not in text  # Only within the product.
