"""Meshes of devices: what one device can tell of them. The rest is in `mesh_cases.py`."""

import os
import pathlib
import subprocess
import sys

import equinox as eqx
import jax
import jax.random as jr
import optax
import pytest
from jax.sharding import PartitionSpec

from architectures import MLPNetworks
from crlx import DeviceMesh, Learner, Spec, stacking
from crlx._placement import placement
from objectives import GCIQL

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model=8", "written as data=N or data=N,layers=M; got 'model=8'"),
        ("data=2;layers=2", "'data=2;layers=2' is no part"),
        ("data=2,data=2", "'data=2' is no part"),
        ("data=0", "one device or more; got data=0"),
        ("data=8", "has 8 devices, but there are 1: use data=1"),
        ("data=4,layers=2", "has 8 devices, but there are 1: use data=1"),
    ],
)
def test_wrong_meshes_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        DeviceMesh.parse(text)


@pytest.mark.parametrize(
    ("number", "message"), [(512, None), (500, "use 496 or 504"), (3, r"use 8\.")]
)
def test_sizes_that_make_no_equal_parts_are_refused(number, message):
    mesh = DeviceMesh(data=4, layers=2)
    if message is None:
        mesh.check_split("--batch-size", number)
        return
    with pytest.raises(ValueError, match=f"--batch-size {number} cannot be .*{message}"):
        mesh.check_split("--batch-size", number)


def progress(depth):
    networks = MLPNetworks(depth=depth, width=4, dim=4)
    learner = Learner(GCIQL(), optax.adam(1e-3))  # It has ensembles of critics.
    return eqx.filter_eval_shape(learner.init, networks, Spec(3, 2, 3), key=jr.key(0))


def test_layers_are_split_and_members_of_ensembles_are_not():
    found = progress(depth=5)
    specs = placement(found, 2)
    pairs = [(found.params, specs.params), (found.opt_state[0].mu, specs.opt_state[0].mu)]
    for tree, tree_specs in pairs:
        kinds = set()
        leaves = jax.tree.leaves(tree), jax.tree.leaves(tree_specs), stacking(tree)
        for leaf, spec, (_, axes) in zip(*leaves, strict=True):
            if isinstance(leaf, jax.ShapeDtypeStruct):
                kinds.add((leaf.shape[:axes], leaf.ndim > axes, spec))
        whole, layers = PartitionSpec(), "layers"
        members = {(shape, True, whole) for shape in ((), (1,), (2,))}
        deep = {(shape, True, PartitionSpec(None, None, layers)) for shape in ((1, 4), (2, 4))}
        assert kinds - {((), False, whole)} == members | deep | {
            ((4,), True, PartitionSpec(None, layers))
        }


@pytest.mark.parametrize(
    ("depth", "layers", "message"),
    [
        (5, 3, "width 4 .* layers=3: use a width of 3 or 6, or layers=2"),
        (5, 8, "width 4 .* layers=8: use a width of 8, or layers=4"),
        (1, 2, "Nothing of these networks is stacked"),
    ],
)
def test_layers_that_make_no_equal_parts_are_refused(depth, layers, message):
    with pytest.raises(ValueError, match=message):
        DeviceMesh(layers=layers).described(progress(depth))


@pytest.mark.parametrize(
    ("which", "count"),
    [("not thorough", 4), pytest.param("thorough", 5, marks=pytest.mark.thorough)],
)
def test_eight_devices(which, count):
    """Runs `mesh_cases.py`, since the number of devices is fixed when JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", which]
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "mesh_cases.py")],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{count} passed" in done.stdout
