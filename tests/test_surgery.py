"""Cutting and deepening networks, and files of their layers."""

import dataclasses
import functools

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from lengths import at_length

from architectures import (
    Activation,
    HypersphericalNetworks,
    MLPNetworks,
    Residual,
    ResidualNetworks,
    ResidualScale,
    ResidualStyle,
    SphereBlock,
    extend,
    resize,
    stacked,
    truncate,
    unstacked,
    with_depth,
)
from crlx import Spec
from objectives import Contrastive

SPEC = Spec(3, 2, 3)
ROWS = 4
STYLES = {
    "paper": ResidualStyle(),
    "prenorm": ResidualStyle(prenorm=True, final_norm=True, residual_scale=ResidualScale.RSQRT),
    "learned": ResidualStyle(residual_scale=ResidualScale.LEARNED),
    "bare": ResidualStyle(
        normalize=False, activation=Activation.GELU, residual_scale=ResidualScale.INVERSE
    ),
}


def residual(name, **fields):
    return ResidualNetworks(style=STYLES[name], dim=8, **fields)


def sphere(block, **fields):
    return HypersphericalNetworks(block=block, dim=8, **fields)


KINDS = {
    **{name: functools.partial(residual, name) for name in STYLES},
    **{block.name: functools.partial(sphere, block) for block in SphereBlock},
}
# Blocks of a sphere normalize their unit vectors once more, each within rounding.
TOLERANCES = dict.fromkeys(KINDS, 0.0) | {block.name: 1e-6 for block in SphereBlock}


def drawn(make, seed):
    """What `make` builds with random arrays in place of its own, which need no compilation."""
    generator = np.random.default_rng(seed)

    def leaf(x):
        if not isinstance(x, jax.ShapeDtypeStruct):
            return x
        return jnp.asarray(0.5 * generator.normal(size=x.shape), x.dtype)

    return jax.tree.map(leaf, eqx.filter_eval_shape(make, key=jr.key(0)))


def trunk(architecture, seed):
    """The network of the actor, without its output layer."""
    return drawn(lambda key: architecture.actor(SPEC, key=key), seed).trunk


cut = eqx.filter_jit(truncate)


@eqx.filter_jit
def apply(network, x):
    return jax.vmap(network)(x)


def inputs(size=6):
    return jr.normal(jr.key(7), (ROWS, size))


@functools.cache
def extended(kind, depth=8, deeper=16, width=8):
    """A network, and the same with more layers."""
    small = KINDS[kind](depth=depth, width=width)

    network, new = trunk(small, 1), trunk(with_depth(small, deeper), 2)
    return network, eqx.filter_jit(extend)(network, new)


@pytest.mark.parametrize(("kind", "blocks"), [("prenorm", 2), ("LERP", 1)])
def test_a_truncated_network_is_a_loop_over_its_first_blocks(kind, blocks):
    network = trunk(KINDS[kind](depth=12, width=8), 1)

    def loop(network, x):
        x = network.stem(x)
        for block in network.stack.unstack().blocks[:blocks]:
            x = block(x)
        return x if network.norm is None else network.norm(x)

    found = apply(cut(network, blocks), inputs())
    want = apply(functools.partial(loop, network), inputs())
    assert np.allclose(found, want, rtol=1e-6, atol=1e-6)


@settings(max_examples=3)
@given(
    kind=st.sampled_from(["paper", "prenorm"]),
    depth=st.sampled_from([4, 8, 12]),
    more=st.sampled_from([4, 12]),
    width=st.sampled_from([3, 8]),
)
def test_an_extended_network_computes_the_same(kind, depth, more, width):
    network, deeper = extended(kind, depth, depth + more, width)
    assert deeper.stack.depth > network.stack.depth
    found, want = apply(deeper, inputs()), apply(network, inputs())
    # One block is compiled without a loop, and may be rounded otherwise than in one.
    tolerance = max(TOLERANCES[kind], 1e-6 if network.stack.depth == 1 else 0)
    assert np.allclose(found, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "paper"])
def test_other_kinds_are_extended_and_cut_back_again(kind):
    network, deeper = extended(kind)
    found, want = apply(deeper, inputs()), apply(network, inputs())
    assert np.allclose(found, want, rtol=TOLERANCES[kind], atol=TOLERANCES[kind])
    assert eqx.tree_equal(cut(deeper, network.stack.depth), network)


@pytest.mark.parametrize("kind", at_length([k for k in KINDS if k != "paper"], {"prenorm", "LERP"}))
def test_new_blocks_learn(kind):
    network, deeper = extended(kind)
    optimizer = optax.adam(1e-2)

    @eqx.filter_jit
    def step(network, state):
        def loss(network):
            return jnp.mean((jax.vmap(network)(inputs()) - 1) ** 2)

        grads = eqx.filter_grad(loss)(network)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grads, state)
        return grads, eqx.apply_updates(network, updates), state

    state, trained = optimizer.init(eqx.filter(deeper, eqx.is_inexact_array)), deeper
    for i in range(3):
        grads, trained, state = step(trained, state)
        if i == 0:
            assert np.all(per_block(grads.stack)[network.stack.depth :] > 0)
    change = jax.tree.map(
        lambda a, b: a - b, *(eqx.filter(n.stack, eqx.is_inexact_array) for n in (trained, deeper))
    )
    # Also those behind what was zero at first.
    assert all(np.all(per_leaf > 0) for per_leaf in norms(change))


def norms(stack):
    """For every array of a stack, the norm of each layer's part."""
    leaves = jax.tree.leaves(eqx.filter(stack.blocks, eqx.is_array))
    return [np.linalg.norm(np.asarray(a).reshape(len(a), -1), axis=1) for a in leaves]


def per_block(stack):
    return np.sum(norms(stack), axis=0)


def parameters(architecture, seed):
    return drawn(lambda key: Contrastive(ensemble=2).init(architecture, SPEC, key=key)[0], seed)


@eqx.filter_jit
def outputs(params):
    x = inputs(8)
    observation, action, goal = x[:, :3], x[:, 3:5], x[:, 5:]
    modes = jax.vmap(lambda o, g: params.actor(o, g).mode())(observation, goal)
    return params.critic.pairs(observation, action, goal), modes


@functools.cache
def agents():
    """Parameters of an objective: critics of two blocks, an actor of three; and deeper ones."""
    small = residual("learned", depth=8, actor_depth=12, width=8)
    large = with_depth(small, 12, actor_depth=20)
    return parameters(small, 1), parameters(large, 2)


def test_ensembles_and_actors_of_other_depths_are_extended_at_once():
    small, large = agents()
    deeper = eqx.filter_jit(extend)(small, large)
    assert eqx.tree_equal(
        *(jax.tree.map(jnp.shape, eqx.filter(p, eqx.is_array)) for p in (deeper, large))
    )
    for found, want in zip(outputs(deeper), outputs(small), strict=True):
        assert np.array_equal(found, want)
    old, new, fresh = (
        params.critic.members.goal.trunk.stack.blocks.layers[0].linear.weight
        for params in (small, deeper, large)
    )
    assert np.array_equal(new, jnp.concatenate([old, fresh[:, 2:]], axis=1))
    assert eqx.tree_equal(cut(deeper.critic, 2), small.critic)


def test_members_are_truncated_as_if_alone():
    critic = agents()[1].critic
    arrays, rest = eqx.partition(critic.members, eqx.is_array)
    together = eqx.filter(cut(critic, 1).members, eqx.is_array)
    alone = eqx.filter_vmap(lambda a: eqx.filter(truncate(eqx.combine(a, rest), 1), eqx.is_array))
    assert eqx.tree_equal(together, alone(arrays))


def test_resizing_cuts_here_and_extends_there():
    small, large = agents()
    mixed = dataclasses.replace(small, actor=large.actor)
    like = dataclasses.replace(large, actor=small.actor)
    found = eqx.filter_jit(resize)(mixed, like)
    assert eqx.tree_equal(found.critic, eqx.filter_jit(extend)(small.critic, large.critic))
    assert eqx.tree_equal(found.actor, cut(large.actor, 3))
    assert resize(None, None) is None
    with pytest.raises(ValueError, match="cannot be extended to 3: use `truncate`"):
        extend(mixed, like)


def test_how_a_stack_is_run_follows_its_depth():
    def actor(depth):
        return ResidualNetworks(depth=depth, width=4).actor(SPEC, key=jr.key(0))

    made = eqx.filter_eval_shape(lambda: (actor(4), actor(64), extend(actor(4), actor(64))))
    small, large, found = (network.trunk.stack for network in made)
    assert found.blocks.layers[0].linear.weight.shape == (16, 4, 4)
    assert found.remat is large.remat
    assert found.remat is not small.remat


def actor(architecture):
    return drawn(lambda key: architecture.actor(SPEC, key=key), 0)


def blocks_of(count, **choices):
    return drawn(
        lambda key: stacked(lambda key: Residual(4, key=key, **choices), count, key=key), 0
    )


TIED = ResidualNetworks(depth=8, width=4, style=ResidualStyle(tied=True))
REFUSED = {
    "none left": (lambda: truncate(blocks_of(2), 0), "At least one block"),
    "too few": (lambda: truncate(blocks_of(2), 3), r"has 2 blocks, which cannot be cut to 3"),
    "no stack": (lambda: truncate(unstacked(blocks_of(2)), 1), "holds no `Stacked`"),
    "tied, cut": (lambda: truncate(actor(TIED), 1), "depth is a number"),
    "tied, extended": (lambda: extend(actor(TIED), actor(TIED)), "depth is a number"),
    "plain": (
        lambda: extend(*(actor(MLPNetworks(depth=n, width=4, dim=4)) for n in (3, 4))),
        "Plain has no residual branch",
    ),
    "no skip": (
        lambda: extend(blocks_of(1, skip=False), blocks_of(2, skip=False)),
        "without a skip connection",
    ),
    "relu": (
        lambda: extend(*(blocks_of(n, activation=Activation.RELU) for n in (1, 2))),
        "ReLU has no slope",
    ),
    "choices": (
        lambda: extend(blocks_of(1), blocks_of(2, activation=Activation.GELU)),
        r"activation: <Activation.SWISH.*→ <Activation.GELU",
    ),
    "scales": (lambda: extend(blocks_of(1), blocks_of(2, scale=0.5)), r"scale: 1.0 → 0.5"),
    "parts": (lambda: extend(blocks_of(1), blocks_of(2, prenorm=True)), "NoneType → LayerNorm"),
    "sizes": (
        lambda: resize(
            *(eqx.nn.Linear(2, n, use_bias=False, key=jr.key(0)) for n in (3, 4)),
        ),
        r"\.weight: float32\[3,2\] → float32\[4,2\]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_with_the_reason(name):
    attempt, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        attempt()
