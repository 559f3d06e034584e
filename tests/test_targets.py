import jax
import jax.numpy as jnp
import numpy as np
import pytest
from affine import SPEC, Line, Lines
from hypothesis import given
from hypothesis import strategies as st

from crlx import joint_critics
from crlx.testing import batches, keys
from objectives import SAC, TD3, polyak, target

networks = st.builds(lambda x: Line(x, x[:, 0]), batches(4, 3))


def critics(key):
    return joint_critics(Lines(), SPEC, 2, key=key)


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def assert_equal(tree, other):
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


@given(slow=networks, fast=networks, rate=st.sampled_from((0.005, 0.3, 1.0)))
def test_rate_zero_stays_and_one_copies(slow, fast, rate):
    """Exactly: a target that is not due to move does not drift, nor does a copy."""
    assert_equal(polyak(slow, fast, 0.0), slow)
    assert_equal(polyak(slow, fast, 1.0), fast)
    assert_equal(polyak(slow, fast, 1.0, due=jnp.float32(1)), fast)
    assert_equal(polyak(slow, fast, rate, due=jnp.float32(0)), slow)


@given(slow=networks, fast=networks, rate=st.sampled_from((0.005, 0.3, 0.9)))
def test_targets_go_part_of_the_way(slow, fast, rate):
    exact = np.float64(slow.weight) + rate * (np.float64(fast.weight) - np.float64(slow.weight))
    for due in (None, jnp.float32(1)):
        moved = polyak(slow, fast, rate, due=due)
        np.testing.assert_allclose(moved.weight, exact, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(moved.bias, exact[:, 0], rtol=1e-5, atol=1e-5)


@given(key=keys())
def test_a_target_is_another_copy(key):
    """Equal, but of memory of its own, so that a donated network leaves its target whole."""
    network = critics(key)
    slow = target(network)
    assert bits(slow) == bits(network)
    assert jax.tree.structure(slow) == jax.tree.structure(network)
    for x, y in zip(jax.tree.leaves(slow), jax.tree.leaves(network), strict=True):
        assert x.unsafe_buffer_pointer() != y.unsafe_buffer_pointer()


@pytest.mark.parametrize("make", (SAC, TD3))
@pytest.mark.parametrize("rate", (-0.1, 1.1, float("nan")))
def test_impossible_rates_are_refused(make, rate):
    with pytest.raises(ValueError, match="`target_rate` is a share"):
        make(target_rate=rate)
