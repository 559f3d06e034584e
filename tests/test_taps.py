"""What taps tell of blocks, and that they leave networks alone."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from lengths import at_length

from architectures import (
    Encoder,
    HyperLerp,
    MLPNetworks,
    Plain,
    Remat,
    Residual,
    Sequential,
    Tied,
    Trunk,
    dense,
    effective_rank,
    fan_average_uniform,
    layer_norm,
    stacked,
)
from crlx import Spec

WIDTH, ROWS = 8, 16
DEPTH = 17  # `Remat.NESTED` makes four groups of four and leaves one block over.
BLOCKS = {
    "residual": lambda key: Residual(WIDTH, key=key),
    "plain": lambda key: Plain(
        WIDTH, WIDTH, normalize=True, initializer=fan_average_uniform(), key=key
    ),
    "hyperspherical": lambda key: HyperLerp(WIDTH, step=0.2, key=key),
}


@functools.cache
def built(kind):
    return eqx.filter_jit(stacked)(BLOCKS[kind], DEPTH, key=jr.key(0))


def example(kind, remat=Remat.NONE):
    stack = dataclasses.replace(built(kind), remat=remat)
    return stack, jr.normal(jr.key(1), (ROWS, WIDTH))


@eqx.filter_jit
def apply(block, x):
    return block(x)


def by_hand(blocks, x):
    """The last output and the statistics, from a loop in double precision over single blocks."""
    found = []
    for block in blocks:
        y = np.asarray(apply(block, jnp.asarray(x, jnp.float32)), np.float64)
        branch = y - x
        sizes = np.linalg.norm(branch), np.linalg.norm(x)
        cosine = branch @ x / (sizes[0] * sizes[1])
        found.append((sizes[0], np.linalg.norm(y), sizes[0] / sizes[1], cosine, y.mean()))
        x = y
    return x, np.stack(found, axis=1)


def check(network, blocks, x):
    y, statistics = eqx.filter_jit(type(network).tap)(network, x)
    expected, rows = by_hand(blocks, np.asarray(x, np.float64))
    names = ("branch", "stream", "ratio", "cosine", "mean")
    found = np.stack([getattr(statistics, name) for name in names])
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(found, rows, rtol=1e-4, atol=1e-5)


some_remats = pytest.mark.parametrize("remat", at_length(Remat, {Remat.NONE, Remat.NESTED}))


@some_remats
def test_a_stack_tells_what_a_loop_over_its_blocks_finds(remat):
    stack, x = example("residual", remat)
    check(stack, stack.unstack().blocks, x[0])


def test_a_sequence_tells_the_same():
    stack, x = example("residual")
    blocks = stack.unstack().blocks[:3]
    check(Sequential(blocks), blocks, x[0])


@some_remats
def test_a_tied_stack_tells_of_each_application(remat):
    block = BLOCKS["residual"](jr.key(2))
    check(Tied(block, DEPTH, remat), [block] * DEPTH, example("residual")[1][0])


def test_encoders_tell_of_their_blocks_and_pass_the_output_on(getkey):
    stack, x = example("residual")
    stem, output = BLOCKS["plain"](getkey()), dense(WIDTH, 5, fan_average_uniform(), key=getkey())
    encoder = Encoder(Trunk(stem, stack, layer_norm(WIDTH)), output)
    y, statistics = encoder.tap(x[0])
    _, inner = stack.tap(stem(x[0]))
    np.testing.assert_allclose(y, encoder(x[0]), atol=1e-6)
    np.testing.assert_allclose(statistics.branch, inner.branch, rtol=1e-5)


def test_a_network_without_blocks_says_so(getkey):
    actor = MLPNetworks(depth=1, width=WIDTH).actor(Spec(3, 2, 3), key=getkey())
    with pytest.raises(ValueError, match="without blocks"):
        actor.trunk.tap(jnp.zeros(6))


def test_a_block_that_does_nothing_has_finite_statistics():
    silent = jax.tree.map(jnp.zeros_like, BLOCKS["residual"](jr.key(0)))
    _, statistics = Tied(silent, 2).tap(jnp.zeros(WIDTH))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(statistics))


@eqx.filter_jit
def value_and_gradient(stack, x, tapped):
    def loss(both):
        stack, x = both
        y, statistics = jax.vmap(stack.tap)(x) if tapped else (jax.vmap(stack)(x), None)
        return jnp.mean(jnp.sin(y)), statistics

    (value, _), gradient = eqx.filter_value_and_grad(loss, has_aux=True)((stack, x))
    return value, gradient


@pytest.mark.parametrize(
    ("kind", "remat"),
    [
        *at_length([("residual", r) for r in Remat], [("residual", Remat.PRODUCTS)]),
        ("plain", Remat.NONE),
        ("hyperspherical", Remat.BLOCK),
    ],
)
def test_taps_change_no_bit_of_loss_and_gradient(kind, remat):
    stack, x = example(kind, remat)
    plain, tapped = (value_and_gradient(stack, x, flag) for flag in (False, True))
    assert eqx.tree_equal(plain, tapped)


def test_no_gradient_passes_through_statistics():
    stack, x = example("residual")

    def total(x):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(stack.tap(x)[1]))

    assert not np.any(jax.grad(total)(x[0]))


def primitives(jaxpr):
    """Names of all operations, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from primitives(inner)


def operations(function, x):
    return [*primitives(jax.make_jaxpr(function)(x).jaxpr)]


@some_remats
def test_a_network_that_is_not_tapped_computes_no_statistics(remat):
    stack, x = example("residual", remat)
    off, on = operations(stack, x[0]), operations(stack.tap, x[0])
    assert "optimization_barrier" not in off
    assert "optimization_barrier" in on

    def own(x):  # What it would be without any thought of taps.
        arrays, static = eqx.partition(stack.blocks, eqx.is_array)
        return jax.lax.scan(lambda x, a: (eqx.combine(a, static)(x), None), x, arrays)[0]

    if remat is Remat.NONE:
        assert off == operations(own, x[0])


@pytest.mark.parametrize("depth", [2, DEPTH])
def test_blocks_are_traced_once_whatever_the_depth(depth):
    stack = jax.tree.map(lambda a: a[:depth] if eqx.is_array(a) else a, built("residual"))
    count = operations(stack.tap, jnp.zeros(WIDTH)).count("dot_general")
    assert count == 5  # Four layers and the cosine.


def test_effective_rank_has_known_answers(getkey):
    rows = jnp.concatenate([jnp.eye(5), -jnp.eye(5)])
    np.testing.assert_allclose(effective_rank(rows), 5, rtol=1e-5)
    line = jnp.outer(jnp.arange(7.0), jnp.arange(1.0, 5.0))
    np.testing.assert_allclose(effective_rank(line), 1, atol=1e-3)
    assert effective_rank(jnp.ones((6, 3))) == 0


def test_effective_rank_ignores_offset_and_size(getkey):
    rows = jr.normal(getkey(), (20, 6)) * jnp.arange(1.0, 7.0)[None]
    expected = effective_rank(rows)
    np.testing.assert_allclose(effective_rank(3 * rows + 1), expected, rtol=1e-4)


def test_effective_rank_equals_the_formula_in_double_precision(getkey):
    rows = jr.normal(getkey(), (30, 8)) * 0.5 ** jnp.arange(8.0)[None]
    exact = np.asarray(rows, np.float64)
    values = np.linalg.svd(exact - exact.mean(0), compute_uv=False)
    share = values / values.sum()
    np.testing.assert_allclose(effective_rank(rows), np.exp(-share @ np.log(share)), rtol=1e-5)
