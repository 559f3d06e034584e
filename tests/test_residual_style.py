"""The options of residual networks: known answers, ablations, and statistics at depth."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings

from architectures import (
    Activation,
    Initialization,
    Remat,
    Residual,
    ResidualNetworks,
    ResidualScale,
    ResidualStyle,
)
from crlx import Spec, decode, encode
from crlx.testing import batch_sizes, depths, keys, widths


def trunk(style, depth=8, width=8, key=None, remat=Remat.NONE):
    build = eqx.filter_jit(style.trunk)
    key = jr.key(1) if key is None else key
    return build(5, width, depth, remat=remat, unroll=1, key=key)


def moved(tree, key):
    """Every array moved off its initial value, so that biases and gains matter."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)
    ks = jr.split(key, len(leaves))
    leaves = [a + 0.3 * jr.normal(k, a.shape) for a, k in zip(leaves, ks, strict=True)]
    return eqx.combine(jax.tree.unflatten(treedef, leaves), rest)


ACTIVATIONS = {
    Activation.SWISH: lambda x: x / (1 + np.exp(-x)),
    Activation.RELU: lambda x: np.maximum(x, 0),
    Activation.GELU: lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


def np_norm(norm, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * np.float64(norm.weight) + np.float64(norm.bias)


def np_unit(unit, style, x):
    x = x @ np.float64(unit.linear.weight).T + np.float64(unit.linear.bias)
    return ACTIVATIONS[style.activation](x if unit.norm is None else np_norm(unit.norm, x))


def np_trunk(network, style, x):
    """An independent loop over the blocks, in NumPy and float64."""
    x = np_unit(network.stem, style, np.float64(x))
    for i in range(network.stack.depth):
        blocks = network.stack.block if style.tied else network.stack.blocks
        arrays, rest = eqx.partition(blocks, eqx.is_array)
        pick = (lambda a: a) if style.tied else (lambda a, i=i: a[i])
        block = eqx.combine(jax.tree.map(pick, arrays), rest)
        h = x if block.norm is None else np_norm(block.norm, x)
        for unit in block.layers:
            h = np_unit(unit, style, h)
        x = x + np.float64(block.scale) * h if style.skip else h
    return x if network.norm is None else np_norm(network.norm, x)


STYLES = {
    "paper": ResidualStyle(),
    "relu": ResidualStyle(activation=Activation.RELU, final_norm=True),
    "gelu": ResidualStyle(activation=Activation.GELU, residual_scale=ResidualScale.INVERSE),
    "bare": ResidualStyle(normalize=False, residual_scale=ResidualScale.RSQRT),
    "no skip": ResidualStyle(skip=False),
    "prenorm": ResidualStyle(prenorm=True, final_norm=True),
    "learned": ResidualStyle(residual_scale=ResidualScale.LEARNED, final_norm=True),
    "number": ResidualStyle(residual_scale=0.37, tied=True),
    "tied": ResidualStyle(tied=True, residual_scale=ResidualScale.LEARNED, prenorm=True),
}


@pytest.mark.parametrize("name", STYLES)
def test_every_style_equals_double_precision(name, getkey):
    network = moved(trunk(STYLES[name]), getkey())
    x = jr.normal(getkey(), (6, 5))
    expected = np_trunk(network, STYLES[name], x)
    y = eqx.filter_jit(lambda network, x: jax.vmap(network)(x))(network, x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=3e-5 * np.max(np.abs(expected)))


@pytest.mark.parametrize("name", STYLES)
def test_every_option_changes_the_output(name, getkey):
    """No option that does nothing."""
    key, x = getkey(), jr.normal(getkey(), (4, 5))
    y, paper = (np.asarray(jax.vmap(trunk(s, key=key))(x)) for s in (STYLES[name], STYLES["paper"]))
    assert np.array_equal(y, paper) == (name == "paper")


@settings(max_examples=6)
@given(depth=depths(), width=widths(), key=keys())
def test_scales_follow_their_rule(depth, width, key):
    blocks = depth // 4
    rules = {
        ResidualScale.ONE: 1.0,
        ResidualScale.RSQRT: blocks**-0.5,
        ResidualScale.INVERSE: 1 / blocks,
        ResidualScale.LEARNED: blocks**-0.5,
        0.25: 0.25,
    }
    for rule, expected in rules.items():
        style = ResidualStyle(residual_scale=rule)
        build = functools.partial(style.trunk, 3, width, depth, remat=Remat.NONE, unroll=1)
        network = eqx.filter_eval_shape(build, key=key)
        scale = network.stack.blocks.scale
        if rule is ResidualScale.LEARNED:
            assert scale.shape == (blocks,)
        else:
            assert scale == pytest.approx(expected)
        assert style.scale(blocks) == pytest.approx(expected)


def test_a_learned_scale_is_trained(getkey):
    network = trunk(ResidualStyle(residual_scale=ResidualScale.LEARNED))
    np.testing.assert_allclose(network.stack.blocks.scale, 2**-0.5)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda n: jnp.sum(jnp.sin(n(jnp.ones(5))))))(network)
    assert np.all(np.asarray(gradient.stack.blocks.scale) != 0)


@settings(max_examples=8)
@given(depth=depths(), width=widths(), rows=batch_sizes(), key=keys())
def test_silenced_blocks_leave_stem_and_output(depth, width, rows, key):
    """swish(0) = 0: the trunk is its stem, exactly."""
    network = trunk(ResidualStyle(), depth, width, key)
    silent = eqx.tree_at(lambda n: n.stack.blocks, network, network.stack.blocks.silenced())
    x = jr.normal(key, (rows, 5))
    both = eqx.filter_jit(lambda n, x: (jax.vmap(n)(x), jax.vmap(n.stem)(x)))
    y, stem = both(silent, x)
    np.testing.assert_array_equal(y, stem)


@pytest.mark.parametrize("name", [n for n in STYLES if n not in ("relu", "no skip", "tied")])
def test_silenced_blocks_can_learn(name):
    block = Residual(8, learn_scale=name == "learned", normalize=name != "bare", key=jr.key(0))
    silent = block.silenced()
    x = jnp.linspace(-1, 1, 8)
    np.testing.assert_array_equal(silent(x), x)
    gradient = eqx.filter_grad(lambda b: jnp.sum(jnp.sin(b(x))))(silent)
    assert any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient))


def test_blocks_that_cannot_be_silenced_say_why():
    with pytest.raises(ValueError, match="without a skip"):
        Residual(8, skip=False, key=jr.key(0)).silenced()
    relu = functools.partial(Residual, 8, activation=Activation.RELU, key=jr.key(0))
    with pytest.raises(ValueError, match="never learn"):
        relu().silenced()
    x = jnp.linspace(-1, 1, 8)
    np.testing.assert_array_equal(relu(learn_scale=True).silenced()(x), x)


@pytest.mark.parametrize("style", ({"skip": False, "residual_scale": 0.5},))
def test_scales_without_branches_are_refused(style):
    with pytest.raises(ValueError, match="no branches to scale"):
        ResidualStyle(**style)


@pytest.mark.parametrize("scale", (float("nan"), float("inf")))
def test_scales_are_finite(scale):
    with pytest.raises(ValueError, match="finite"):
        Residual(8, scale=scale, key=jr.key(0))


@pytest.mark.parametrize("rule", Initialization)
def test_initialization_is_per_layer(rule):
    style, width = ResidualStyle(initialization=rule), 64
    network = trunk(style, depth=12, width=width)
    for unit in network.stack.blocks.layers:
        for weight in np.float64(unit.linear.weight):
            if rule is Initialization.ORTHOGONAL:
                np.testing.assert_allclose(weight @ weight.T, np.eye(width), atol=1e-5)
                continue
            # Layers are as wide as what they take, so that Glorot's are LeCun's.
            variance = 1 / (3 * width) if rule is Initialization.PAPER else 1 / width
            assert np.max(np.abs(weight)) <= np.sqrt(3 * variance) * (1 + 1e-6)
            # The variance of a uniform square is 4/5 of its squared mean.
            tolerance = 5 * variance * np.sqrt(0.8 / weight.size)
            assert abs(np.mean(weight**2) - variance) < tolerance
        assert not np.any(np.asarray(unit.linear.bias))


@functools.cache
def statistics(style, depth):
    """Mean score and spread at initialization, of random inputs."""
    networks = ResidualNetworks(depth=depth, width=32, dim=16, style=style)
    critic = eqx.filter_jit(networks.critic)(Spec(8, 2, 4), key=jr.key(0))
    inputs = [jr.normal(jr.key(i), (32, size)) for i, size in enumerate((8, 2, 4))]
    logits = eqx.filter_jit(lambda c, *inputs: c.pairs(*inputs))(critic, *inputs)
    return float(jnp.mean(logits)), float(jnp.mean(jnp.std(logits, axis=1)))


STABLE = ResidualStyle(residual_scale=ResidualScale.RSQRT, final_norm=True)


def test_the_stable_style_starts_alike_at_any_depth():
    """The paper's scores grow with depth at initialization, by a rule that its authors' code
    shares; the stable ones stay of order one and keep their spread."""
    paper = {depth: statistics(ResidualStyle(), depth) for depth in (4, 256)}
    stable = {depth: statistics(STABLE, depth) for depth in (4, 256)}
    assert paper[256][0] < 8 * paper[4][0]  # Scores are negative.
    assert 0.5 < stable[256][0] / stable[4][0] < 2
    assert 0.5 < stable[256][1] / stable[4][1] < 2


def test_styles_survive_json():
    networks = ResidualNetworks(style=STABLE), ResidualNetworks(style=STYLES["number"])
    for network in networks:
        assert decode(encode(network)) == network
