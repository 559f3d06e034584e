import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import (
    IQE,
    HyperDense,
    HyperHead,
    HyperLerp,
    HyperResidual,
    HypersphericalNetworks,
    HyperStem,
    Lerp,
    Remat,
    ResidualNetworks,
    Scaler,
    SphereBlock,
    unit,
)
from crlx import Spec, project
from crlx.testing import batches, depths, keys, widths

BLOCKS = {HyperLerp: SphereBlock.LERP, HyperResidual: SphereBlock.RESIDUAL}
SPEC = Spec(3, 2, 2)
blocks = pytest.mark.parametrize("block", SphereBlock, ids=lambda b: b.name)
kinds = pytest.mark.parametrize("kind", BLOCKS, ids=lambda k: k.__name__)


def skeleton(build, spec):
    return eqx.filter_eval_shape(build, spec, key=jr.key(0))


def is_shape(x):
    return isinstance(x, jax.ShapeDtypeStruct)


def blocks_of(network):
    """The number of blocks of a skeleton."""
    (count,) = {x.shape[0] for x in jax.tree.leaves(network.trunk.stack) if is_shape(x)}
    return count


def randomized(tree, seed):
    """All arrays random, none on its sphere: the forward pass must not depend on that."""
    rng = np.random.default_rng(seed)

    def fill(x):
        return jnp.asarray(rng.normal(size=x.shape) * 0.7, jnp.float32)

    return jax.tree.map(lambda x: fill(x) if eqx.is_array(x) or is_shape(x) else x, tree)


def random(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def batched(module, x):
    return eqx.filter_jit(lambda m, x: jax.vmap(lambda v: m(v))(x))(module, x)


# An independent reference in NumPy and float64, on dictionaries from the paths of arrays.
def np_arrays(tree):
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {jax.tree_util.keystr(path): np.float64(leaf) for path, leaf in leaves}


def under(p, prefix):
    return {name.removeprefix(prefix): x for name, x in p.items() if name.startswith(prefix)}


def np_unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def np_lerp(p, x, y, step):
    alpha = p[".lerp.alpha.factor"] * step * np.sqrt(x.shape[-1])
    return np_unit(x + alpha * (np_unit(y) - x))


def np_hyper_lerp(p, x, step):
    h = (x @ p[".wide.weight"].T) * p[".scaler.factor"]
    return np_lerp(p, x, (np.maximum(h, 0) + 1e-8) @ p[".narrow.weight"].T, step)


def np_hyper_residual(p, x, step):
    h = x
    for i in range(4):
        h = np_unit(h @ p[f".layers[{i}].dense.weight"].T)
        h = h * p[f".layers[{i}].scaler.factor"] * np.sqrt(x.shape[-1])
        h = h / (1 + np.exp(-h))
    return np_lerp(p, x, h, step)


NUMPY = {HyperLerp: np_hyper_lerp, HyperResidual: np_hyper_residual}


def np_encoder(p, x, kind, step):
    x = np_unit(np.concatenate([x, np.full((len(x), 1), 3.0)], 1))
    x = np_unit((x @ p[".trunk.stem.dense.weight"].T) * p[".trunk.stem.scaler.factor"])
    layers = under(p, ".trunk.stack.blocks")
    for i in range(len(next(iter(layers.values())))):
        x = NUMPY[kind]({name: leaf[i] for name, leaf in layers.items()}, x, step)
    x = (x @ p[".output.hidden.weight"].T) * p[".output.scaler.factor"]
    return x @ p[".output.output.weight"].T + p[".output.bias"]


def np_critic(p, s, a, goal, kind, step):
    phi = np_encoder(under(p, ".state_action"), np.concatenate([s, a], 1), kind, step)
    psi = np_encoder(under(p, ".goal"), goal, kind, step)
    distance = np.sqrt(((phi[:, None] - psi[None]) ** 2).sum(-1))
    return -np.exp(p[".log_scale"]) * distance


def np_gradient(function, p, size=1e-6):
    """Central differences, one number at a time."""
    slopes = {}
    for name, leaf in p.items():
        slopes[name] = np.zeros_like(leaf)
        for index in np.ndindex(leaf.shape):
            ends = []
            for sign in (1, -1):
                moved = np.array(leaf)
                moved[index] += sign * size
                ends.append(function(p | {name: moved}))
            slopes[name][index] = (ends[0] - ends[1]) / (2 * size)
    return slopes


def assert_equals_numpy(module, call, reference, weight):
    """Outputs to within 1e-5 and gradients to within 1e-4 of the largest entry of each array."""

    def total(module):
        y = call(module)
        return jnp.sum(weight * y), y

    gradient, y = eqx.filter_jit(eqx.filter_grad(total, has_aux=True))(module)
    p, weight = np_arrays(module), np.float64(weight)
    expected = reference(p)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.max(np.abs(expected)))
    slopes = np_gradient(lambda p: np.sum(weight * reference(p)), p)
    found = np_arrays(gradient)
    assert found.keys() == slopes.keys()
    for name, slope in slopes.items():
        largest = np.max(np.abs(slope))
        assert largest > 1e-3, name
        np.testing.assert_allclose(found[name], slope, rtol=0, atol=1e-4 * largest, err_msg=name)


@kinds
def test_blocks_equal_double_precision(kind):
    module = randomized(kind(4, step=0.3, key=jr.key(0)), 1)
    x, weight = random(2, (5, 4), (5, 4))
    assert_equals_numpy(
        module,
        lambda m: jax.vmap(lambda v: m(v))(x),
        lambda p: NUMPY[kind](p, np.float64(x), 0.3),
        weight,
    )


@kinds
def test_critics_equal_double_precision(kind):
    block = BLOCKS[kind]
    networks = HypersphericalNetworks(depth=2 * block.layers, width=4, dim=3, block=block)
    critic = randomized(skeleton(networks.critic, SPEC), 3)
    *inputs, weight = random(4, (4, 3), (4, 2), (5, 2), (4, 5))
    assert_equals_numpy(
        critic,
        lambda m: m.pairs(*inputs),
        lambda p: np_critic(p, *map(np.float64, inputs), kind, 1 / 3),
        weight,
    )


@given(keys(), widths())
@settings(max_examples=8)
def test_rows_start_orthonormal(key, rows):
    size = 16
    weight = np.float64(HyperDense(size, rows, key=key).weight)
    product = weight @ weight.T
    np.testing.assert_allclose(np.diag(product), 1, rtol=0, atol=1e-6)
    if rows <= size:
        np.testing.assert_allclose(product, np.eye(rows), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sizes", [(4, 3), (8, 2)], ids=str)
def test_layers_under_vmap_are_those_made_singly(sizes):
    """And no decomposition has a batch: two of those that meet on a CPU may wait for ever."""
    split = jr.split(jr.key(0), (2, 3))
    build = eqx.filter_vmap(eqx.filter_vmap(lambda key: HyperDense(*sizes, key=key)))
    single = [[HyperDense(*sizes, key=key).weight for key in some] for some in split]
    np.testing.assert_allclose(build(split).weight, np.asarray(single), rtol=0, atol=1e-6)
    program = str(jax.make_jaxpr(lambda split: build(split).weight)(split))
    found = re.findall(r"(.*) = (?:qr|cholesky|triangular_solve)\b", program)
    assert found
    assert not any(re.search(r"\[\d+,\d+,", outputs) for outputs in found)


@given(
    weight=batches(5, 4),
    x=batches(3, 4),
    factors=st.lists(st.floats(0.0625, 16, width=32), min_size=5, max_size=5),
)
def test_the_size_of_raw_weights_does_not_matter(weight, x, factors):
    """To within 1e-5 of the input's length."""
    dense = HyperDense(4, 5, key=jr.key(0))
    scaled = weight * jnp.asarray(factors)[:, None]
    first, second = (
        project(eqx.tree_at(lambda m: m.weight, dense, w)).weight for w in (weight, scaled)
    )
    a, b = (np.float64(x) @ np.float64(w).T for w in (first, second))
    assert np.max(np.abs(a - b)) <= 1e-5 * max(np.max(np.linalg.norm(x, axis=1)), 1e-3)


@given(
    x=batches(1, 4),
    start=st.floats(0.0625, 64, width=32),
    step=st.floats(0.0625, 64, width=32),
)
def test_scalers_start_and_move_at_their_own_pace(x, start, step):
    """To within 1e-5 of each number."""
    scaler, x = Scaler(4, start, step), x[0]
    gradient = eqx.filter_grad(lambda s: jnp.sum(s(x)))(scaler).factor
    np.testing.assert_allclose(scaler(x), start * np.float64(x), rtol=1e-5)
    np.testing.assert_allclose(gradient, start / step * np.float64(x), rtol=1e-5)


def test_stems_tell_lengths_apart(getkey):
    stem = HyperStem(3, 8, key=getkey())
    x = jr.normal(getkey(), (16, 3))
    apart = np.linalg.norm(batched(stem, x) - batched(stem, 2 * x), axis=1)
    assert np.min(apart) > 0.02
    # Without the number appended they would be equal, to within rounding.
    np.testing.assert_allclose(unit(x), unit(2 * x), rtol=0, atol=1e-6)


def test_stems_map_zero_to_the_last_direction(getkey):
    stem = randomized(HyperStem(3, 8, key=getkey()), 5)
    slopes = eqx.filter_jit(eqx.filter_grad(lambda trained: trained[0](trained[1])[0]))
    for size in (0.0, 1e-30):
        x = jnp.full(3, size)
        expected = np_unit(np.float64(stem.dense.weight[:, -1]) * np.float64(stem.scaler.factor))
        np.testing.assert_allclose(stem(x), expected, rtol=0, atol=1e-6)
        gradients = jax.tree.leaves(slopes((stem, x)))
        assert len(gradients) == 3
        for gradient in gradients:
            assert np.all(np.isfinite(gradient))
            assert np.any(gradient != 0)


def test_vectors_of_zero_pass_no_gradient():
    """Else the gradient of a network at zero is NaN: a factor of 1e8 per layer overflows."""
    x = jnp.asarray([[0.0, 0.0], [1e-9, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(unit(x), [[0, 0], [0.1, 0], [0.6, 0.8]], rtol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(unit(x)[:, 0]))(x)
    np.testing.assert_allclose(slope, [[0, 0], [0, 0], [0.128, -0.096]], rtol=0, atol=1e-6)


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
    h = np.float64(features(randomized(trunk(block, depth, width), seed), x))
    assert h.shape == (4, 1 + depth // block.layers, width)
    np.testing.assert_allclose(np.linalg.norm(h, axis=-1), 1, rtol=0, atol=1e-6)


@kinds
def test_silenced_blocks_are_the_identity(kind):
    """To within 1e-6 on the sphere; and their step has a gradient that is not zero."""
    block = randomized(kind(8, step=0.3, key=jr.key(0)), 6)
    (x,) = random(7, (6, 8))
    x = unit(x)
    silenced = block.silenced()
    np.testing.assert_allclose(batched(silenced, x), x, rtol=0, atol=1e-6)
    assert np.max(np.abs(batched(block, x) - x)) > 0.1
    gradient = eqx.filter_jit(eqx.filter_grad(lambda b: jnp.sum(b(x[0]) * x[1])))(silenced)
    assert np.max(np.abs(gradient.lerp.alpha.factor)) > 1e-2
    # Nothing else changed.
    restored = eqx.tree_at(lambda b: b.lerp, silenced, block.lerp)
    assert eqx.tree_equal(restored, block)


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
    critic = randomized(skeleton(networks.critic, SPEC), 13)
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
    actor = randomized(skeleton(networks.actor, SPEC), 11)
    for bias, expected in ((-50.0, -10), (50.0, 2), (0.0, None)):
        moved = eqx.tree_at(lambda m: m.raw_log_std.bias, actor, jnp.full(2, bias))
        found = moved(*random(12, (3,), (2,))).log_std
        if expected is None:
            assert np.all((found > -10) & (found < 2))
        else:
            np.testing.assert_allclose(found, expected, atol=1e-5)
    plain = HypersphericalNetworks(depth=4, width=8)
    actor = randomized(skeleton(plain.actor, SPEC), 11)
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


def test_impossible_layers_are_refused(getkey):
    for make, advice in (
        (lambda: Scaler(4, 0.0, 1.0), "start and step are positive"),
        (lambda: Scaler(4, 1.0, -1.0), "start and step are positive"),
        (lambda: HyperStem(3, 4, shift=0.0, key=getkey()), "`shift` must be positive"),
        (lambda: HyperDense(0, 4, key=getkey()), "positive sizes"),
        (lambda: HyperHead(4, 0, key=getkey()), "positive sizes"),
        (lambda: Lerp(4, 0.0), "start and step are positive"),
    ):
        with pytest.raises(ValueError, match=advice):
            make()


def test_deep_networks_keep_less():
    def remat(depth, choice=None):
        networks = HypersphericalNetworks(depth=depth, width=8, remat=choice, unroll=2)
        stack = skeleton(networks.critic, SPEC).goal.trunk.stack
        assert stack.unroll == 2
        return stack.remat

    kept = [remat(depth) for depth in (4, 8, 508, 512)]
    assert kept == [Remat.NONE, Remat.PRODUCTS, Remat.PRODUCTS, Remat.BLOCK]
    assert (remat(4, Remat.NESTED), remat(64, Remat.NONE)) == (Remat.NESTED, Remat.NONE)
