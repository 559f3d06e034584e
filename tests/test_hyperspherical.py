import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skeletons import filled, is_shape, random, skeleton
from spheres import SPEC, np_unit

from architectures import IQE, HypersphericalNetworks, Remat, ResidualNetworks, SphereBlock
from crlx import Spec
from crlx.testing import batches, depths

blocks = pytest.mark.parametrize("block", SphereBlock, ids=lambda b: b.name)


def blocks_of(network):
    """The number of blocks of a skeleton."""
    (count,) = {x.shape[0] for x in jax.tree.leaves(network.trunk.stack) if is_shape(x)}
    return count


@functools.cache
def trunk(block, depth, width):
    networks = HypersphericalNetworks(depth=depth, width=width, block=block)
    return skeleton(networks.critic, SPEC).state_action.trunk


@eqx.filter_jit
def features(trunk, x):
    """Of each row, after the stem and after each block."""
    arrays, static = eqx.partition(trunk.stack.blocks, eqx.is_array)

    def one(x):
        def step(h, layer):
            h = eqx.combine(layer, static)(h)
            return h, h

        h = trunk.stem(x)
        return jnp.concatenate([h[None], jax.lax.scan(step, h, arrays)[1]])

    return jax.vmap(one)(x)


@given(
    x=batches(4, 5),
    block=st.sampled_from(SphereBlock),
    depth=depths(),
    width=st.sampled_from((8, 32)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=12)
def test_features_stay_on_the_sphere(x, block, depth, width, seed):
    """Whatever the parameters and the inputs; to within 1e-6."""
    h = np.float64(features(filled(trunk(block, depth, width), seed), x))
    assert h.shape == (4, 1 + depth // block.layers, width)
    np.testing.assert_allclose(np.linalg.norm(h, axis=-1), 1, rtol=0, atol=1e-6)


@blocks
@pytest.mark.parametrize("squashed", (True, False))
def test_parameter_counts_in_closed_form(block, squashed):
    s, a, g, h, d, n, m = 5, 3, 2, 24, 10, 2, 3  # `n` blocks in a tower, `m` in the actor.
    networks = HypersphericalNetworks(
        n * block.layers, h, m * block.layers, d, block=block, squashed=squashed
    )
    critic, actor = (skeleton(f, Spec(s, a, g)) for f in (networks.critic, networks.actor))
    one = 8 * h**2 + 5 * h if block is SphereBlock.LERP else 4 * h**2 + 5 * h

    def count(tree):
        return sum(x.size for x in jax.tree.leaves(tree) if is_shape(x))

    def trunk(size, blocks):
        return (size + 1) * h + h + blocks * one

    def head(size):
        return h**2 + h + size * h + size

    assert count(critic) == trunk(s + a, n) + trunk(g, n) + 2 * head(d) + 1
    assert count(actor) == trunk(s + g, m) + (2 if squashed else 1) * head(a)
    assert (blocks_of(critic.state_action), blocks_of(critic.goal), blocks_of(actor)) == (n, n, m)


@blocks
@pytest.mark.parametrize("step", (None, 0.25))
def test_steps_start_as_told(block, step, getkey):
    """By default each of `L` blocks goes `1 / (L + 1)` of the way."""
    networks = HypersphericalNetworks(depth=12, width=8, block=block, step=step)
    # Of what is not returned nothing is computed.
    start = eqx.filter_jit(lambda key: networks.actor(SPEC, key=key).trunk.stack.blocks.lerp)
    lerp = start(getkey())
    share = 1 / (12 // block.layers + 1) if step is None else step
    found = eqx.filter_vmap(lambda m: m.alpha(jnp.ones(8)))(lerp)
    np.testing.assert_allclose(found, share, rtol=1e-6)
    np.testing.assert_allclose(lerp.alpha.factor, 8**-0.5, rtol=1e-6)


def test_scores_have_a_capped_trainable_factor(getkey):
    networks = HypersphericalNetworks(depth=4, width=8, dim=4)
    start = eqx.filter_jit(lambda key: networks.critic(SPEC, key=key).log_scale)
    np.testing.assert_allclose(np.exp(start(getkey())), 10, rtol=1e-6)
    critic = filled(skeleton(networks.critic, SPEC), 13)
    inputs = random(8, (3, 3), (3, 2), (3, 2))

    @eqx.filter_jit
    @jax.value_and_grad
    def total(log_scale):
        return jnp.sum(eqx.tree_at(lambda c: c.log_scale, critic, log_scale).pairs(*inputs))

    base = total(jnp.float32(0))[0]
    assert base < -0.1
    for log_scale, factor, slope in ((np.log(10), 10, 10), (4, np.exp(4), np.exp(4)), (9, 100, 0)):
        value, gradient = total(jnp.float32(log_scale))
        np.testing.assert_allclose(value, factor * base, rtol=1e-5)
        np.testing.assert_allclose(gradient, slope * base, rtol=1e-5)


@eqx.filter_jit
def at_start(networks, spec, s, g, key):
    """Of the actor, the features that its heads see, the mean and `log_std`."""
    actor = networks.actor(spec, key=key)
    h = jax.vmap(lambda s, g: actor.trunk(actor.inputs(s, g)))(s, g)
    policy = jax.vmap(lambda s, g: actor(s, g))(s, g)
    return h, policy.mean, policy.log_std


def cosines(h):
    """Between all pairs of different rows."""
    h = np_unit(np.float64(h))
    return (h @ h.T)[~np.eye(len(h), dtype=bool)]


@pytest.mark.parametrize("block", [*SphereBlock, None], ids=lambda b: b.name if b else "residual")
def test_depth_collapses_the_plain_residual_alone(block):
    """Cosines between the features of random inputs, 32 wide, after 4 and after 128 layers.

    Measured: on the sphere a mean of 0.18 to 0.27 and a spread of 0.15 to 0.19 at either depth; of
    the plain residual 0.36 and 0.17 at first, then 0.97 and 0.014, and no slope is left in some
    `log_std`.
    """
    spec = Spec(29, 8, 8)
    s, g = random(9, (64, 29), (64, 8))
    make = (
        ResidualNetworks
        if block is None
        else functools.partial(HypersphericalNetworks, block=block)
    )
    found = []
    for depth in (4, 128):
        h, mean, log_std = at_start(make(depth, 32, squashed=True), spec, s, g, jr.key(10))
        found.append(cosines(h))
        if block is not None:
            # A product of unit vectors, so that tanh has a slope of at least 0.4.
            assert np.max(np.abs(mean)) < 1
            assert np.min(np.std(mean, axis=0)) > 0.05
            # In the inner four fifths of [-10, 2], where it has a slope, too.
            assert np.max(np.abs(np.float64(log_std) + 4)) < 0.8 * 6
    shallow, deep = found
    assert np.mean(shallow) < 0.6
    if block is None:
        assert np.mean(deep) > 0.9
        assert np.std(deep) < 0.05
        assert np.max(np.abs((np.float64(log_std) + 1.5) / 3.5)) > 0.99
    else:
        assert 0.05 < np.mean(deep) < 0.6
        assert np.std(deep) > 0.1


def test_bounds_of_squashed_actors():
    networks = HypersphericalNetworks(depth=4, width=8, squashed=True)
    actor = filled(skeleton(networks.actor, SPEC), 11)
    for bias, expected in ((-50.0, -10), (50.0, 2), (0.0, None)):
        moved = eqx.tree_at(lambda m: m.raw_log_std.bias, actor, jnp.full(2, bias))
        found = moved(*random(12, (3,), (2,))).log_std
        if expected is None:
            assert np.all((found > -10) & (found < 2))
        else:
            np.testing.assert_allclose(found, expected, atol=1e-5)
    plain = HypersphericalNetworks(depth=4, width=8)
    actor = filled(skeleton(plain.actor, SPEC), 11)
    np.testing.assert_array_equal(actor(*random(12, (3,), (2,))).log_std, np.zeros(2))


@blocks
@pytest.mark.parametrize("name", ("depth", "actor_depth"))
def test_broken_blocks_are_refused(block, name):
    for depth in (-4, 0, 1, 3, 5) + ((2, 6) if block is SphereBlock.RESIDUAL else ()):
        advice = f"`{name}`.*blocks of {block.layers}; got {depth}.*multiple of {block.layers}"
        with pytest.raises(ValueError, match=advice):
            HypersphericalNetworks(block=block, **{name: depth})
    networks = HypersphericalNetworks(block=block, **{name: 3 * block.layers})
    critic, actor = (skeleton(f, SPEC) for f in (networks.critic, networks.actor))
    found = blocks_of(critic.goal), blocks_of(actor)
    default = networks.depth // block.layers
    assert found == {"depth": (3, 3), "actor_depth": (default, 3)}[name]


@pytest.mark.parametrize(
    ("field", "advice"),
    [
        ({"width": 0}, "`width` must be positive"),
        ({"dim": 0}, "`dim` must be positive"),
        ({"unroll": 0}, "`unroll` must be positive"),
        ({"scale": 0.0}, "`scale` is positive and below its cap of 100"),
        ({"scale": 100.0}, "`scale` is positive and below its cap of 100"),
        ({"step": 0.0}, r"`step` is a share of the way, in \(0, 1\]"),
        ({"step": 1.5}, r"`step` is a share of the way, in \(0, 1\]"),
        ({"shift": 0.0}, "`shift` must be positive"),
        ({"energy": IQE(5), "dim": 8}, "8"),
    ],
    ids=str,
)
def test_impossible_fields_are_refused(field, advice):
    with pytest.raises(ValueError, match=advice):
        HypersphericalNetworks(**field)


def test_deep_networks_keep_less():
    def remat(depth, choice=None):
        networks = HypersphericalNetworks(depth=depth, width=8, remat=choice, unroll=2)
        stack = skeleton(networks.critic, SPEC).goal.trunk.stack
        assert stack.unroll == 2
        return stack.remat

    kept = [remat(depth) for depth in (4, 8, 508, 512)]
    assert kept == [Remat.NONE, Remat.PRODUCTS, Remat.PRODUCTS, Remat.BLOCK]
    assert (remat(4, Remat.NESTED), remat(64, Remat.NONE)) == (Remat.NESTED, Remat.NONE)
