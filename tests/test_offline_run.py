"""The offline experiment as a user runs it, on a small dataset."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import equinox as eqx
import numpy as np
import pytest
from lengths import at_length

from crlx import load_policy
from crlx.envs.ogbench import collect
from experiments._divergence import Diverged
from experiments._options import parse
from experiments._run_directory import RunDirectory
from experiments._task import chunk_length
from experiments.offline_ogbench import main

ROOT = pathlib.Path(__file__).parents[1]
DATASET = "pointmaze-medium-navigate-local"

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return collect(DATASET, tmp_path_factory.mktemp("data"), episodes=20, length=200)


def _flags(data, out, *more):
    small = ["--steps", "40", "--eval-every", "20", "--batch-size", "16", "--width", "8"]
    places = ["--dataset-path", str(data), "--out", str(out), "--no-aim"]
    return [*small, "--episodes", "1", *places, *more]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    main(parse(_flags(data, out)))
    return out


def _lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _parameters(out):
    return eqx.filter(load_policy(out).actor, eqx.is_array)


def test_a_run_writes_all_that_it_promises(finished):
    results = json.loads((finished / "results.json").read_text())
    assert {"config", "versions", "commit", "device", "compile_seconds"} <= results.keys()
    assert results["updates_per_second"] > 0
    assert [e["step"] for e in results["evaluations"]] == [20, 40]
    for evaluation in results["evaluations"]:
        assert len(evaluation["tasks"]) == 5
        assert np.isclose(evaluation["overall_success"], np.mean([*evaluation["tasks"].values()]))
    scores = [e["overall_success"] for e in results["evaluations"]]
    assert np.isclose(results["overall_success"], np.mean(scores))
    for picture in ("curve.png", "trajectories.png"):
        assert (finished / picture).read_bytes().startswith(b"\x89PNG")


def test_metrics_are_one_line_per_chunk_and_evaluation(finished):
    lines = _lines(finished)
    assert lines[0]["event"] == "start"
    assert lines[-1]["event"] == "end"
    trained = [line for line in lines if "critic/loss" in line]
    assert trained[-1]["step"] == 40
    assert {"actor/loss", "critic/categorical_accuracy", "grad_norm/critic"} <= trained[-1].keys()
    assert sum(line.get("event") == "evaluation" for line in lines) == 2


@pytest.mark.thorough
def test_lines_are_as_frequent_as_asked_for(data, tmp_path):
    sizes = ["--steps", "8", "--eval-every", "8", "--log-every", "3", "--objective", "gcbc"]
    main(parse(_flags(data, tmp_path / "run", *sizes)))
    assert [line["step"] for line in _lines(tmp_path / "run") if "actor/loss" in line] == [3, 6, 8]


def test_the_policy_loads_and_acts(finished):
    policy = load_policy(finished)
    one = policy.act(np.zeros(2), np.ones(2))
    many = policy.act(np.zeros((3, 2)), np.ones((3, 2)))
    assert one.shape == (2,)
    assert many.shape == (3, 2)
    assert np.allclose(many, one, atol=1e-6)
    assert np.all(np.abs(policy.act(np.full(2, 1e3), np.zeros(2))) <= 1)
    with pytest.raises(ValueError, match="observations of 2 numbers"):
        policy.act(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="one goal for each"):
        policy.act(np.zeros((3, 2)), np.zeros((2, 2)))


def test_a_directory_without_a_run_has_no_policy(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        load_policy(tmp_path)


def _start(flags):
    command = [sys.executable, str(ROOT / "experiments" / "offline_ogbench.py"), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _wait_for_evaluation(process, out):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        checkpoints = out / "checkpoints"
        if checkpoints.exists() and any(p.name.isdigit() for p in checkpoints.iterdir()):
            return
        time.sleep(0.02)
    pytest.fail(f"no checkpoint: {process.communicate()[1]}")


@pytest.mark.parametrize(
    "number", at_length((signal.SIGTERM, signal.SIGINT, signal.SIGKILL), {signal.SIGTERM})
)
def test_a_run_that_was_stopped_and_resumed_ends_the_same(data, finished, tmp_path, number):
    out = tmp_path / "run"
    process = _start(_flags(data, out))
    _wait_for_evaluation(process, out)
    process.send_signal(number)
    message = process.communicate(timeout=60)[1]
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number, message
        assert "everything is saved" in message
    assert not (out / "results.json").exists()
    main(parse(["--resume", "--out", str(out)]))
    assert eqx.tree_equal(_parameters(out), _parameters(finished))
    before, after = (json.loads((d / "results.json").read_text()) for d in (finished, out))
    assert before["evaluations"] == after["evaluations"]


@pytest.mark.usefixtures("leave_nothing")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_costs_only_time(finished, tmp_path, caplog):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "results.json").unlink()
    for file in (out / "checkpoints" / "40" / "params" / "d").iterdir():
        file.write_bytes(b"")
    main(parse(["--resume", "--out", str(out)]))
    assert "checkpoint of step 40 cannot be read" in caplog.text
    assert [line["step"] for line in _lines(out) if "critic/loss" in line] == [20, 40, 40]
    assert eqx.tree_equal(_parameters(out), _parameters(finished))


@pytest.mark.thorough
def test_cloning_runs_without_a_critic(data, tmp_path):
    flags = _flags(data, tmp_path / "run", "--objective", "gcbc", "--architecture", "mlp")
    main(parse(flags))
    trained = [line for line in _lines(tmp_path / "run") if "actor/loss" in line]
    assert trained
    assert not any(name.startswith("critic/") for name in trained[-1])


def test_another_configuration_is_not_resumed(finished):
    with pytest.raises(ValueError, match=r"batch_size: 16 → 32"):
        main(parse(["--resume", "--out", str(finished), "--batch-size", "32"]))


def test_another_objective_is_not_resumed(finished):
    with pytest.raises(ValueError, match=r"objective: objectives\.Contrastive → objectives\.GCBC"):
        main(parse(["--resume", "--out", str(finished), "--objective", "gcbc"]))


def test_a_finished_run_can_be_resumed_and_stays_the_same(finished):
    before = json.loads((finished / "results.json").read_text())
    main(parse(["--resume", "--out", str(finished)]))
    assert json.loads((finished / "results.json").read_text()) == before


def test_a_run_may_go_on_with_other_options_of_the_compiler(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    main(parse(["--resume", "--out", str(out), "--xla", "xla_cpu_prefer_vector_width=128"]))
    results = json.loads((out / "results.json").read_text())
    assert "xla_cpu_prefer_vector_width=128" in json.dumps(results["config"]["xla"])


def test_flags_may_be_repeated_when_resuming(data, finished):
    options = parse(["--resume", *_flags(data, finished)])
    assert options.architecture.width == 8
    assert options.steps == 40
    spelt_otherwise = ["--resume", "--out", str(finished), "--architecture.width", "8"]
    assert parse(spelt_otherwise).architecture == options.architecture


def test_a_folder_serves_one_process_at_a_time(data, tmp_path):
    out = tmp_path / "run"
    held = RunDirectory(out, resume=False)
    with pytest.raises(ValueError, match="Another process is writing"):
        main(parse(_flags(data, out)))
    held.close()


def test_other_data_are_not_resumed(finished, tmp_path):
    other = collect(DATASET, tmp_path, episodes=20, length=200, seed=1)
    with pytest.raises(ValueError, match="dataset_digest"):
        main(parse(["--resume", "--out", str(finished), "--dataset-path", str(other)]))


def test_a_line_that_was_cut_short_does_not_swallow_the_next(tmp_path):
    directory = RunDirectory(tmp_path / "run", resume=False)
    directory.log({"step": 1})
    with (directory.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "los')
    directory.log({"step": 3})
    directory.close()
    assert [line["step"] for line in directory.lines()] == [1, 3]


def test_any_number_of_steps_is_trained_and_evaluated_at_the_end(data, tmp_path):
    out = tmp_path / "run"
    flags = ("--steps", "7", "--eval-every", "5", "--objective", "gcbc", "--architecture", "mlp")
    main(parse(_flags(data, out, *flags)))
    results = json.loads((out / "results.json").read_text())
    assert [e["step"] for e in results["evaluations"]] == [5, 7]


@pytest.mark.parametrize(
    ("interval", "parameters", "batch", "expected"),
    [
        (1000, 10**6, 256, 500),
        (5003, 10**6, 256, 500),
        (20, 10**6, 256, 20),
        (100_000, 4_600_000, 1024, 25),
        (4, 2 * 10**8, 256, 2),
    ],
)
def test_calls_take_seconds(interval, parameters, batch, expected):
    assert chunk_length(interval, parameters, batch) == expected


def test_a_directory_with_a_run_is_not_overwritten(data, finished):
    before = sorted((p, p.stat().st_mtime_ns) for p in finished.rglob("*") if p.is_file())
    with pytest.raises(ValueError, match="holds another run"):
        main(parse(_flags(data, finished)))
    assert before == sorted((p, p.stat().st_mtime_ns) for p in finished.rglob("*") if p.is_file())


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        parse(["--resume", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match="name its folder"):
        parse(["--resume"])


def test_runs_of_other_versions_are_not_resumed(finished, tmp_path):
    """What a run was begun with is not guessed."""
    config = json.loads((finished / "config.json").read_text())
    del config["xla"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"lacks xla: .* another version of crlx"):
        parse(["--resume", "--out", str(tmp_path)])


def test_a_place_that_cannot_be_written_is_refused_at_once(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Cannot write to"):
        main(parse(_flags(data, tmp_path / "file" / "run")))


def test_a_loss_that_is_not_a_number_stops_the_run(data, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Diverged, match=r"Step \d+: .*not finite") as caught:
        main(parse(_flags(data, out, "--learning-rate", "1e30")))
    assert "learning-rate" in str(caught.value)
    assert not (out / "results.json").exists()
