import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skeletons import filled, is_shape, random, skeleton

from architectures import Initialization, MLPNetworks, Remat, plain_trunk
from architectures import fan_average_uniform as initializer
from crlx import Spec

SPEC = Spec(5, 2, 3)


def np_layer(weight, bias, norm, x):
    """GELU by its tanh formula, and only then LayerNorm."""
    x = x @ np.float64(weight).T + np.float64(bias)
    x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    if norm is None:
        return x
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * np.float64(norm[0]) + np.float64(norm[1])


def np_trunk(trunk, x, normalize, depth):
    stem = trunk.stem
    norm = (stem.norm.weight, stem.norm.bias) if normalize else None
    x = np_layer(stem.linear.weight, stem.linear.bias, norm, x)
    for i in range(depth - 1):
        block = trunk.stack.blocks
        norm = (block.norm.weight[i], block.norm.bias[i]) if normalize else None
        x = np_layer(block.linear.weight[i], block.linear.bias[i], norm, x)
    return x


def np_linear(layer, x):
    return x @ np.float64(layer.weight).T + np.float64(layer.bias)


@pytest.mark.parametrize("depth", (1, 3))
def test_critic_equals_double_precision(depth):
    critic = filled(skeleton(MLPNetworks(depth=depth, width=8, dim=6).critic, SPEC))
    s, a, goal = random(1, (4, 5), (4, 2), (4, 3))
    towers = (critic.state_action, np.concatenate([s, a], 1)), (critic.goal, np.asarray(goal))
    phi, psi = (
        np_linear(tower.output, np_trunk(tower.trunk, np.float64(x), True, depth))
        for tower, x in towers
    )
    expected = phi @ psi.T / np.sqrt(6)
    logits = eqx.filter_jit(lambda c: c.pairs(s, a, goal))(critic)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=3e-6 * np.max(np.abs(expected)))
    scores = eqx.filter_jit(lambda c: jax.vmap(c)(s, a, goal))(critic)
    np.testing.assert_allclose(scores, np.diag(expected), atol=3e-6 * np.max(np.abs(expected)))


@pytest.mark.parametrize("depth", (1, 3))
def test_actor_equals_double_precision(depth):
    actor = filled(skeleton(MLPNetworks(depth=depth, width=8).actor, SPEC))
    s, goal, a = random(1, (4, 5), (4, 3), (4, 2))
    x = np.float64(np.concatenate([s, goal], 1))
    mean = np_linear(actor.mean, np_trunk(actor.trunk, x, False, depth))
    assert np.max(np.abs(mean)) > 1  # Not squashed.

    @eqx.filter_jit
    def outputs(actor):
        policy = jax.vmap(actor)(s, goal)
        return jax.vmap(lambda p: p.mode())(policy), jax.vmap(lambda p, a: p.log_prob(a))(policy, a)

    mode, log_prob = outputs(actor)
    np.testing.assert_allclose(mode, mean, rtol=0, atol=3e-6 * np.max(np.abs(mean)))
    # The standard deviation is one.
    expected = -0.5 * ((np.float64(a) - mean) ** 2).sum(1) - np.log(2 * np.pi)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


@pytest.mark.parametrize("normalize", (True, False))
def test_trunk_gradient_equals_central_differences(normalize):
    def build(spec, key):
        return plain_trunk(
            spec.goal_size, 4, 3, normalize=normalize, remat=Remat.NONE, unroll=1, key=key
        )

    trunk, (x, weights) = filled(skeleton(build, SPEC)), random(2, (6, 3), (6, 4))
    arrays, rest = eqx.partition(trunk, eqx.is_array)

    def loss(arrays):
        trunk = eqx.combine(arrays, rest)
        return np.sum(np.float64(weights) * np_trunk(trunk, np.float64(x), normalize, 3))

    gradient = eqx.filter_jit(
        eqx.filter_grad(lambda trunk: jnp.sum(weights * jax.vmap(lambda v: trunk(v))(x)))
    )(trunk)
    leaves, treedef = jax.tree.flatten(jax.tree.map(np.float64, arrays))
    for i, slopes in enumerate(map(np.asarray, jax.tree.leaves(gradient))):
        for where in np.ndindex(leaves[i].shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = leaves[i].copy()
                moved[where] += step
                tree = jax.tree.unflatten(treedef, [*leaves[:i], moved, *leaves[i + 1 :]])
                values.append(loss(tree))
            slope = (values[0] - values[1]) / 2e-5
            assert abs(slopes[where] - slope) <= 1e-4 * np.max(np.abs(slopes))


def limits(network, heads, depth):
    """Weights and biases of every layer with the limit of its uniform distribution."""
    trunk = network.trunk
    layers = [(trunk.stem.linear.weight, trunk.stem.linear.bias, 6.0)]
    if depth > 1:
        linear = trunk.stack.blocks.linear
        layers += [(w, b, 6.0) for w, b in zip(linear.weight, linear.bias, strict=True)]
    layers += [(head.weight, head.bias, scale) for head, scale in heads]
    for weight, bias, scale in layers:
        weight = np.asarray(weight, np.float64)
        yield weight, np.asarray(bias), np.sqrt(scale / sum(weight.shape))


def test_initialization(getkey):
    networks, spec = MLPNetworks(depth=3, width=32, dim=24), Spec(20, 9, 14)
    make = eqx.filter_jit(lambda k: (networks.critic(spec, key=k), networks.actor(spec, key=k)))
    critic, actor = make(getkey())
    seen = set()
    for network, heads in (
        (critic.state_action, [(critic.state_action.output, 6.0)]),
        (critic.goal, [(critic.goal.output, 6.0)]),
        (actor, [(actor.mean, 0.06)]),
    ):
        for weight, bias, limit in limits(network, heads, 3):
            assert np.max(np.abs(weight)) <= limit * (1 + 1e-6)
            error = np.mean(weight**2) - limit**2 / 3
            assert abs(error) <= 5 * limit**2 * np.sqrt(4 / 45 / weight.size)
            assert not np.any(bias)
            seen.add(weight.tobytes())
    assert len(seen) == 3 * 4
    for tower in (critic.state_action, critic.goal):
        for norm in (tower.trunk.stem.norm, tower.trunk.stack.blocks.norm):
            assert np.all(norm.weight == 1)
            assert not np.any(norm.bias)
    assert actor.trunk.stem.norm is None
    assert actor.trunk.stack.blocks.norm is None


def test_weights_start_as_jaxgcrls(getkey):
    """All weights with a variance of `1 / (3 fan_in)`, all biases zero."""
    networks = MLPNetworks(
        depth=2, width=64, dim=32, squashed=True, initialization=Initialization.PAPER
    )
    make = eqx.filter_jit(lambda k: (networks.critic(SPEC, key=k), networks.actor(SPEC, key=k)))
    critic, actor = make(getkey())
    layers = [
        layer for layer in jax.tree.leaves((critic, actor), is_leaf=is_linear) if is_linear(layer)
    ]
    assert len(layers) == 2 * 3 + 4
    for layer in layers:
        limit = 1 / np.sqrt(layer.weight.shape[-1])
        assert 0.9 * limit < np.max(np.abs(layer.weight)) <= limit * (1 + 1e-6)
        assert not np.any(layer.bias)


def is_linear(node):
    return isinstance(node, eqx.nn.Linear)


@pytest.mark.parametrize("depth", (1, 2, 3))
def test_parameter_counts_in_closed_form(depth):
    s, a, g, w, d = 29, 8, 2, 512, 512
    networks, spec = MLPNetworks(depth=depth), Spec(s, a, g)

    def count(tree):
        return sum(x.size for x in jax.tree.leaves(tree) if is_shape(x))

    hidden = (depth - 1) * (w**2 + w)
    norms = depth * 2 * w
    towers = sum(size * w + w + hidden + norms + d * w + d for size in (s + a, g))
    assert count(skeleton(networks.critic, spec)) == towers
    expected = (s + g) * w + w + hidden + a * w + a
    assert count(skeleton(networks.actor, spec)) == expected


def test_layer_norm_has_the_epsilon_of_flax():
    """A layer whose inputs are small shows it."""
    critic = filled(skeleton(MLPNetworks(depth=1, width=8, dim=6).critic, SPEC))
    tower = eqx.tree_at(lambda t: t.trunk.stem.linear.bias, critic.goal, jnp.zeros(8))
    (x,) = random(3, (3, 3))
    x = x * jnp.array([[1e-4], [1e-3], [1e-2]])
    expected = np_trunk(tower.trunk, np.float64(x), True, 1)
    actual = eqx.filter_jit(lambda t: jax.vmap(lambda v: t(v))(x))(tower.trunk)
    for row, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(row, other, rtol=0, atol=1e-5 * np.max(np.abs(other)))


def test_weights_are_uniform_between_their_limits(getkey):
    """Both ends are reached, and the scale enters under the root."""
    for scale in (1.0, 0.01):
        weight = initializer(scale)(getkey(), (300, 100), jnp.float32)
        limit = np.sqrt(6 * scale / 400)
        np.testing.assert_allclose([weight.min(), weight.max()], [-limit, limit], rtol=1e-3)
        assert abs(np.mean(np.float64(weight))) <= 5 * limit / np.sqrt(3 * weight.size)


@pytest.mark.parametrize("field", ({"depth": 0}, {"depth": -1}, {"width": 0}, {"dim": 0}))
def test_empty_networks_are_refused(field):
    with pytest.raises(ValueError, match=r"use 1 or more|must be positive"):
        MLPNetworks(**field)
