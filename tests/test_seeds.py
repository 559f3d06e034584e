"""Whole runs under `jax.vmap`: several seeds as one program."""

import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from walk import Walk

from architectures import MLPNetworks
from crlx import Exploration, Learner, Online, epoch, load_policy, run_axes, take_run
from crlx.envs.ogbench import collect
from crlx.envs.wrappers import training
from experiments._options import parse
from experiments._run_directory import RunDirectory, read_lines
from experiments.offline_ogbench import main
from objectives import GCBC

pytestmark = pytest.mark.usefixtures("compiled_once")

SEEDS = (3, 4, 5)
NETWORKS = MLPNetworks(depth=1, width=8, dim=4)
LEARNER = Learner(GCBC(), optax.adam(1e-3))
EXPLORATION = Exploration(greedy=0.25, pushed=0.5, hold=3)
SOURCE = Online(
    training(Walk()), envs=4, capacity=50, unroll=5, warm_up=10, exploration=EXPLORATION
)


def begin(seed):
    nkey, dkey, key = jr.split(jr.key(seed), 3)
    progress = LEARNER.init(NETWORKS, Walk().spec.networks(), key=nkey)
    return progress, SOURCE.init(key=dkey), key


def advance(carry):
    progress, data, key = carry
    sizes = {"rounds": 2, "updates": 3, "batch_size": 8}
    progress, data, metrics = epoch(LEARNER, SOURCE, progress, data, **sizes, key=key)
    return (progress, data, key), metrics


@pytest.fixture(scope="module")
def together():
    seeds = jnp.asarray(SEEDS, jnp.uint32)
    axes = run_axes(eqx.filter_eval_shape(begin, 0))
    start = eqx.filter_jit(eqx.filter_vmap(begin, out_axes=axes))(seeds)
    many = eqx.filter_vmap(advance, in_axes=(axes,), out_axes=(axes, 0))
    return eqx.filter_jit(many)(start)


def close(one, other):
    """Products of several matrices at once may round otherwise: 1e-5, after updates of 1e-3."""
    numbers = (eqx.filter(tree, eqx.is_array) for tree in (one, other))

    def leaf(a, b):
        a, b = (
            jr.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b)
        )
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)

    jax.tree.map(leaf, *numbers)


def test_a_seed_among_others_is_the_run_with_that_seed(together):
    """Networks, moments of the optimizer, environments, replay, keys and metrics."""
    carry, metrics = together
    start, step = eqx.filter_jit(begin), eqx.filter_jit(advance)
    for index, seed in enumerate(SEEDS):
        alone, own = step(start(jnp.asarray(seed, jnp.uint32)))
        close(alone, take_run(carry, index))
        close(own, {name: values[index] for name, values in metrics.items()})


def ends_of_loops(axes):
    """The shapes of the conditions of a program's loops. Where it is not a scalar, every step
    chooses, number by number, between all that it has changed and what was there before."""

    def program(seeds):
        start = eqx.filter_vmap(begin, out_axes=axes)(seeds)
        many = eqx.filter_vmap(advance, in_axes=(axes,), out_axes=(axes, 0))
        return eqx.filter(many(start)[0], eqx.is_array)

    text = str(jax.make_jaxpr(program)(jnp.asarray(SEEDS, jnp.uint32)))
    return set(re.findall(r"cond_jaxpr=.*?:bool\[(\d*)\] = lt", text, re.DOTALL))


def test_counts_of_steps_are_shared(together):
    (progress, data, key), _ = together
    assert (progress.step.shape, data.steps.shape, key.shape) == ((), (), (3,))
    skeleton = eqx.filter_eval_shape(begin, 0)
    assert ends_of_loops(run_axes(skeleton)) == {""}
    own = jax.tree.map(lambda x: 0 if isinstance(x, jax.ShapeDtypeStruct) else None, skeleton)
    assert "3" in ends_of_loops(own)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return collect("pointmaze-medium-navigate-local", folder, episodes=4, length=100)


def run(data, out, *more):
    small = ["--steps", "20", "--eval-every", "20", "--batch-size", "8", "--width", "8"]
    networks = ["--objective", "gcbc", "--architecture", "mlp", "--depth", "1"]
    places = ["--dataset-path", str(data), "--out", str(out), "--no-aim", "--episodes", "1"]
    main(parse([*small, *networks, *places, *more]))
    return json.loads((out / "results.json").read_text())


@pytest.mark.thorough
def test_two_seeds_of_a_script_are_two_runs(data, tmp_path):
    """Each becomes a folder that the run with its seed alone could have written."""
    alone = run(data, tmp_path / "alone", "--seed", "6")
    found = run(data, tmp_path / "both", "--seed", "5", "--seeds", "2")
    part = tmp_path / "both" / "seed-6"
    own = json.loads((part / "results.json").read_text())
    close(load_policy(tmp_path / "alone").actor, load_policy(part).actor)
    assert own["config"] == {**alone["config"], "out": str(tmp_path / "both")}
    assert own["evaluations"] == alone["evaluations"]
    for name in ("curve.png", "trajectories.png"):
        assert (part / name).read_bytes().startswith(b"\x89PNG")
    folders = tmp_path / "alone", part
    losses = [
        [line["actor/loss"] for line in read_lines(folder) if "actor/loss" in line]
        for folder in folders
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    scores = [found["seeds"][name]["overall_success"] for name in ("seed-5", "seed-6")]
    assert found["means"]["overall_success"] == found["overall_success"] == np.mean(scores)
    assert np.isclose(found["means"]["overall_success_std"], np.std(scores, ddof=1))
    with pytest.raises(ValueError, match=r"runs with 2 seeds: .*both/seed-5"):
        load_policy(tmp_path / "both")
    # What has ended is resumed to the same end.
    again = run(data, tmp_path / "both", "--seed", "5", "--seeds", "2", "--resume")
    assert again["means"] == found["means"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0"], "--seeds must be positive; got 0"),
        (["--seeds", "2", "--mesh", "data=1"], "on one device in one process: leave --mesh out"),
        (["--mesh", "data=3"], "has 3 devices, but there are 1"),
    ],
)
def test_what_cannot_be_is_refused(data, tmp_path, flags, message):
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_lines_go_to_the_run_that_they_are_about(tmp_path):
    parts = {"a": {"seed": 0}, "b": {"seed": 1}}
    directory = RunDirectory(tmp_path, resume=False, parts=parts)
    directory.claim({"seed": 0, "steps": 5})
    directory.log({"event": "start", "config": {"seed": 0, "steps": 5}, "commit": "x"})
    directory.log({"step": 1, "loss": 2.0, "a/loss": 1.0, "b/loss": 3.0, "speed": 7.0})
    directory.log({"step": 2, "tasks": {}, "b": {"tasks": {"t": 1.0}}, "event": "evaluation"})

    def lines(directory):
        return [{k: v for k, v in line.items() if k != "time"} for line in directory.lines()]

    assert lines(directory)[1:] == [
        {"step": 1, "loss": 2.0, "speed": 7.0},
        {"step": 2, "tasks": {}, "event": "evaluation"},
    ]
    assert lines(directory.parts["b"]) == [
        {"event": "start", "config": {"seed": 1, "steps": 5}, "commit": "x"},
        {"step": 1, "loss": 3.0},
        {"step": 2, "tasks": {"t": 1.0}, "event": "evaluation"},
    ]
    directory.close()
