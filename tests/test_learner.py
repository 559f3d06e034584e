import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float, Int

from architectures import MLPNetworks
from crlx import (
    AbstractObjective,
    AbstractRows,
    AbstractSource,
    Current,
    Learner,
    Offline,
    OfflineRows,
    Spec,
    epoch,
)
from crlx.testing import random_rows
from objectives import GCBC

pytestmark = pytest.mark.usefixtures("lightly_compiled")

SPEC = Spec(3, 2, 2)
MLP = MLPNetworks(depth=1, width=8, dim=4)
CLONING = Learner(GCBC(), optax.adam(1e-2))

fit = eqx.filter_jit(Learner.fit)
loop = eqx.filter_jit(epoch)


class Weights(eqx.Module):
    a: Float[Array, " obs"]
    b: Float[Array, "2 2"]
    unused: None = None


class Memory(eqx.Module):
    copy: Float[Array, " obs"]
    count: Int[Array, ""]


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
        return mean @ params.a + slope * jnp.sum(params.b), {"batch/first": mean[0]}

    def advance(self, params, state):
        return Memory(params.a, state.count + 1)

    def policy(self, params):
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


def test_offline_collection_copies_nothing(rows, getkey):
    source = Offline(rows)
    assert source.init(key=getkey()) is None
    assert source.rows(None) is rows
    progress = CLONING.init(MLP, SPEC, key=getkey())
    arrays, static = eqx.partition(progress, eqx.is_array)
    many = enlarged(rows, 1_000_000)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(many))

    def looped(arrays, rows, key):
        progress = eqx.combine(arrays, static)
        kind = {"rounds": 2, "updates": 5, "batch_size": 8}
        progress, data, curves = epoch(CLONING, Offline(rows), progress, None, **kind, key=key)
        return eqx.filter(progress, eqx.is_array), data, curves

    used = memory(looped, arrays, many, jr.key(0))
    assert used.argument_size_in_bytes > size
    assert used.temp_size_in_bytes + used.output_size_in_bytes < size / 100


class SeenRows(AbstractRows):
    """The first `seen` rows of a long trajectory."""

    rows: OfflineRows
    seen: Int[Array, ""]

    def draw(self, size, *, key):
        return jr.randint(key, (size,), 0, self.seen - 1)

    def take(self, index):
        return self.rows.take(index)

    def last(self, index):
        return jnp.minimum(self.rows.last(index), self.seen - 1)


class Growing(AbstractSource[Int[Array, ""]]):
    """Reveals ten more rows at each collection, and says what the policy would have done."""

    rows_to_come: OfflineRows

    def init(self, *, key):
        del key
        return jnp.zeros((), jnp.int32)

    def collect(self, data, actor, *, key):
        del key
        seen, state = data + 10, jnp.ones(3)
        action = actor(state, jnp.ones(2)).mode()[0]
        return seen, {"collect/seen": seen.astype(jnp.float32), "collect/action": action}

    def rows(self, data):
        return SeenRows(self.rows_to_come, data)


def test_the_loop_online(getkey):
    source = Growing(random_rows(SPEC, [100], key=getkey()))
    start, data = CLONING.init(MLP, SPEC, key=getkey()), source.init(key=getkey())
    sizes = {"updates": 4, "batch_size": 8}
    progress, data, metrics = loop(CLONING, source, start, data, rounds=3, **sizes, key=getkey())
    assert np.array_equal(metrics["collect/seen"], [10, 20, 30])
    assert metrics["total/loss"].shape == (3, 4)
    assert (int(progress.step), int(data)) == (12, 30)

    def action(progress):
        actor = CLONING.objective.policy(progress.params)
        return float(actor(jnp.ones(3), jnp.ones(2)).mode()[0])

    # Each collection acts with the policy of its time, the first with the untrained one.
    acted = metrics["collect/action"]
    assert float(acted[0]) == pytest.approx(action(start), rel=1e-5)
    assert len(np.unique(acted)) == 3
    again = loop(CLONING, source, progress, data, rounds=3, **sizes, key=getkey())[2]
    assert float(again["collect/action"][0]) == pytest.approx(action(progress), rel=1e-5)


def test_the_loop_offline(rows, getkey):
    """The same code; and how updates are divided into rounds makes no difference."""
    start, key = CLONING.init(MLP, SPEC, key=getkey()), getkey()
    results = [
        loop(CLONING, Offline(rows), start, None, rounds=r, updates=u, batch_size=8, key=key)
        for r, u in ((3, 2), (1, 6))
    ]
    (one, none, three_rounds), (other, _, one_round) = results
    assert none is None
    assert equal(one, other)
    assert three_rounds["total/loss"].shape == (3, 2)
    assert np.array_equal(three_rounds["total/loss"].ravel(), one_round["total/loss"].ravel())


def test_measure_averages_and_changes_nothing(rows, getkey):
    learner = Learner(Slope(), optax.sgd(0.1))
    progress = learner.init(MLP, SPEC, key=getkey())
    before = jax.tree.map(jnp.copy, progress)
    sizes = {"batches": 50, "batch_size": 64}
    known = learner.measure(progress, FirstRows(rows), **sizes, key=getkey())
    first = rows.steps.observation[:64, 0]
    assert set(known) == {"batch/first"}
    assert float(known["batch/first"]) == pytest.approx(float(first.mean()), abs=1e-6)
    # Other batches at each step: their mean is that of all drawable rows.
    drawn = learner.measure(progress, rows, **sizes, key=getkey())["batch/first"]
    truth = rows.steps.observation[rows.drawable, 0]
    error = float(jnp.std(truth)) / np.sqrt(50 * 64)
    assert abs(float(drawn) - float(truth.mean())) < 4 * error
    assert equal(before, progress)
