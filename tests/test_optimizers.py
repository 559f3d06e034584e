"""Optimizers on stacked layers: each layer is updated as if it were stored by itself."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import optax.contrib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array, Float
from lengths import at_length

from architectures import AbstractBlock, ResidualNetworks, dense, orthogonal, stacked
from crlx import (
    AbstractProjected,
    AbstractStacked,
    Spec,
    clip_by_layer_norm,
    per_layer,
    weight_decay_mask,
)
from crlx.testing import keys

SPEC = Spec(3, 2, 2)
LAYERS, MEMBERS = 2, 2
contrib = optax.contrib


class Layer(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm


class Layers(AbstractStacked):
    layer: Layer
    unused: None = None


class Unit(AbstractProjected):
    linear: eqx.nn.Linear

    def project(self):
        return self


class Network(eqx.Module):
    stem: eqx.nn.Linear
    stack: Layers
    unit: Unit
    log_alpha: Float[Array, "..."]
    unused: None = None


class Members(AbstractStacked):
    network: Network


class Both(eqx.Module):
    """An ensemble beside a network of its own: no, one and two stacked axes."""

    critics: Members
    actor: Network


def layer(key):
    return Layer(eqx.nn.Linear(4, 4, key=key), eqx.nn.LayerNorm(4, use_bias=False))


def network(key):
    layers = Layers(jax.vmap(layer)(jr.split(key, LAYERS)))
    unit = Unit(eqx.nn.Linear(4, 2, use_bias=False, key=key))
    return Network(eqx.nn.Linear(3, 4, key=key), layers, unit, jnp.zeros(()))


def both(key):
    return Both(Members(jax.vmap(network)(jr.split(key, MEMBERS))), network(key))


SHAPES = jax.eval_shape(both, jr.key(0))


def drawn(seed, steps=()):
    """Numbers in place of all arrays; their magnitudes, from 0.1 to 10, differ between layers."""
    rng = np.random.default_rng(seed)

    def draw(x):
        shape = x.shape[:2] + (1,) * (x.ndim - 2)
        scale = 10 ** rng.uniform(-1, 1, (*steps, *shape))
        return (scale * rng.normal(size=(*steps, *x.shape))).astype(np.float32)

    return jax.tree.map(draw, SHAPES)


def network_parts(network):
    """The layers of a network, each by itself, and the rest."""
    rest = eqx.tree_at(lambda n: n.stack, network, None)
    return [jax.tree.map(lambda x, i=i: x[i], network.stack.layer) for i in range(LAYERS)] + [rest]


def parts(tree):
    """All layers, each by itself, and what lies outside stacks: of each member, and of none."""
    members = (jax.tree.map(lambda x, m=m: x[m], tree.critics.network) for m in range(MEMBERS))
    return [part for network in (*members, tree.actor) for part in network_parts(network)]


def trajectory(optimizer, params, grads):
    """Parameters after each gradient; those lie on a leading axis."""

    def step(carry, grads):
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), grads)[1]


@functools.cache
def both_ways(ours, theirs):
    """The stacked tree under `ours`, then cut, and the parts of it under `theirs`."""

    def run(params, grads):
        together = trajectory(ours, params, grads)
        return jax.vmap(parts)(together), trajectory(theirs, parts(params), jax.vmap(parts)(grads))

    return jax.jit(run)


def check_both_ways(ours, theirs, seed, tolerance):
    with jax.numpy_dtype_promotion("standard"):
        actual, expected = both_ways(ours, theirs)(drawn(seed), drawn(seed + 1, (3,)))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


ADAM = optax.adam(1e-2)


@given(seed=st.integers(0, 2**31))
def test_adam_on_stacks_is_adam_on_layers(seed):
    check_both_ways(ADAM, ADAM, seed, 1e-7)


SEPARABLE = {
    "adafactor": optax.adafactor(
        optax.linear_schedule(1e-2, 1e-3, 3),
        min_dim_size_to_factor=3,
        weight_decay_rate=0.1,
        weight_decay_mask=weight_decay_mask,
    ),
    "lamb": optax.lamb(1e-2, weight_decay=0.1, mask=weight_decay_mask),
    "lars": optax.lars(1e-2, 0.1, trust_ratio_mask=weight_decay_mask),
    "adaptive_grad_clip": optax.chain(optax.adaptive_grad_clip(0.1), optax.adam(1e-2)),
    "clip_by_block_rms": optax.chain(optax.clip_by_block_rms(0.1), optax.adam(1e-2)),
    "muon": contrib.muon(1e-2, ns_steps=2, weight_decay=0.1),
    "injected": optax.inject_hyperparams(optax.novograd)(optax.linear_schedule(1e-2, 1e-3, 3)),
}


@pytest.mark.parametrize("name", at_length(SEPARABLE, {"lamb", "muon", "injected"}))
def test_per_layer_treats_layers_as_separate(name):
    optimizer = SEPARABLE[name]
    # Newton and Schulz's iteration of muon multiplies errors of rounding.
    tolerance = 1e-4 if name == "muon" else 1e-5
    check_both_ways(per_layer(optimizer), optimizer, 0, tolerance)


def test_a_stack_may_be_the_root():
    stack = jax.tree.map(jnp.asarray, drawn(0).actor.stack)
    centralize = per_layer(optax.centralize())
    update, _ = centralize.update(stack, centralize.init(stack))
    np.testing.assert_allclose(jnp.mean(update.layer.linear.weight, axis=2), 0, atol=1e-6)
    assert not np.allclose(update.layer.linear.weight, 0)
    # One axis of a single layer: nothing to centre.
    assert np.array_equal(update.layer.linear.bias, stack.layer.linear.bias)


def test_per_layer_passes_further_arguments_on():
    params, grads = (jax.tree.map(jnp.asarray, drawn(seed)) for seed in (0, 1))
    # The loss never falls, so that every second update halves the step.
    plain = optax.chain(optax.sgd(0.1), contrib.reduce_on_plateau(patience=2, factor=0.5))
    optimizer = per_layer(plain)
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        factors = []
        for _ in range(5):
            found, state = update(grads, state, params, value=jnp.ones(()))
            ratios = jax.tree.leaves(jax.tree.map(lambda u, g: u / g, found, grads))
            factors.append(np.unique(np.round(np.concatenate([np.ravel(r) for r in ratios]), 6)))
    assert all(len(f) == 1 for f in factors)
    assert factors[0] == pytest.approx(-0.1)
    assert factors[-1] > factors[0]


def norms(tree):
    wide = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(p)]) for p in parts(tree))
    return [float(np.linalg.norm(x.astype(np.float64))) for x in wide]


@jax.jit
def clipped(grads):
    clip = clip_by_layer_norm(2.0)
    return clip.update(grads, clip.init(grads))[0]


@given(seed=st.integers(0, 2**31), exponent=st.floats(-2, 2), empty=st.integers(0, LAYERS - 1))
def test_layers_are_clipped_by_their_norm(seed, exponent, empty):
    grads = jax.tree.map(lambda g: g * np.float32(10**exponent), drawn(seed))
    for leaf in jax.tree.leaves(grads.actor.stack):
        leaf[empty] = 0
    after = clipped(grads)
    found = norms(after)
    assert max(found) <= 2 * (1 + 1e-5)
    for before, norm, part, ours in zip(
        parts(grads), norms(grads), found, parts(after), strict=True
    ):
        assert part == pytest.approx(min(norm, 2), rel=1e-5)
        for g, a in zip(jax.tree.leaves(before), jax.tree.leaves(ours), strict=True):
            if norm < 2 * (1 - 1e-6):
                assert np.array_equal(g, a)
            elif norm > 2 * (1 + 1e-6):
                np.testing.assert_allclose(a, g.astype(np.float64) * 2 / norm, rtol=1e-5)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_norms_to_clip_to_are_positive(norm):
    with pytest.raises(ValueError, match="must be positive"):
        clip_by_layer_norm(norm)


def linears(tree):
    """The weights that may decay, by hand."""
    networks = (tree.critics.network, tree.actor)
    return [w for n in networks for w in (n.stem.weight, n.stack.layer.linear.weight)]


@functools.partial(jax.jit, static_argnums=0)
def decayed(optimizer, params, grads):
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return optax.apply_updates(params, updates)


def test_decay_moves_the_weights_of_linear_layers_alone():
    params = jax.tree.map(jnp.asarray, drawn(0))
    mask = weight_decay_mask(params)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    assert all(linears(mask))
    assert sum(jax.tree.leaves(mask)) == len(linears(mask))
    optimizer = optax.adamw(1e-2, weight_decay=0.1, mask=weight_decay_mask)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for decaying in (optimizer, per_layer(optimizer)):
        after = decayed(decaying, params, zeros)
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), after, params)
        assert jax.tree.leaves(moved) == jax.tree.leaves(mask)
        for a, b in zip(linears(after), linears(params), strict=True):
            np.testing.assert_allclose(a, b * (1 - 1e-3), rtol=1e-6)


def test_decay_of_real_networks():
    architecture = ResidualNetworks(depth=8, width=8, dim=4, learn_scale=True)
    critic = eqx.filter_eval_shape(architecture.critic, SPEC, key=jr.key(0))
    trained = eqx.filter(critic, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    mask = weight_decay_mask(trained)
    # Each tower: the stem, the output, and the four layers of a block, stacked.
    ranks = [len(x.shape) for x in jax.tree.leaves(eqx.filter(trained, mask))]
    assert sorted(ranks) == [2] * 4 + [3] * 8


class Plain(AbstractBlock):
    linear: eqx.nn.Linear

    def __init__(self, width, scale, *, key):
        self.linear = dense(width, width, orthogonal(scale), key=key)

    def __call__(self, x):
        return self.linear(x)


@settings(max_examples=8)
@given(key=keys(), scale=st.sampled_from((0.5, 1.0, 2.0)))
def test_orthogonal_layers_of_a_stack(key, scale):
    stack = stacked(lambda key: Plain(8, scale, key=key), 4, key=key)
    for weight in np.asarray(stack.blocks.linear.weight):
        np.testing.assert_allclose(weight @ weight.T, scale**2 * np.eye(8), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_orthogonal_rows_or_columns(shape, getkey):
    weight = orthogonal(2.0)(getkey(), shape, jnp.float32)
    short = weight if shape[0] < shape[1] else weight.T
    np.testing.assert_allclose(short @ short.T, 4 * np.eye(3), atol=1e-5)
