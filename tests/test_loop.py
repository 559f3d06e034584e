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
    AbstractSource,
    Learner,
    Offline,
    OfflineRows,
    Spec,
    epoch,
)
from crlx.testing import numbered_rows, random_rows
from objectives import GCBC

SPEC = Spec(3, 2, 2)
MLP = MLPNetworks(depth=1, width=8, dim=4)
CLONING = Learner(GCBC(), optax.adam(1e-2))

loop = eqx.filter_jit(epoch)


class Constant(AbstractActor):
    action: Float[Array, " act"]

    def __call__(self, observation, goal):
        del observation, goal
        return Gaussian(self.action, jnp.zeros_like(self.action))


class Slope(AbstractObjective):
    """A loss that is linear in the parameters, so that every number is known."""

    def init(self, architecture, spec, *, key):
        del architecture, key
        return Constant(jnp.zeros(spec.observation_size)), None

    def relabel(self, rows, index, *, key):
        del key
        return rows.take(index).observation

    def loss(self, params, state, batch, *, key):
        del state, key
        mean = jnp.mean(batch, axis=0)
        return mean @ params.action, {"batch/mean": mean[0], "batch/largest": jnp.max(batch[:, 0])}

    def advance(self, params, state):
        del params, state

    def policy(self, params, state):
        del state
        return params


@pytest.fixture(scope="module")
def rows():
    return random_rows(SPEC, [40, 25], key=jr.key(0))


def equal(a, b):
    return eqx.tree_equal(eqx.filter(a, eqx.is_array), eqx.filter(b, eqx.is_array))


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

    def collect(self, data, agent, *, key):
        action = agent.actor(jnp.ones(2), jnp.ones(2)).mode()[0]
        return data + 10, {"collect/action": action, "collect/noise": jr.normal(key)}

    def rows(self, data):
        return SeenRows(self.rows_to_come, data)


def test_the_loop_online(getkey):
    learner = Learner(Slope(), optax.sgd(0.1))
    source, spec = Growing(numbered_rows([100])), Spec(2, 1, 2)
    start, data = learner.init(MLP, spec, key=getkey()), source.init(key=getkey())
    sizes = {"rounds": 3, "updates": 4, "batch_size": 64}
    progress, data, metrics = loop(learner, source, start, data, **sizes, key=getkey())
    assert metrics["total/loss"].shape == (3, 4)
    assert (int(progress.step), int(data)) == (12, 30)
    # Each round fits to what it has just collected, and to nothing that is still to come.
    largest = metrics["batch/largest"]
    assert np.all(largest >= jnp.array([[0.0], [10.0], [20.0]]))
    assert np.all(largest <= jnp.array([[8.0], [18.0], [28.0]]))
    # Each collection acts with the policy of its time, the first with the untrained one.
    acted = [0.0]
    for round_ in range(2):
        acted.append(acted[-1] - 0.1 * float(metrics["batch/mean"][round_].sum()))
    np.testing.assert_allclose(metrics["collect/action"], acted, rtol=1e-5)
    assert len(np.unique(metrics["collect/noise"])) == 3


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


def test_offline_collection_copies_nothing(rows, getkey):
    source = Offline(rows)
    assert source.init(key=getkey()) is None
    assert source.rows(None) is rows
    progress = CLONING.init(MLP, SPEC, key=getkey())
    arrays, static = eqx.partition(progress, eqx.is_array)
    many = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((10_000 * x.shape[0], *x.shape[1:]), x.dtype), rows
    )
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(many))

    def looped(arrays, rows, key):
        progress = eqx.combine(arrays, static)
        kind = {"rounds": 2, "updates": 5, "batch_size": 8}
        progress, data, curves = epoch(CLONING, Offline(rows), progress, None, **kind, key=key)
        return eqx.filter(progress, eqx.is_array), data, curves

    compiled = jax.jit(looped).lower(arrays, many, jr.key(0)).compile()
    used = compiled.memory_analysis()
    assert used.argument_size_in_bytes > size
    assert used.temp_size_in_bytes + used.output_size_in_bytes < size / 100
