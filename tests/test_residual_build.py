import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skeletons import filled, is_shape, random, skeleton

from architectures import Remat, ResidualNetworks
from crlx import Affine, Spec

# Sizes of state, action and goal, then parameters of the critic and of the actor by depth.
COUNTS = {
    (29, 8, 2): {
        4: (574_848, 278_032),
        16: (2_166_144, 1_073_680),
        64: (8_531_328, 4_256_272),
        256: (33_992_064, 16_986_640),
        1024: (135_835_008, 67_908_112),
    },
    (268, 17, 3): {
        4: (638_592, 344_098),
        16: (2_229_888, 1_139_746),
        64: (8_595_072, 4_322_338),
        256: (34_055_808, 17_052_706),
        1024: (135_898_752, 67_974_178),
    },
    (17, 5, 3): {
        4: (571_264, 273_674),
        16: (2_162_560, 1_069_322),
        64: (8_527_744, 4_251_914),
        256: (33_988_480, 16_982_282),
        1024: (135_831_424, 67_903_754),
    },
}


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree) if is_shape(x))


@pytest.mark.parametrize("depth", (4, 16, 64, 256, 1024))
@pytest.mark.parametrize("sizes", COUNTS)
def test_parameter_counts_of_the_paper(sizes, depth):
    networks, spec = ResidualNetworks(depth=depth, squashed=True), Spec(*sizes)
    counts = count(skeleton(networks.critic, spec)), count(skeleton(networks.actor, spec))
    assert counts == COUNTS[sizes][depth]


@pytest.mark.parametrize("squashed", (True, False))
def test_parameter_counts_in_closed_form(squashed):
    s, a, g, w, d, n, m = 5, 3, 2, 24, 10, 2, 3  # `n` blocks in a tower, `m` in the actor.
    networks = ResidualNetworks(4 * n, w, 4 * m, d, squashed=squashed)
    critic, actor = (skeleton(f, Spec(s, a, g)) for f in (networks.critic, networks.actor))
    towers = [size * w + 3 * w + n * (4 * w**2 + 12 * w) + d * w + d for size in (s + a, g)]
    heads = (2 if squashed else 1) * (w * a + a)
    assert count(critic) == sum(towers)
    assert count(actor) == (s + g) * w + 3 * w + m * (4 * w**2 + 12 * w) + heads
    trunks = critic.state_action.trunk, critic.goal.trunk, actor.trunk
    axes = [{x.shape[0] for x in filter(is_shape, jax.tree.leaves(t.stack))} for t in trunks]
    assert axes == [{n}, {n}, {m}]


def linears(trunk, heads):
    """Every dense layer, as pairs of weight and bias."""
    yield trunk.stem.linear.weight, trunk.stem.linear.bias
    for layer in trunk.stack.blocks.layers:
        yield from zip(layer.linear.weight, layer.linear.bias, strict=True)
    yield from ((head.weight, head.bias) for head in heads)


def test_initialization(getkey):
    networks, spec = (
        ResidualNetworks(depth=8, width=32, squashed=True, learn_scale=True),
        Spec(40, 9, 30),
    )
    make = eqx.filter_jit(lambda k: (networks.critic(spec, key=k), networks.actor(spec, key=k)))
    critic, actor = make(getkey())
    assert critic.log_scale == 0
    seen = set()
    for trunk, *heads in (
        (critic.state_action.trunk, critic.state_action.output),
        (critic.goal.trunk, critic.goal.output),
        (actor.trunk, actor.mean, actor.raw_log_std),
    ):
        for weight, bias in linears(trunk, heads):
            weight, limit = np.asarray(weight, np.float64), 1 / np.sqrt(weight.shape[1])
            assert np.max(np.abs(weight)) <= limit * (1 + 1e-6)
            error = np.mean(weight**2) - limit**2 / 3
            assert abs(error) <= 5 * limit**2 * np.sqrt(4 / 45 / weight.size)
            assert not np.any(bias)
            seen.add(weight.tobytes())
        for unit in (trunk.stem, *trunk.stack.blocks.layers):
            assert np.all(unit.norm.weight == 1)
            assert not np.any(unit.norm.bias)
    assert len(seen) == 3 * 9 + 4  # No two layers share their weights.


def test_silent_blocks_leave_the_stem():
    networks = ResidualNetworks(depth=12, width=8, dim=4)
    trunk = filled(skeleton(networks.critic, Spec(3, 2, 2)), scale=0.5).state_action.trunk

    def last(trunk):
        norm = trunk.stack.blocks.layers[3].norm
        return [norm.weight, norm.bias]

    @eqx.filter_jit
    def outputs(trunk, x):
        return jax.vmap(trunk.stem)(x), jax.vmap(lambda v: trunk(v))(x)

    (x,) = random(1, (6, 5))
    stem, whole = outputs(eqx.tree_at(last, trunk, replace_fn=jnp.zeros_like), x)
    np.testing.assert_array_equal(whole, stem)
    stem, whole = outputs(trunk, x)
    assert np.max(np.abs(whole - stem)) > 0.1


@pytest.mark.parametrize("name", ("depth", "actor_depth"))
@pytest.mark.parametrize("depth", (-4, 0, 1, 3, 5, 6, 10, 1022))
def test_broken_blocks_are_refused(name, depth):
    with pytest.raises(ValueError, match=f"`{name}`.*got {depth}.*multiple of 4") as error:
        ResidualNetworks(**{name: depth})
    advice = int(re.search(r"such as (\d+)", str(error.value)).group(1))
    assert ResidualNetworks(**{name: advice}).depth % 4 == 0


@pytest.mark.parametrize("field", ({"width": 0}, {"dim": 0}))
def test_empty_layers_are_refused(field):
    with pytest.raises(ValueError, match="must be positive"):
        ResidualNetworks(**field)


def test_deep_networks_keep_less():
    def remat(depth, choice=None):
        networks = ResidualNetworks(depth=depth, width=8, remat=choice, unroll=2)
        stack = skeleton(networks.critic, Spec(3, 2, 2)).goal.trunk.stack
        assert stack.unroll == 2
        return stack.remat

    kept = [remat(depth) for depth in (4, 8, 508, 512)]
    assert kept == [Remat.NONE, Remat.PRODUCTS, Remat.PRODUCTS, Remat.BLOCK]
    assert (remat(60, Remat.BLOCK), remat(64, Remat.NONE)) == (Remat.BLOCK, Remat.NONE)


def test_units_rescale_inputs():
    shift, scale = np.array([1.0, -2.0, 3.0]), np.array([10.0, 0.1, 2.0])
    units = Affine(tuple(shift.tolist()), tuple(scale.tolist()))
    goal_units = Affine((5.0, 6.0), (4.0, 0.5))
    s, a, goal = random(0, (5, 3), (5, 2), (5, 2))
    raw_s = jnp.asarray(np.float64(s) * scale + shift, jnp.float32)
    raw_goal = jnp.asarray(np.float64(goal) * (4, 0.5) + (5, 6), jnp.float32)
    networks = ResidualNetworks(width=8, dim=4, squashed=True)

    @eqx.filter_jit
    def outputs(critic, actor, s, goal):
        return critic.pairs(s, a, goal), jax.vmap(critic)(s, a, goal), jax.vmap(actor)(s, goal).mean

    plain, scaled = (
        [filled(skeleton(build, spec), scale=0.5) for build in (networks.critic, networks.actor)]
        for spec in (Spec(3, 2, 2), Spec(3, 2, 2, units, goal_units))
    )
    for x, y in zip(outputs(*scaled, raw_s, raw_goal), outputs(*plain, s, goal), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_learnt_scale_multiplies_scores():
    networks = ResidualNetworks(width=8, dim=4, learn_scale=True)
    critic = filled(skeleton(networks.critic, Spec(3, 2, 2)), scale=0.5)
    inputs = random(1, (3, 3), (3, 2), (3, 2))
    pairs = eqx.filter_jit(lambda critic: critic.pairs(*inputs))
    one = eqx.filter_jit(lambda critic: critic(*(x[0] for x in inputs)))

    def scaled(log_scale):
        return eqx.tree_at(lambda c: c.log_scale, critic, jnp.float32(log_scale))

    base = np.float64(pairs(scaled(0)))
    for log_scale, factor in ((0.5, np.exp(0.5)), (-2.0, np.exp(-2.0)), (9.0, 100.0)):
        np.testing.assert_allclose(pairs(scaled(log_scale)), factor * base, rtol=1e-5)
        np.testing.assert_allclose(one(scaled(log_scale)), factor * base[0, 0], rtol=1e-5)
