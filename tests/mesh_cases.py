"""What `test_mesh.py` runs in a process of its own, where there are 8 devices.

Training on fixed data, with layers in two parts, is run by default in `test_hosts.py`.
"""

import re

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import pytest
from walk import Walk

from architectures import MLPNetworks
from crlx import (
    Agent,
    Checkpoints,
    DeviceMesh,
    Exploration,
    Learner,
    Offline,
    Online,
    Spec,
    SplitRows,
    SplitSource,
    epoch,
    local,
    stacking,
)
from crlx.envs.wrappers import training
from crlx.testing import check_rows, check_source, random_rows
from objectives import DDPGBC, GCBC, Contrastive

NETWORKS = MLPNetworks(depth=5, width=8, dim=4, unroll=1)  # Stacks of 4 layers.
ONE = DeviceMesh()
CAPACITY = 37  # Of each of 16 environments; no other array is 16 * 37 long.


@pytest.fixture(scope="module")
def rows():
    """Of a number that 8 does not divide, with goals that are observations."""
    found = random_rows(Spec(3, 2, 3), [40, 25, 33], key=jr.key(0))
    return eqx.tree_at(lambda r: r.steps.achieved, found, found.steps.observation)


class Run:
    """Two calls of a compiled epoch on a mesh, the second of which goes on from the first."""

    def __init__(self, learner, source, mesh, begin, batch_size=16):
        def step(kept, carry):
            learner, source = kept
            sizes = {"updates": 2, "batch_size": batch_size}
            *carry, metrics = epoch(learner, source, *carry, **sizes, key=jr.key(2))
            return mesh.constrain(carry), mesh.whole(metrics)

        start = eqx.filter_jit(lambda: mesh.constrain(begin()))()
        jitted = eqx.filter_jit(step, donate="all-except-first")
        compiled = jitted.lower((learner, source), start).compile()
        first, one = compiled((learner, source), start)
        self.carry, two = compiled((learner, source), first)
        self.metrics = [one, two]
        self.program = compiled.compiled.as_text()


def offline(rows, mesh):
    learner = Learner(Contrastive(actor=DDPGBC()), optax.adam(1e-3))
    source = Offline(mesh.place(SplitRows(rows, mesh)))
    return Run(
        learner, source, mesh, lambda: [learner.init(NETWORKS, Spec(3, 2, 3), key=jr.key(1)), None]
    )


def online(mesh):
    learner = Learner(GCBC(), optax.adam(1e-3))
    inner = Online(
        training(Walk()),
        envs=16,
        capacity=CAPACITY,
        unroll=5,
        warm_up=10,
        exploration=Exploration(greedy=0.25, pushed=0.5, hold=3),
    )
    source = SplitSource(inner, mesh)

    def begin():
        progress = learner.init(NETWORKS, Walk().spec.networks(), key=jr.key(1))
        return [progress, source.init(key=jr.key(3))]

    return Run(learner, source, mesh, begin)


def assert_same(one, other):
    """Sums are taken in another order, so float32 differs by some roundings: parameters (after
    updates of 1e-3) by 1e-5 at most, metrics by one in ten thousand."""
    for a, b in zip(one.metrics, other.metrics, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-4, atol=1e-4, err_msg=name)
    numbers = (eqx.filter(run.carry, eqx.is_inexact_array) for run in (one, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5), *numbers)


@pytest.fixture(scope="module")
def acted():
    return online(ONE), online(DeviceMesh.parse("data=8"))


@pytest.fixture(scope="module")
def fitted(rows):
    return offline(rows, ONE), offline(rows, DeviceMesh.parse("data=4,layers=2"))


@pytest.mark.thorough
def test_fixed_data_on_eight_devices_as_on_one(fitted):
    """With negatives from the whole minibatch, of which a device has two rows, and layers in two
    parts."""
    assert_same(*fitted)


def test_acting_on_eight_devices_as_on_one(acted):
    assert_same(*acted)


def shard(x, axis=0):
    """The part of an axis that a device has."""
    return x.sharding.shard_shape(x.shape)[axis] / x.shape[axis]


def test_every_device_has_its_environments(acted):
    data = acted[1].carry[1]
    for x in (data.replay.observation, data.replay.newest, data.env.obs, data.env.info["key"]):
        assert shard(x) == 1 / 8
    assert data.moments.mean.sharding.is_fully_replicated


@pytest.mark.thorough
def test_every_device_has_its_part_of_each_layer(fitted):
    progress = fitted[1].carry[0]
    trained = eqx.filter((progress.params, progress.opt_state), eqx.is_array)
    counts = {True: 0, False: 0}
    for leaf, (_, axes) in zip(jax.tree.leaves(trained), stacking(trained), strict=True):
        layer = axes > 0 and leaf.shape[axes - 1] == 4
        assert shard(leaf, axes) == 1 / 2 if layer else leaf.sharding.is_fully_replicated
        counts[layer] += 1
    assert min(counts.values()) > 10


def test_no_device_ever_sees_the_whole_replay(acted):
    """Of a row, only integers of its index are gathered, not what was observed."""
    gathered = re.findall(r"= (\S+) all-gather", acted[1].program)
    assert gathered
    long = {shape.split("{")[0] for shape in gathered if re.search(rf"\b{16 * CAPACITY}\b", shape)}
    assert {re.match(r"[a-z]+\d*", shape)[0] for shape in long} <= {"s32", "pred"}


@pytest.mark.thorough
@pytest.mark.parametrize("mesh", [ONE, DeviceMesh(layers=2)], ids=["one", "two"])
def test_checkpoints_are_read_onto_another_number_of_devices(acted, fitted, tmp_path, mesh):
    written = {"progress": fitted[1].carry[0], "data": acted[1].carry[1]}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, written, {})
    checkpoints.close()
    skeleton = mesh.described(eqx.filter_eval_shape(lambda: written))
    checkpoints = Checkpoints(tmp_path)
    read = checkpoints.restore(skeleton).items
    checkpoints.close()
    assert {len(x.devices()) for x in jax.tree.leaves(read) if eqx.is_array(x)} == {mesh.size}
    assert eqx.tree_equal(local(read), local(written))


def test_rows_on_many_devices_are_the_same_rows(rows):
    mesh = DeviceMesh.parse("data=8")
    index = rows.drawable
    placed = mesh.place(SplitRows(rows, mesh))
    assert len(placed.rows.steps.observation) == 104  # The next multiple of 8.
    # The second name of an array is no second copy of it.
    assert placed.rows.steps.achieved is placed.rows.steps.observation
    assert eqx.tree_equal(local(placed.take(index)), rows.take(index))


@pytest.mark.thorough
def test_rows_and_sources_on_many_devices_keep_their_contracts(rows):
    mesh = DeviceMesh.parse("data=8")
    placed = mesh.place(SplitRows(rows, mesh))
    check_rows(placed, np.asarray(rows.drawable), key=jr.key(0))
    inner = Online(training(Walk()), envs=16, capacity=CAPACITY, unroll=2, warm_up=4)
    actor = NETWORKS.actor(Walk().spec.networks(), key=jr.key(0))
    check_source(SplitSource(inner, mesh), Agent(actor), key=jr.key(1))
