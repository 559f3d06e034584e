"""Laws that every trunk keeps, over drawn depths, widths and batches."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lengths import at_length
from skeletons import is_shape

from architectures import (
    Activation,
    HypersphericalNetworks,
    MLPNetworks,
    Remat,
    ResidualNetworks,
    ResidualScale,
    ResidualStyle,
    SphereBlock,
    Stacked,
    unstacked,
)
from crlx import Spec
from crlx.testing import batch_sizes, depths, keys, widths

SPEC = Spec(3, 2, 2)
STABLE = ResidualStyle(residual_scale=ResidualScale.RSQRT, final_norm=True)
MAKES = {
    "residual": ResidualNetworks,
    "learned": functools.partial(
        ResidualNetworks,
        style=ResidualStyle(
            residual_scale=ResidualScale.LEARNED, prenorm=True, activation=Activation.GELU
        ),
    ),
    "tied": functools.partial(ResidualNetworks, style=ResidualStyle(tied=True, final_norm=True)),
    "mlp": MLPNetworks,
    "lerp": HypersphericalNetworks,
    "sphere": functools.partial(HypersphericalNetworks, block=SphereBlock.RESIDUAL),
}
every_make = pytest.mark.parametrize("name", MAKES)
# One of each reading of a block: the paper's with all its options, one block again and again, and
# the sphere's.
some_makes = pytest.mark.parametrize("name", at_length(MAKES, {"learned", "tied", "lerp"}))
WAYS = [
    (Remat.NONE, 1),
    (Remat.PRODUCTS, 1),
    (Remat.BLOCK, 1),
    (Remat.NESTED, 1),
    (Remat.NONE, 3),
    (Remat.NESTED, 2),
]


def encoder(name, depth, width, key, remat=Remat.NONE, unroll=1):
    networks = MAKES[name](depth=depth, width=width, dim=4, remat=remat, unroll=unroll)
    return eqx.filter_jit(networks.critic)(SPEC, key=key).state_action


@eqx.filter_jit
def value_and_gradient(encoder, x):
    def loss(encoder_and_x):
        encoder, x = encoder_and_x
        y = jax.vmap(encoder)(x)
        return jnp.sum(jnp.sin(3 * y) * jnp.arange(1.0, 1 + y.size, dtype=y.dtype).reshape(y.shape))

    value, gradient = eqx.filter_value_and_grad(loss)((encoder, x))
    return value, stacks_apart(gradient)


def stacks_apart(tree):
    """Leaves of a gradient, those of stacks block by block, so that twins agree in order."""
    return jax.tree.leaves(unstacked(tree))


@settings(max_examples=3)
@given(
    name=st.sampled_from(sorted(MAKES)),
    depth=depths(),
    width=widths(),
    rows=batch_sizes(),
    way=st.sampled_from(WAYS),
    key=keys(),
)
def test_scan_loop_remat_and_unroll_agree(name, depth, width, rows, way, key):
    x = jr.normal(key, (rows, 5))
    scanned = encoder(name, depth, width, key)
    other = encoder(name, depth, width, key, *way)
    value, gradient = value_and_gradient(scanned, x)
    for twin in (unstacked(scanned), other):
        again, slopes = value_and_gradient(twin, x)
        np.testing.assert_allclose(again, value, rtol=1e-5, atol=1e-5)
        for a, b in zip(slopes, gradient, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1, np.max(np.abs(b))))


@some_makes
def test_twins_agree_in_double_precision(name, getkey):
    with jax.enable_x64(True):
        scanned, x = encoder(name, 8, 8, jr.key(3)), jr.normal(getkey(), (3, 5), jnp.float64)
        scanned = jax.tree.map(lambda a: jnp.float64(a) if eqx.is_array(a) else a, scanned)
        value, gradient = value_and_gradient(scanned, x)
        again, slopes = value_and_gradient(unstacked(scanned), x)
        np.testing.assert_allclose(again, value, rtol=1e-12)
        for a, b in zip(slopes, gradient, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.max(np.abs(b)))


@settings(max_examples=4)
@given(
    name=st.sampled_from(sorted(MAKES)),
    depth=depths(),
    width=widths(),
    rows=batch_sizes(),
    key=keys(),
)
def test_rows_are_independent(name, depth, width, rows, key):
    """Permuting a batch permutes the output, and a batch is its rows one by one."""
    network, x = encoder(name, depth, width, key), jr.normal(key, (rows, 5))
    order = np.asarray(jr.permutation(key, rows))
    batched = eqx.filter_jit(lambda network, x: jax.vmap(network)(x))
    single = eqx.filter_jit(lambda network, x: network(x))
    y = np.asarray(batched(network, x))
    scale = np.max(np.abs(y))
    np.testing.assert_allclose(batched(network, x[order]), y[order], rtol=0, atol=2e-6 * scale)
    np.testing.assert_allclose(single(network, x[0]), y[0], rtol=0, atol=2e-6 * scale)


@some_makes
def test_the_carry_keeps_its_dtype(name):
    network = encoder(name, 8, 8, jr.key(0))
    low = jax.tree.map(lambda a: a.astype(jnp.bfloat16) if eqx.is_array(a) else a, network)
    assert eqx.filter_jit(low)(jnp.ones(5, jnp.bfloat16)).dtype == jnp.bfloat16


@settings(max_examples=4)
@given(name=st.sampled_from(sorted(MAKES)), depth=depths(), width=widths(), key=keys())
def test_unstacking_and_files_are_bitwise(name, depth, width, key, tmp_path_factory):
    network = encoder(name, depth, width, key)
    stacks = [s for s in jax.tree.leaves(network, is_leaf=is_stack) if is_stack(s)]
    for stack in stacks:
        assert eqx.tree_equal(stack.unstack().stack(remat=stack.remat), stack)
    path = tmp_path_factory.mktemp("network") / "leaves.eqx"
    eqx.tree_serialise_leaves(path, network)
    skeleton = eqx.filter_eval_shape(encoder, name, depth, width, key)
    assert eqx.tree_equal(eqx.tree_deserialise_leaves(path, skeleton), network)
    if stacks:
        deeper = eqx.filter_eval_shape(encoder, name, 2 * depth, width, key)
        with pytest.raises(RuntimeError, match="shape"):
            eqx.tree_deserialise_leaves(path, deeper)


def is_stack(node):
    return isinstance(node, Stacked)


@settings(max_examples=5)
@given(name=st.sampled_from(sorted(MAKES)), depth=depths(), width=widths(), key=keys())
def test_blocks_do_not_depend_on_depth(name, depth, width, key):
    shallow, deep = encoder(name, depth, width, key), encoder(name, 2 * depth, width, key)
    if name == "tied":
        assert eqx.tree_equal(shallow.trunk.stack.block, deep.trunk.stack.block)
        return
    a, b = (eqx.filter(n.trunk.stack.blocks, eqx.is_array) for n in (shallow, deep))
    b = jax.tree.map(lambda leaf, like: leaf[: len(like)], b, a)
    if name == "learned":  # Its factor starts by a rule of depth.
        a, b = (eqx.tree_at(lambda n: n.scale, n, None) for n in (a, b))
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        # Unit vectors may be rounded otherwise where more of them are normalized at once.
        np.testing.assert_allclose(one, other, rtol=3e-7, atol=1e-8)
    for leaf in jax.tree.leaves(a):
        if leaf.ndim == 3:  # Weights of distinct layers differ.
            assert len({w.tobytes() for w in np.asarray(leaf)}) == len(leaf)


def parameters(network):
    arrays = jax.tree.leaves(network, is_leaf=is_shape)
    return sum(a.size for a in arrays if is_shape(a))


@every_make
@given(
    depth=st.sampled_from((4, 8, 16, 32, 1024)),
    width=st.integers(4, 300),
    dim=st.integers(1, 9).map(lambda n: 4 * n),
    sizes=st.tuples(st.integers(1, 40), st.integers(0, 9)),
)
@settings(max_examples=10)
def test_parameter_counts_in_closed_form(name, depth, width, dim, sizes):
    networks = MAKES[name](depth=depth, width=width, dim=dim)
    critic = eqx.filter_eval_shape(networks.critic, Spec(*sizes, 3), key=jr.key(0))
    n, w, x = depth // 4, width, sum(sizes)
    paper = x * w + 3 * w + n * (4 * w * w + 12 * w) + w * dim + dim
    sphere = (x + 1) * w + w + w * w + w + w * dim + dim
    expected = {
        "residual": paper,
        "learned": paper + n * (2 * w + 1),  # The norm at a block's entry, and its factor.
        "tied": paper - (n - 1) * (4 * w * w + 12 * w) + 2 * w,
        "mlp": x * w + 3 * w + (depth - 1) * (w * w + 3 * w) + w * dim + dim,
        "lerp": sphere + depth // 2 * (8 * w * w + 5 * w),
        "sphere": sphere + n * (4 * w * w + 5 * w),
    }
    assert parameters(critic.state_action) == expected[name]


@pytest.mark.parametrize("name", [name for name in MAKES if name != "mlp"])
@given(depth=st.integers(-9, 60))
def test_depth_is_a_whole_number_of_blocks(name, depth):
    layers = 2 if name == "lerp" else 4
    for sizes in ({"depth": depth}, {"actor_depth": depth}):
        if depth >= layers and depth % layers == 0:
            MAKES[name](**sizes)
        else:
            with pytest.raises(ValueError, match=f"multiple of {layers}"):
                MAKES[name](**sizes)
