import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jaxtyping import Array
from spheres import SPEC, SPHERES, Bystander, Positive, assert_unit_rows, is_sphere, np_unit

from architectures import HyperDense, MLPNetworks, unit
from crlx import AbstractObjective, AbstractRows, Checkpoints, Learner, OfflineRows, project
from crlx.testing import random_rows

BATCH = 8
RATE, DECAY, MOMENTUM = 0.05, 0.1, 0.9
OPTIMIZERS = {
    "adam": optax.adam(RATE),
    "adamw": optax.adamw(RATE, weight_decay=DECAY),
    "momentum": optax.sgd(RATE, momentum=MOMENTUM),
}

fit = eqx.filter_jit(Learner.fit)


class Weights(eqx.Module):
    sphere: HyperDense
    positive: Positive
    free: Bystander


class Average(eqx.Module):
    sphere: HyperDense


class Pull(AbstractObjective[Weights, Average, Array]):
    """Half the squared distance from `W x` to a number, for all weights alike: its gradient is
    `(W x - number) x^T`, averaged over the rows. `free` starts where `sphere` does."""

    number: float = 0.7

    def init(self, architecture, spec, *, key):
        del architecture, spec
        sphere = eqx.tree_at(lambda m: m.weight, HyperDense(3, 4, key=key), jr.normal(key, SPHERES))
        positive = Positive(jnp.asarray([0.5, -0.3, 0.01]))
        return Weights(sphere, positive, Bystander(unit(sphere.weight))), Average(project(sphere))

    def relabel(self, rows, index, *, key):
        del key
        return rows.take(index).observation

    def loss(self, params, state, batch, *, key):
        del state, key

        def half(x):
            arrays = params.sphere.weight, params.positive.weight, params.free.weight
            return sum(0.5 * jnp.sum((weight @ x - self.number) ** 2) for weight in arrays)

        return jnp.mean(jax.vmap(half)(batch)), {}

    def advance(self, params, state):
        half = 0.5 * (params.sphere.weight + state.sphere.weight)
        return eqx.tree_at(lambda s: s.sphere.weight, state, half)

    def policy(self, params, state):
        raise NotImplementedError


class FirstRows(AbstractRows):
    """Draws the first rows, always: the batch is known, whatever the key."""

    rows: OfflineRows

    def draw(self, size, *, key):
        del key
        return jnp.arange(size)

    def take(self, index):
        return self.rows.take(index)

    def last(self, index):
        return self.rows.last(index)


@pytest.fixture(scope="module")
def rows():
    return random_rows(SPEC, [40, 25], key=jr.key(0))


# An independent loop in NumPy and float64: gradient, optimizer, projection.
def np_run(weights, x, number, name, steps):
    """Weights after so many steps, with the optimizer's moments, the Polyak average of the first
    weights, and the first weights as they were before their last projection."""
    weights, average, raw = dict(weights), weights["sphere"], None
    first, second = ({k: np.zeros_like(w) for k, w in weights.items()} for _ in range(2))
    to_set = {"sphere": np_unit, "positive": lambda w: np.maximum(w, 0), "free": lambda w: w}
    for t in range(1, steps + 1):
        for k, w in weights.items():
            error = np.einsum("...i,bi->...b", w, x) - number
            gradient = np.einsum("...b,bi->...i", error, x) / len(x)
            if name == "momentum":
                first[k] = gradient + MOMENTUM * first[k]
                step = first[k]
            else:
                first[k] = 0.9 * first[k] + 0.1 * gradient
                second[k] = 0.999 * second[k] + 0.001 * gradient**2
                mean, square = first[k] / (1 - 0.9**t), second[k] / (1 - 0.999**t)
                step = mean / (np.sqrt(square) + 1e-8)
                step = step + (DECAY * w if name == "adamw" else 0)
            raw = w - RATE * step if k == "sphere" else raw
            weights[k] = to_set[k](w - RATE * step)
        average = 0.5 * (average + weights["sphere"])
    return weights, (first, second), average, raw


def by_name(tree):
    return {k: np.float64(getattr(tree, k).weight) for k in ("sphere", "positive", "free")}


def moments(opt_state):
    """The states of an optimizer that hold one array for each of `Weights`, by name."""
    trees = jax.tree.leaves(opt_state, is_leaf=lambda n: isinstance(n, Weights))
    return [by_name(tree) for tree in trees if isinstance(tree, Weights)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_equals_double_precision(name, rows, getkey):
    """Parameters, moments and averages; float32 to within 1e-5 after eight steps."""
    learner, fixed, key = Learner(Pull(), OPTIMIZERS[name]), FirstRows(rows), getkey()
    start = learner.init(MLPNetworks(), SPEC, key=getkey())
    x = np.float64(rows.steps.observation[:BATCH])
    close = {"rtol": 0, "atol": 1e-5}
    for updates in (1, 8):
        after, _ = fit(learner, start, fixed, updates=updates, batch_size=BATCH, key=key)
        expected, (first, second), average, raw = np_run(
            by_name(start.params), x, learner.objective.number, name, updates
        )
        assert_unit_rows(after.params)
        for k, found in by_name(after.params).items():
            np.testing.assert_allclose(found, expected[k], **close)
        kept = [first] if name == "momentum" else [first, second]
        found = moments(after.opt_state)
        assert len(found) == len(kept)
        for a, b in zip(found, kept, strict=True):
            for k in a:
                np.testing.assert_allclose(a[k], b[k], **close)
        # Averages are left as they are, inside the sphere.
        np.testing.assert_allclose(after.state.sphere.weight, average, **close)
        # Each projection did something, and made the first weights part from the last.
        assert np.max(np.abs(raw - expected["sphere"])) > 1e-3
    assert np.min(np.linalg.norm(average, axis=-1)) < 0.999
    assert np.max(np.abs(after.params.sphere.weight - after.params.free.weight)) > 0.05


def test_networks_are_projected_when_built(getkey):
    learner, key = Learner(Pull(), optax.adam(RATE)), getkey()
    raw, _ = learner.objective.init(MLPNetworks(), SPEC, key=key)
    built = learner.init(MLPNetworks(), SPEC, key=key).params
    assert_unit_rows(built)
    assert np.max(np.abs(np.linalg.norm(raw.sphere.weight, axis=-1) - 1)) > 0.1
    np.testing.assert_array_equal(built.positive.weight, np.float32([0.5, 0, 0.01]))
    np.testing.assert_array_equal(built.free.weight, raw.free.weight)


def on_sphere():
    """The other form, an Optax transformation that comes last: `unit(p + u) - p`."""

    def move(p, u):
        if not is_sphere(p):
            return u
        return eqx.tree_at(lambda m: m.weight, u, unit(p.weight + u.weight) - p.weight)

    def update(updates, state, params):
        return jax.tree.map(move, params, updates, is_leaf=is_sphere), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def test_a_last_transformation_does_the_same(rows, getkey):
    """To within 1e-6 after twenty steps of Adam."""
    objective, fixed, key = Pull(), FirstRows(rows), getkey()
    learner = Learner(objective, optax.adam(RATE))
    start = learner.init(MLPNetworks(), SPEC, key=getkey())
    after, _ = fit(learner, start, fixed, updates=20, batch_size=BATCH, key=key)
    optimizer = optax.chain(optax.adam(RATE), on_sphere())
    batch = rows.steps.observation[:BATCH]

    @jax.jit
    def step(carry, _):
        params, opt_state = carry
        grads = jax.grad(lambda p: objective.loss(p, None, batch, key=key)[0])(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, opt_state, params)
        return (eqx.apply_updates(params, updates), opt_state), None

    carry = start.params, optimizer.init(start.params)
    (params, _), _ = jax.lax.scan(step, carry, length=20)
    assert_unit_rows(params)
    np.testing.assert_allclose(params.sphere.weight, after.params.sphere.weight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(params.free.weight, after.params.free.weight, rtol=0, atol=1e-6)
    assert np.max(np.abs(params.sphere.weight - start.params.sphere.weight)) > 0.1


def test_checkpoints_keep_every_bit(tmp_path, rows, getkey):
    learner = Learner(Pull(), optax.adam(RATE))
    start = learner.init(MLPNetworks(), SPEC, key=getkey())
    after, _ = fit(learner, start, rows, updates=3, batch_size=BATCH, key=getkey())
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, {"params": after.params}, {})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.restore(eqx.filter_eval_shape(lambda: {"params": start.params}))
    checkpoints.close()
    assert eqx.tree_equal(found.items["params"], after.params, typematch=True)
    assert_unit_rows(found.items["params"])
