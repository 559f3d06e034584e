import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float, Int

from architectures import Gaussian, MLPNetworks
from crlx import (
    AbstractActor,
    AbstractObjective,
    AbstractRows,
    Current,
    Learner,
    OfflineRows,
    Spec,
)
from crlx.testing import random_rows
from objectives import GCBC

SPEC = Spec(3, 2, 2)
MLP = MLPNetworks(depth=1, width=8, dim=4)
CLONING = Learner(GCBC(), optax.adam(1e-2))

fit = eqx.filter_jit(Learner.fit)


class Weights(eqx.Module):
    a: Float[Array, " obs"]
    b: Float[Array, "2 2"]
    unused: None = None


class Memory(eqx.Module):
    copy: Float[Array, " obs"]
    count: Int[Array, ""]


class Constant(AbstractActor):
    action: Float[Array, " act"]

    def __call__(self, observation, goal):
        del observation, goal
        return Gaussian(self.action, jnp.zeros_like(self.action))


class Slope(AbstractObjective[Weights, Memory, Array]):
    """A loss that is linear in the parameters, so that every number is known."""

    noise: float = 0.0

    def init(self, architecture, spec, *, key):
        del architecture, key
        zeros = jnp.zeros(spec.observation_size)
        return Weights(zeros, jnp.zeros((2, 2))), Memory(zeros, jnp.zeros((), jnp.int32))

    def relabel(self, rows, index, *, key):
        del key
        return rows.take(index).observation

    def loss(self, params, state, batch, *, key):
        del state
        mean = jnp.mean(batch, axis=0)
        slope = 2 + self.noise * jr.normal(key)
        metrics = {"batch/first": mean[0], "batch/largest": jnp.max(batch[:, 0])}
        return mean @ params.a + slope * jnp.sum(params.b), metrics

    def advance(self, params, state):
        return Memory(params.a, state.count + 1)

    def policy(self, params, state):
        del state
        return Constant(params.a)


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


def equal(a, b):
    return eqx.tree_equal(eqx.filter(a, eqx.is_array), eqx.filter(b, eqx.is_array))


def test_one_update_by_hand(getkey):
    learner = Learner(Slope(), optax.sgd(0.1))
    start = learner.init(MLP, SPEC, key=getkey())
    batch = jnp.asarray([[1.0, 2.0, -2.0], [3.0, -2.0, 4.0]])
    after, metrics = learner.update(start, batch, key=getkey())
    np.testing.assert_allclose(after.params.a, [-0.2, 0, -0.1], atol=1e-7)
    np.testing.assert_allclose(after.params.b, -0.2)
    # Memory follows the parameters from after the step.
    assert np.array_equal(after.state.copy, after.params.a)
    assert (int(after.step), int(after.state.count)) == (1, 1)
    norms = {k: float(v) for k, v in metrics.items() if k.startswith("grad_norm/")}
    expected = {"a": np.sqrt(5), "b": 4, "all": np.sqrt(21)}
    assert norms == pytest.approx({f"grad_norm/{k}": v for k, v in expected.items()})
    assert float(metrics["total/loss"]) == 0
    assert float(metrics["batch/first"]) == 2


def test_scanned_updates_equal_single_ones(rows, getkey):
    learner = Learner(GCBC(Current()), optax.adam(1e-2))
    rows, key = FirstRows(rows), getkey()
    single = start = learner.init(MLP, SPEC, key=getkey())
    scanned, curves = fit(learner, start, rows, updates=4, batch_size=8, key=key)
    update = eqx.filter_jit(learner.update)
    batch = learner.objective.relabel(rows, jnp.arange(8), key=key)
    losses = []
    for _ in range(4):
        single, metrics = update(single, batch, key=key)
        losses.append(metrics["total/loss"])
    np.testing.assert_allclose(curves["total/loss"], losses, rtol=1e-6)
    assert np.all(np.diff(losses) < 0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        *(eqx.filter(p, eqx.is_array) for p in (scanned, single)),
    )


@pytest.mark.parametrize("learner", [CLONING, Learner(Slope(noise=1.0), optax.adam(1e-2))])
def test_a_run_may_be_cut_anywhere(learner, rows, getkey):
    key, other = getkey(), getkey()
    start = learner.init(MLP, SPEC, key=getkey())
    whole, curves = fit(learner, start, rows, updates=6, batch_size=8, key=key)
    half, first = fit(learner, start, rows, updates=3, batch_size=8, key=key)
    rest, second = fit(learner, half, rows, updates=3, batch_size=8, key=key)
    assert equal(whole, rest)
    joined = {name: jnp.concatenate([first[name], second[name]]) for name in first}
    assert equal(curves, joined)
    assert not equal(whole, fit(learner, half, rows, updates=3, batch_size=8, key=other)[0])


class Witness(AbstractObjective):
    """Reports a number drawn from every key that it is given."""

    def init(self, architecture, spec, *, key):
        del architecture, spec, key
        return Weights(jnp.zeros(3), jnp.zeros((2, 2))), None

    def relabel(self, rows, index, *, key):
        del rows
        return index[0].astype(jnp.float32), jr.uniform(key)

    def loss(self, params, state, batch, *, key):
        del state
        drawn, relabelled = batch
        keys = {"key/draw": drawn, "key/relabel": relabelled, "key/loss": jr.uniform(key)}
        return jnp.sum(params.a), keys

    def advance(self, params, state):
        return None

    def policy(self, params, state):
        del state
        return Constant(params.a)


class ManyRows(AbstractRows):
    """As many rows as int32 counts, without their contents: a draw shows the key it came from."""

    def draw(self, size, *, key):
        return (jr.uniform(key, (size,)) * 2**24).astype(jnp.int32)

    def take(self, index):
        raise NotImplementedError

    def last(self, index):
        return index


def test_every_draw_has_a_key_of_its_own(getkey):
    learner = Learner(Witness(), optax.sgd(0.1))
    start = learner.init(MLP, SPEC, key=getkey())
    sizes = {"batch_size": 1, "key": getkey()}
    _, fitted = fit(learner, start, ManyRows(), updates=10, **sizes)
    names = ("key/draw", "key/relabel", "key/loss")
    seen = np.concatenate([fitted["key/draw"] / 2**24, *(fitted[name] for name in names[1:])])
    assert len(np.unique(np.round(seen, 6))) == 30
    single = learner.measure(start, ManyRows(), batches=1, **sizes)
    seen = [single["key/draw"] / 2**24, *(single[name] for name in names[1:])]
    assert len(np.unique(np.round(seen, 6))) == 3


def test_one_trace_per_configuration(rows, getkey):
    once = eqx.filter_jit(eqx.debug.assert_max_traces(CLONING.fit, max_traces=1))
    progress = CLONING.init(MLP, SPEC, key=getkey())
    for _ in range(3):
        progress, _ = once(progress, rows, updates=2, batch_size=8, key=getkey())
    assert int(progress.step) == 6


def test_whole_runs_vmap_over_keys(rows, getkey):
    def run(key):
        ikey, fkey = jr.split(key)
        progress = CLONING.init(MLP, SPEC, key=ikey)
        _, curves = CLONING.fit(progress, rows, updates=5, batch_size=8, key=fkey)
        return curves["total/loss"]

    keys = jr.split(getkey(), 3)
    together = eqx.filter_jit(eqx.filter_vmap(run))(keys)
    single = eqx.filter_jit(run)
    np.testing.assert_allclose(together, [single(key) for key in keys], rtol=1e-4)
    assert len(np.unique(together[:, 0])) == 3


def enlarged(rows, count):
    """The shapes of `count` rows, without their memory."""
    total, drawable = len(rows.ends), len(rows.drawable)

    def enlarge(x):
        size = count if x.shape[0] == total else count - (total - drawable)
        return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)

    return jax.tree.map(enlarge, rows)


def memory(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().memory_analysis()


def test_memory_does_not_grow_with_the_data(rows, getkey):
    progress = CLONING.init(MLP, SPEC, key=getkey())
    arrays, static = eqx.partition(progress, eqx.is_array)

    def fitted(arrays, rows, key):
        progress = eqx.combine(arrays, static)
        progress, curves = CLONING.fit(progress, rows, updates=50, batch_size=8, key=key)
        return eqx.filter(progress, eqx.is_array), curves

    small, large = (
        memory(fitted, arrays, enlarged(rows, count), jr.key(0)).temp_size_in_bytes
        for count in (10_000, 1_000_000)
    )
    assert 0 < large < 2 * small


def test_measure_averages_and_changes_nothing(rows, getkey):
    learner = Learner(Slope(), optax.sgd(0.1))
    progress = learner.init(MLP, SPEC, key=getkey())
    before = jax.tree.map(jnp.copy, progress)
    sizes = {"batches": 50, "batch_size": 64}
    known = learner.measure(progress, FirstRows(rows), **sizes, key=getkey())
    first = rows.steps.observation[:64, 0]
    assert set(known) == {"batch/first", "batch/largest"}
    assert float(known["batch/first"]) == pytest.approx(float(first.mean()), abs=1e-6)
    # Other batches at each step: their mean is that of all drawable rows.
    drawn = learner.measure(progress, rows, **sizes, key=getkey())["batch/first"]
    truth = rows.steps.observation[rows.drawable, 0]
    error = float(jnp.std(truth)) / np.sqrt(50 * 64)
    assert abs(float(drawn) - float(truth.mean())) < 4 * error
    assert equal(before, progress)
