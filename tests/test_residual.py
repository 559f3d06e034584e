import functools
import itertools
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from skeletons import skeleton

from architectures import NormalizedDense, ResidualNetworks
from crlx import Spec
from objectives import Forward

PAPER = pathlib.Path(__file__).parent / "data" / "paper_networks.npz"


# An independent reference in NumPy and float64, forwards and backwards. Parameters have the names
# of the released code: `Dense_k/kernel` [in, out], with k = 0 the stem, 1 + 4 i + j the layer j of
# block i, then the heads. Each function returns its output and how to go back through it.
def np_dense(p, k, x):
    kernel, bias = p[f"Dense_{k}/kernel"], p[f"Dense_{k}/bias"]

    def back(d, grads):
        grads[f"Dense_{k}/kernel"], grads[f"Dense_{k}/bias"] = x.T @ d, d.sum(0)
        return d @ kernel.T

    return x @ kernel + bias, back


def np_unit(p, k, x):
    scale, bias = p[f"LayerNorm_{k}/scale"], p[f"LayerNorm_{k}/bias"]
    z, back_dense = np_dense(p, k, x)
    z = z - z.mean(-1, keepdims=True)
    inverse = 1 / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-6)
    normal = z * inverse
    y = normal * scale + bias
    gate = 1 / (1 + np.exp(-y))

    def back(d, grads):
        d = d * gate * (1 + y * (1 - gate))
        grads[f"LayerNorm_{k}/scale"], grads[f"LayerNorm_{k}/bias"] = (d * normal).sum(0), d.sum(0)
        d = d * scale
        d = d - d.mean(-1, keepdims=True) - normal * (d * normal).mean(-1, keepdims=True)
        return back_dense(d * inverse, grads)

    return y * gate, back


def np_trunk(p, depth, x):
    x, back_stem = np_unit(p, 0, x)
    backs = []
    for k in range(1, 1 + depth):
        h, back = np_unit(p, k, x if k % 4 == 1 else h)
        x = x + h if k % 4 == 0 else x
        backs.append(back)

    def back(d, grads):
        for k in range(depth, 0, -1):
            inner = backs[k - 1](d if k % 4 == 0 else inner, grads)
            d = d + inner if k % 4 == 1 else d
        return back_stem(d, grads)

    return x, back


def np_critic(sa, g, depth, x, goal):
    """InfoNCE over goals, with the penalty, of minus the distance: loss, logits, gradients."""
    (h, back_h), (u, back_u) = np_trunk(sa, depth, x), np_trunk(g, depth, goal)
    phi, back_phi = np_dense(sa, depth + 1, h)
    psi, back_psi = np_dense(g, depth + 1, u)
    apart = phi[:, None] - psi[None]
    logits = -np.sqrt((apart**2).sum(-1))
    sums = np.log(np.exp(logits).sum(1, keepdims=True))
    loss = np.mean(sums[:, 0] - np.diag(logits)) + 0.1 * np.mean(sums**2)
    d = (np.exp(logits - sums) * (1 + 0.2 * sums) - np.eye(len(x))) / len(x)
    d = (d / logits)[..., None] * apart
    grads = {}, {}
    back_h(back_phi(d.sum(1), grads[0]), grads[0])
    back_u(back_psi(-d.sum(0), grads[1]), grads[1])
    return loss, logits, grads


def np_actor(p, depth, x, weights):
    """Mean, log-std, and the gradient of their sum weighted by `weights`."""
    h, back_h = np_trunk(p, depth, x)
    mean, back_mean = np_dense(p, depth + 1, h)
    raw, back_raw = np_dense(p, depth + 2, h)
    grads = {}
    d = back_mean(weights[0], grads) + back_raw(3.5 * weights[1] / np.cosh(raw) ** 2, grads)
    back_h(d, grads)
    return (mean, -5 + 3.5 * (np.tanh(raw) + 1)), grads


def random_parameters(rng, in_size, width, depth, *heads):
    shapes = [(in_size, width)] + [(width, width)] * depth + [(width, size) for size in heads]
    p = {}
    for k, (rows, columns) in enumerate(shapes):
        p[f"Dense_{k}/kernel"] = rng.normal(size=(rows, columns)) / np.sqrt(rows)
        p[f"Dense_{k}/bias"] = 0.3 * rng.normal(size=columns)
        p[f"LayerNorm_{k}/scale"] = 1 + 0.3 * rng.normal(size=columns)
        p[f"LayerNorm_{k}/bias"] = 0.3 * rng.normal(size=columns)
    return {name: x.astype(np.float32).astype(np.float64) for name, x in p.items()}


def restore(module, heads, p):
    """`module` with the arrays of `p`, which holds parameters or gradients."""
    depth = 4 * module.trunk.stack.blocks.layers[0].linear.weight.shape[0]

    def where(m):
        units = m.trunk.stem, *m.trunk.stack.blocks.layers
        inner = [(u.linear.weight, u.linear.bias, u.norm.weight, u.norm.bias) for u in units]
        outer = [(head.weight, head.bias) for head in heads(m)]
        return list(itertools.chain(*inner, *outer))

    def values(ks, names):
        arrays = ([p[name.format(k)].T for k in ks] for name in names)
        return [jnp.asarray(np.stack(a), jnp.float32) for a in arrays]

    dense, norm = ("Dense_{}/kernel", "Dense_{}/bias"), ("LayerNorm_{}/scale", "LayerNorm_{}/bias")
    new = [x[0] for x in values([0], dense + norm)]
    for j in range(4):
        new += values(range(1 + j, 1 + depth, 4), dense + norm)
    for k, _ in enumerate(heads(module), start=depth + 1):
        new += [x[0] for x in values([k], dense)]
    assert [x.shape for x in where(module)] == [x.shape for x in new]
    return eqx.tree_at(where, module, new)


def restore_critic(critic, sa, g):
    towers = [
        restore(m, lambda m: [m.output], p)
        for m, p in ((critic.state_action, sa), (critic.goal, g))
    ]
    return eqx.tree_at(lambda c: [c.state_action, c.goal], critic, towers)


def restore_actor(actor, p):
    return restore(actor, lambda m: [m.mean, m.raw_log_std], p)


@eqx.filter_jit
@eqx.filter_value_and_grad(has_aux=True)
def critic_loss(critic, s, a, goal):
    logits, contrast = critic.pairs(s, a, goal), Forward()
    loss = contrast(logits) + 0.1 * jnp.mean(contrast.logsumexp(logits) ** 2)
    return loss, (logits, jax.vmap(critic.embed)(s, a), jax.vmap(critic.embed_goal)(goal))


@eqx.filter_jit
@eqx.filter_value_and_grad(has_aux=True)
def actor_loss(actor, s, goal, weights):
    policy = jax.vmap(actor)(s, goal)
    outputs = policy.mean, policy.log_std
    return jnp.sum(weights[0] * outputs[0]) + jnp.sum(weights[1] * outputs[1]), outputs


def assert_close(actual, expected, tolerance):
    """Each array to within a share of the largest entry that is expected."""
    expected = eqx.filter(expected, lambda x: type(x) is not float)  # Fixed scales.
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.max(np.abs(b)))


def single(*arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


def test_critic_equals_double_precision():
    depth, rng = 8, np.random.default_rng(1)
    sa, g = random_parameters(rng, 5, 8, depth, 6), random_parameters(rng, 3, 8, depth, 6)
    s, a, goal = single(*(rng.normal(size=(7, size)) for size in (3, 2, 3)))
    networks = ResidualNetworks(depth=depth, width=8, dim=6)
    critic = restore_critic(skeleton(networks.critic, Spec(3, 2, 3)), sa, g)
    (loss, (logits, *_)), gradient = critic_loss(critic, s, a, goal)
    x = np.concatenate([s, a], 1, dtype=np.float64)
    expected, table, grads = np_critic(sa, g, depth, x, np.float64(goal))
    assert_close((loss, logits), (expected, table), 1e-5)
    assert_close(gradient, restore_critic(critic, *grads), 1e-4)


def test_actor_equals_double_precision():
    rng = np.random.default_rng(2)
    p = random_parameters(rng, 5, 8, 8, 2, 2)
    s, goal, *weights = single(*(rng.normal(size=(7, size)) for size in (3, 2, 2, 2)))
    networks = ResidualNetworks(depth=4, actor_depth=8, width=8, squashed=True)
    actor = restore_actor(skeleton(networks.actor, Spec(3, 2, 2)), p)
    (_, outputs), gradient = actor_loss(actor, s, goal, weights)
    x = np.concatenate([s, goal], 1, dtype=np.float64)
    expected, grads = np_actor(p, 8, x, np.float64(weights))
    assert_close(outputs, expected, 1e-5)
    assert_close(gradient, restore_actor(actor, grads), 1e-4)


@functools.cache
def paper():
    with np.load(PAPER) as file:
        flat = dict(file)

    def under(prefix):
        start = f"{prefix}/params/"
        return {name.removeprefix(start): x for name, x in flat.items() if name.startswith(start)}

    trees = {name: under(name) for name in ("sa", "g", "actor", "grad_sa", "grad_g")}
    return flat | trees, ResidualNetworks(depth=12, width=24, squashed=True), Spec(7, 2, 3)


def test_critic_equals_the_released_one():
    data, networks, spec = paper()
    critic = restore_critic(skeleton(networks.critic, spec), data["sa"], data["g"])
    inputs = single(data["s"], data["a"], data["goal"])
    (loss, outputs), gradient = critic_loss(critic, *inputs)
    expected = (data["logits"], data["phi"], data["psi"])
    assert_close((loss, outputs), (data["loss"], expected), 1e-5)
    assert_close(gradient, restore_critic(critic, data["grad_sa"], data["grad_g"]), 1e-5)


def test_actor_equals_the_released_one():
    data, networks, spec = paper()
    actor = restore_actor(skeleton(networks.actor, spec), data["actor"])
    s, goal = single(data["s"], data["goal"])
    (_, outputs), _ = actor_loss(actor, s, goal, [jnp.ones((10, 2))] * 2)
    assert_close(outputs, (data["mean"], data["log_std"]), 1e-5)


def test_layer_norm_has_the_epsilon_of_flax(getkey):
    """Near the origin epsilon decides how much of a goal's size survives."""
    unit = NormalizedDense(3, 8, key=getkey())
    p = {"Dense_0/kernel": np.float64(unit.linear.weight).T, "Dense_0/bias": np.zeros(8)}
    p |= {"LayerNorm_0/scale": np.ones(8), "LayerNorm_0/bias": np.zeros(8)}
    x = jr.normal(getkey(), (4, 3)) * jnp.array([[1e-4], [1e-3], [1e-2], [1.0]])
    assert_close(list(jax.vmap(unit)(x)), list(np_unit(p, 0, np.float64(x))[0]), 1e-5)
