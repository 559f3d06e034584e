"""Changing the depth of a trained run, as a user does it."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest

from crlx import Checkpoints, decode, load_policy
from crlx.envs.ogbench import collect
from experiments import offline_ogbench
from experiments._options import parse
from experiments._snapshot import packed
from experiments._task import start
from experiments.resize_depth import Options, main

DATASET = "pointmaze-medium-navigate-local"
RULE = ["--architecture.style.residual-scale", "RSQRT", "--depth", "8", "--width", "4"]


@pytest.fixture(scope="module", autouse=True)
def lightly():
    """Compiles faster and runs slower, also while the run below is made."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two blocks, the factor on whose branches follows from their number."""
    folder = tmp_path_factory.mktemp("runs")
    data = collect(DATASET, folder / "data", episodes=20, length=200)
    small = ["--objective", "gcbc", "--steps", "3", "--eval-every", "3", "--batch-size", "8"]
    places = ["--dataset-path", str(data), "--out", str(folder / "run"), "--no-aim"]
    offline_ogbench.main(parse([*small, "--episodes", "1", *RULE, *places]))
    return folder / "run"


@pytest.fixture(scope="module")
def deeper(run):
    out = run.with_name("deeper")
    main(Options(run, depth=12, out=out, seed=5, export=run.with_name("deeper.npz")))
    return out


def _actions(path):
    observations = np.linspace(-2, 20, 12).reshape(6, 2)
    return load_policy(path).act(observations, observations[::-1])


def _config(path):
    return json.loads((path / "config.json").read_text())


def _weights(path):
    return load_policy(path).actor.trunk.stack.blocks.layers[0].linear.weight


def test_a_deeper_run_acts_as_the_old_one(run, deeper):
    assert _weights(deeper).shape == (3, 4, 4)
    assert np.array_equal(_weights(deeper)[:2], _weights(run))
    assert np.array_equal(_actions(deeper), _actions(run))


def test_its_configuration_says_what_it_is(run, deeper):
    config = _config(deeper)
    architecture = decode(config["architecture"])
    assert architecture.style.residual_scale == 1 / np.sqrt(2)
    assert (architecture.depth, config["depth"], config["seed"]) == (12, 12, 5)
    assert config["initialized_from"] == {"run": str(run), "step": 3}
    same = _config(run).keys() - {"architecture", "depth", "seed", "out"}
    assert all(config[name] == _config(run)[name] for name in same)


def test_its_layers_are_exported(deeper):
    with np.load(deeper.with_name("deeper.npz"), allow_pickle=False) as layers:
        assert np.array_equal(
            layers["actor/trunk/stack/1/layers/0/linear/weight"], _weights(deeper)[1]
        )


@pytest.mark.thorough
def test_a_resized_run_trains_on_to_the_end(run, deeper):
    before = eqx.filter(load_policy(deeper).actor, eqx.is_array)
    offline_ogbench.main(parse(["--resume", "--out", str(deeper)]))
    after = eqx.filter(load_policy(deeper).actor, eqx.is_array)
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert changed.trunk.stack.blocks.layers[3].norm.weight
    results = json.loads((deeper / "results.json").read_text())
    assert [e["step"] for e in results["evaluations"]] == [3]


def _made_up(folder, spec, flags):
    """The folder of a run that has not trained for long: its configuration alone."""
    options = parse([*flags, "--out", str(folder)])
    folder.mkdir()
    config = options.config | {"spec": spec}
    (folder / "config.json").write_text(json.dumps(config))
    return options


@pytest.mark.thorough  # Beside the same of networks alone, in test_surgery.py.
def test_critics_are_cut_and_actors_extended_at_once(run, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    options = _made_up(old, _config(run)["spec"], RULE)
    spec = decode(_config(old)["spec"])
    progress, key = eqx.filter_jit(start)(options.learner, options.architecture, spec, 0)
    checkpoints = Checkpoints(old / "checkpoints")
    checkpoints.save(7, packed(progress, key), {})
    checkpoints.close()
    main(Options(old, depth=4, actor_depth=12, out=new, export=tmp_path / "layers.npz"))
    assert np.array_equal(_actions(new), _actions(old))
    architecture = decode(_config(new)["architecture"])
    assert (architecture.depth, architecture.actor_depth) == (4, 12)
    assert _config(new)["initialized_from"]["step"] == 7
    with np.load(tmp_path / "layers.npz", allow_pickle=False) as layers:
        assert "critic/members/0/goal/trunk/stack/0/layers/3/norm/weight" in layers
        assert "critic/members/0/goal/trunk/stack/1/layers/3/norm/weight" not in layers


def test_layers_are_exported_as_they_are(run, tmp_path):
    main(Options(run, export=tmp_path / "layers.npz"))
    with np.load(tmp_path / "layers.npz", allow_pickle=False) as layers:
        weights = [layers[f"actor/trunk/stack/{i}/layers/0/linear/weight"] for i in range(2)]
        assert np.array_equal(weights, _weights(run))
        assert "actor/trunk/stack/2/layers/0/linear/weight" not in layers


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "nothing to write"),
        ({"out": "new"}, "needs a new depth"),
        ({"depth": 12, "out": "."}, "exists already; choose another --out"),
        ({"depth": 12, "export": "layers.npz"}, "exists already; choose another --export"),
        ({"depth": 6, "out": "new"}, "Use a multiple of 4"),
        ({"depth": 12, "out": "new", "seed": -1}, "--seed must not be negative"),
        ({"run": "missing", "depth": 12, "out": "new"}, r"config\.json cannot be read"),
    ],
)
def test_mistakes_are_found_before_any_work(run, tmp_path, monkeypatch, flags, message):
    (tmp_path / "layers.npz").write_text("")
    before = sorted(tmp_path.iterdir())
    paths = {k: tmp_path / v for k, v in flags.items() if isinstance(v, str)}
    monkeypatch.setattr("experiments.resize_depth._newest", None)
    with pytest.raises(ValueError, match=message):
        main(Options(**{"run": run, **flags, **paths}))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--architecture", "mlp", "--depth", "3"], "MLPNetworks is neither"),
        (["--architecture", "tied"], "depth is a number"),
        ([*RULE, "--architecture.actor-depth", "4"], "Train networks that are to change"),
    ],
)
def test_networks_that_cannot_change_their_depth_are_refused(run, tmp_path, flags, message):
    _made_up(tmp_path / "old", _config(run)["spec"], flags)
    with pytest.raises(ValueError, match=message):
        main(Options(tmp_path / "old", depth=16, out=tmp_path / "new"))


def test_a_run_without_checkpoints_is_refused(run, tmp_path):
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        main(Options(tmp_path, depth=12, out=tmp_path / "new"))
    assert not (tmp_path / "new").exists()
