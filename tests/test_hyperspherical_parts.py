import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skeletons import filled, random, skeleton
from spheres import SPEC, batched, np_unit

from architectures import (
    HyperDense,
    HyperHead,
    HyperLerp,
    HyperResidual,
    HypersphericalNetworks,
    HyperStem,
    Lerp,
    Scaler,
    SphereBlock,
    unit,
)
from crlx import project
from crlx.testing import batches, keys, widths

BLOCKS = {HyperLerp: SphereBlock.LERP, HyperResidual: SphereBlock.RESIDUAL}
kinds = pytest.mark.parametrize("kind", BLOCKS, ids=lambda k: k.__name__)


# An independent reference in NumPy and float64, on dictionaries from the paths of arrays.
def np_arrays(tree):
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {jax.tree_util.keystr(path): np.float64(leaf) for path, leaf in leaves}


def under(p, prefix):
    return {name.removeprefix(prefix): x for name, x in p.items() if name.startswith(prefix)}


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
    module = filled(kind(4, step=0.3, key=jr.key(0)), 1)
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
    critic = filled(skeleton(networks.critic, SPEC), 3)
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
    stem = filled(HyperStem(3, 8, key=getkey()), 5)
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


@kinds
def test_silenced_blocks_are_the_identity(kind):
    """To within 1e-6 on the sphere; and their step has a gradient that is not zero."""
    block = filled(kind(8, step=0.3, key=jr.key(0)), 6)
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
