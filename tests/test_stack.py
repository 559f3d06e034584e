import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from architectures import AbstractBlock, Plain, Remat, Residual, Sequential, Stacked, Tied, stacked
from architectures import fan_average_uniform as initializer
from architectures._fold import group_sizes

WIDTH, DEPTH, BATCH = 8, 5, 4
VARIANTS = {
    "scan": (Remat.NONE, 1),
    "remat": (Remat.BLOCK, 1),
    "products": (Remat.PRODUCTS, 1),
    "unroll": (Remat.NONE, 2),  # Does not divide the depth.
    "both": (Remat.BLOCK, DEPTH),
    "nested": (Remat.NESTED, 1),
}


def residual(key):
    return Residual(WIDTH, key=key)


def plain(key):
    return Plain(WIDTH, WIDTH, normalize=True, initializer=initializer(), key=key)


build = eqx.filter_jit(stacked)


def moved(tree, key):
    """Every array moved off its initial value, so that biases and gains matter."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)
    keys = jr.split(key, len(leaves))
    leaves = [a + 0.3 * jr.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return eqx.combine(jax.tree.unflatten(treedef, leaves), rest)


@functools.cache
def example(make):
    """Blocks in a sequence, and inputs."""
    bkey, mkey, xkey = jr.split(jr.key(1), 3)
    sequence = moved(build(make, DEPTH, key=bkey), mkey).unstack()
    return sequence, jr.normal(xkey, (BATCH, WIDTH))


def doubled(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float64) if eqx.is_array(a) else a, tree)


@functools.cache
def reference(make):
    return value_and_gradient(*example(make))


@eqx.filter_jit
def value_and_gradient(stack, x):
    def loss(stack_and_x):
        stack, x = stack_and_x
        y = jax.vmap(stack)(x)
        return jnp.sum(jnp.sin(y) * jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))

    return eqx.filter_value_and_grad(loss)((stack, x))


def leaves_of(gradient):
    """Leaves of the gradient of a stack or of a sequence, blocks on the leading axis."""
    stack, x = gradient
    if isinstance(stack, Sequential):
        blocks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *stack.blocks)
    else:
        blocks = stack.blocks
    return [*jax.tree.leaves(blocks), x]


def compare(result, other, value_tolerance, gradient_tolerance):
    (value, gradient), (expected, expected_gradient) = result, other
    assert value.dtype == expected.dtype
    np.testing.assert_allclose(value, expected, rtol=value_tolerance)
    for a, b in zip(leaves_of(gradient), leaves_of(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=gradient_tolerance * np.max(np.abs(b)))


@pytest.mark.parametrize(
    "make, variant",
    [
        *((plain, variant) for variant in VARIANTS),
        (residual, "scan"),
        pytest.param(residual, "both", marks=pytest.mark.thorough),
    ],
)
def test_scan_equals_loop(make, variant):
    remat, unroll = VARIANTS[variant]
    sequence, x = example(make)
    stack = sequence.stack(remat=remat, unroll=unroll)
    assert (stack.remat, stack.unroll) == (remat, unroll)
    compare(value_and_gradient(stack, x), reference(make), 1e-6, 1e-5)


def test_scan_equals_loop_in_double_precision():
    with jax.enable_x64(True):
        sequence, x = doubled(example(plain))
        loop = value_and_gradient(sequence, x)
        for remat in Remat:
            compare(value_and_gradient(sequence.stack(remat=remat), x), loop, 1e-12, 1e-12)


def test_the_blocks_are_applied_in_order(getkey):
    """Known answer: affine blocks compose as a polynomial of the coefficients."""
    scales, shifts = jnp.array([2.0, 3.0, 5.0]), jnp.array([1.0, 7.0, 11.0])
    blocks = tuple(Affine(a, b) for a, b in zip(scales, shifts, strict=True))
    x = jr.normal(getkey(), (2,))
    expected = 30 * np.asarray(x, np.float64) + (1 * 3 * 5 + 7 * 5 + 11)
    np.testing.assert_allclose(Sequential(blocks)(x), expected, rtol=1e-6)
    np.testing.assert_allclose(Sequential(blocks).stack()(x), expected, rtol=1e-6)


def test_the_carry_keeps_its_dtype():
    arrays, rest = eqx.partition(example(plain)[0].stack(), eqx.is_array)
    stack = eqx.combine(jax.tree.map(lambda a: a.astype(jnp.bfloat16), arrays), rest)
    assert eqx.filter_jit(stack)(jnp.ones(WIDTH, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("remat", Remat)
def test_unstack_then_stack_is_bitwise(remat):
    stack = example(residual)[0].stack(remat=remat, unroll=2)
    sequence = stack.unstack()
    assert len(sequence.blocks) == stack.depth == DEPTH
    assert eqx.tree_equal(stack, sequence.stack(remat=remat, unroll=2))
    assert eqx.tree_equal(sequence, sequence.stack().unstack())


def test_blocks_do_not_depend_on_depth(getkey):
    key = getkey()
    shallow, deep = build(plain, 3, key=key), build(plain, 7, key=key)
    head = jax.tree.map(lambda a: a[:3] if eqx.is_array(a) else a, deep.blocks)
    assert eqx.tree_equal(shallow.blocks, head)
    other = build(plain, 3, key=getkey())
    assert not eqx.tree_equal(shallow.blocks, other.blocks)


def test_blocks_differ(getkey):
    weight = np.asarray(build(plain, DEPTH, key=getkey()).blocks.linear.weight)
    assert len({w.tobytes() for w in weight}) == DEPTH


@pytest.mark.parametrize("depth", (0, -1))
def test_no_block_is_refused(depth, getkey):
    with pytest.raises(ValueError, match="at least one block"):
        stacked(residual, depth, key=getkey())


@pytest.mark.parametrize("unroll", (0, -2))
def test_no_unrolling_is_refused(unroll):
    with pytest.raises(ValueError, match="at least 1"):
        example(plain)[0].stack(unroll=unroll)


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="at least one block"):
        Sequential(())


def test_unlike_blocks_are_refused():
    block, residual_block = (example(make)[0].blocks[0] for make in (plain, residual))
    bare = eqx.tree_at(lambda b: b.norm, block, None)
    for other in (bare, residual_block):
        with pytest.raises(ValueError, match="one type and configuration"):
            Sequential((block, other)).stack()


def test_checkpoints_save_memory(getkey):
    """Without them a block keeps about eight vectors a row, with them only its input."""

    def temporary(remat):
        stack = eqx.filter_eval_shape(lambda k: stacked(plain, 32, remat=remat, key=k), getkey())
        arrays, rest = eqx.partition(stack, lambda a: isinstance(a, jax.ShapeDtypeStruct))

        def gradient(arrays, x):
            def loss(arrays):
                return jnp.sum(jax.vmap(eqx.combine(arrays, rest))(x) ** 2)

            return jax.grad(loss)(arrays)

        compiled = jax.jit(gradient).lower(arrays, jnp.ones((256, WIDTH))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    everything, inputs, groups = map(temporary, (Remat.NONE, Remat.BLOCK, Remat.NESTED))
    assert inputs < 0.5 * everything
    assert groups < 0.7 * inputs


@pytest.mark.parametrize("length", (1, 2, 3, 7, 16, 30, 61, 256, 1021))
def test_nested_groups_are_near_the_root(length):
    groups, size = group_sizes(length)
    assert 0 <= length - groups * size < size
    assert size <= 2 * math.isqrt(length)
    assert groups <= 3 * math.isqrt(length)
    if length in (1, 16, 30, 256):  # Nothing over, so that no parameters are copied.
        assert groups * size == length


@pytest.mark.parametrize("remat", Remat)
def test_tied_blocks_equal_a_sequence_of_one(remat, getkey):
    """Value, and gradient: the sum of those of all its places."""
    block, x = moved(plain(getkey()), getkey()), jr.normal(getkey(), (BATCH, WIDTH))
    value, (gradient, slope) = value_and_gradient(Tied(block, DEPTH, remat), x)
    expected, (blocks, expected_slope) = value_and_gradient(Sequential((block,) * DEPTH), x)
    total = jax.tree.map(lambda *leaves: sum(leaves), *blocks.blocks)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    pairs = zip(
        jax.tree.leaves((gradient.block, slope)),
        jax.tree.leaves((total, expected_slope)),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.max(np.abs(b)))


def test_tied_blocks_have_one_blocks_parameters(getkey):
    block = plain(getkey())
    assert eqx.tree_equal(Tied(block, 100).block, block)
    with pytest.raises(ValueError, match="at least one block"):
        Tied(block, 0)
    with pytest.raises(ValueError, match="at least 1"):
        Tied(block, 2, unroll=0)


class Affine(AbstractBlock):
    scale: jax.Array
    shift: jax.Array

    def __call__(self, x):
        return self.scale * x + self.shift


class Counting(AbstractBlock):
    weight: jax.Array
    calls: list = eqx.field(static=True)

    def __call__(self, x):
        self.calls.append(x.shape)
        return jnp.tanh(self.weight * x)


@pytest.mark.parametrize("remat", Remat)
def test_traces_do_not_grow_with_depth(remat):
    def traces(depth, make):
        calls = []
        blocks = Counting(jnp.ones((depth, WIDTH)), calls)
        compiled = eqx.filter_jit(eqx.filter_grad(lambda s, x: jnp.sum(make(s)(x))))
        compiled(Stacked(blocks, remat), jnp.ones(WIDTH))
        return len(calls)

    # 4, 16 and 36 blocks are groups of 2, 4 and 6: nothing is over.
    assert 1 <= traces(4, lambda s: s) == traces(36, lambda s: s) <= 3
    assert traces(6, Stacked.unstack) == 6  # The count counts: the loop traces each block.


@pytest.mark.parametrize("remat", Remat)
def test_rows_are_independent(remat):
    order = np.array([3, 0, 1, 2])
    batched = eqx.filter_jit(lambda stack, x: jax.vmap(stack)(x))
    single = eqx.filter_jit(lambda stack, x: stack(x))
    with jax.enable_x64(True):
        sequence, x = doubled(example(plain))
        stack = sequence.stack(remat=remat)
        y = batched(stack, x)
        np.testing.assert_allclose(batched(stack, x[order]), y[order], rtol=1e-12)
        for row, expected in zip(x, y, strict=True):
            np.testing.assert_allclose(single(stack, row), expected, rtol=1e-12)
