"""Comparisons: most with a stub in place of the training, one with the training itself."""

import json
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from comparison_cases import NAVIGATE, STITCH, finish, make_cell, parse_table, results

from crlx.envs.ogbench import collect
from experiments._comparison import alone_in, check_stored, plan
from experiments._comparison_pool import Pool, last_step, offline_command
from experiments._options import parse
from experiments._reporter import Reporter
from experiments._stop import Stopped
from experiments.compare_offline import Options, main, split
from experiments.offline_ogbench import main as train

# Fails for seed 7, waits for a signal for seed 8, and else writes results.
STUB = """
import json, pathlib, signal, sys, time
path, config = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
(path / "config.json").write_text(json.dumps(config))
print("a line of seed", config["seed"])
if config["seed"] == 7:
    sys.exit("RuntimeError: too large")
if config["seed"] == 8:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (path / "waiting").touch()
    time.sleep(60)
(path / "results.json").write_text(sys.argv[3])
"""


def stub(cell):
    config, found = json.dumps(cell.config), json.dumps(results(cell, [0.1, 0.2, 0.3]))
    return [sys.executable, "-c", STUB, str(cell.path), config, found]


def run(cells, jobs=1):
    concluded = []
    with Reporter() as reporter:
        failures = Pool(jobs, reporter, stub).run(cells, concluded.append)
    return failures, concluded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ("gciqll",)}, "did you mean 'gciql'"),
        ({"objectives": ("crl", "crl")}, "--objectives names crl more than once"),
        ({"datasets": ("pointmaze-medium-navigat",)}, NAVIGATE),
        ({"datasets": ()}, "--datasets needs at least one"),
        ({"seeds": (1, 0, 1)}, "--seeds names 1 more than once"),
        ({"seeds": (-1,)}, "must not be negative"),
        ({"jobs": 0}, "must be positive"),
    ],
)
def test_impossible_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Options(**change)


def test_flags_of_runs_come_after_two_dashes():
    assert split(["--jobs", "2", "--", "--steps", "5"]) == (["--jobs", "2"], ["--steps", "5"])
    assert split(["--jobs", "2"]) == (["--jobs", "2"], [])


def test_a_plan_has_every_run_with_its_settings(tmp_path):
    cells = plan(["gcbc", "bc"], [NAVIGATE, STITCH], [3, 4], tmp_path, ["--steps", "7"])
    assert len(cells) == 8
    assert len({cell.path for cell in cells}) == 8
    assert [cell.seed for cell in cells] == [3] * 4 + [4] * 4
    last = cells[-1]
    assert last.path == tmp_path / STITCH / "bc" / "4"
    assert (last.config["seed"], last.config["steps"]) == (4, 7)
    assert last.config["objective"]["type"] == "objectives.BC"
    assert last.flags[-2:] == ("--steps", "7")


def test_flags_of_one_objective_go_to_it_alone(tmp_path):
    passed = ["--steps", "7", "bc:", "--learning-rate", "0.5"]
    cells = plan(["gcbc", "bc"], [NAVIGATE], [0], tmp_path, passed)
    assert [cell.config["learning_rate"] for cell in cells] == [3e-4, 0.5]
    assert [cell.own for cell in cells] == [(), ("--learning-rate", "0.5")]


@pytest.mark.parametrize(
    ("passed", "message"),
    [
        (["--seed", "3"], "--seed is set for every run by the comparison"),
        (["--out=here"], "--out is set"),
        (["--resume"], "--resume is set"),
        (["--dataset_path", "x.npz"], "names one file, and there are 2 datasets"),
        (["--depth", "0"], f"gcbc on {NAVIGATE}: "),
        (["--contrast", "forward"], "gcbc on .* leave --contrast out"),
        (["gcivl:", "--steps", "3"], "Unknown objective of this comparison 'gcivl'"),
        (["bc:", "--steps", "3"], "--steps must be the same for all"),
    ],
)
def test_flags_that_do_not_suit_are_refused(tmp_path, passed, message):
    with pytest.raises(ValueError, match=message):
        plan(["gcbc", "bc"], [NAVIGATE, STITCH], [0], tmp_path, passed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("passed", "message"), [(["--stepz", "3"], "--stepz"), (["--steps", "0"], "must be positive")]
)
def test_what_tyro_refuses_comes_with_the_run_that_it_does_not_suit(
    tmp_path, capsys, passed, message
):
    with pytest.raises(SystemExit) as caught:
        plan(["gcbc"], [NAVIGATE], [0], tmp_path, passed)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert f"do not suit gcbc on {NAVIGATE}" in said


def test_another_configuration_is_refused_before_anything_starts(tmp_path):
    asked = {"objectives": ("gcbc",), "datasets": (NAVIGATE,), "out": tmp_path}
    for cell in plan(["gcbc"], [NAVIGATE], [0, 1], tmp_path, ["--steps", "10"]):
        cell.path.mkdir(parents=True)
        (cell.path / "config.json").write_text(json.dumps(cell.config))
    with pytest.raises(ValueError, match=r"steps: 10 → 20, in .*0, .*1\n.*another --out") as error:
        main(Options(**asked, seeds=(0, 1, 2)), ["--steps", "20"])
    assert "seed:" not in str(error.value)
    assert not (tmp_path / NAVIGATE / "gcbc" / "2").exists()
    assert not (tmp_path / "comparison.md").exists()


def test_finished_runs_are_those_with_the_same_configuration(tmp_path):
    cell, other = make_cell(tmp_path), make_cell(tmp_path, seed=1)
    check_stored([cell, other])
    finish(cell, [0.1, 0.2, 0.3])
    assert cell.finished
    assert not other.finished
    check_stored([cell, other])
    found = json.loads((cell.path / "results.json").read_text())
    found["config"]["batch_size"] = 1024
    (cell.path / "results.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="batch_size: 1024 → 256"):
        check_stored([cell, other])


def test_started_runs_are_resumed(tmp_path):
    cell = make_cell(tmp_path)
    assert "--resume" not in offline_command(cell)
    cell.path.mkdir(parents=True)
    (cell.path / "config.json").write_text(json.dumps(cell.config))
    assert offline_command(cell)[2:] == ["--resume", "--seed", "0"]


def test_a_folder_serves_one_comparison_at_a_time(tmp_path):
    with (
        alone_in(tmp_path / "new"),
        pytest.raises(ValueError, match="Another comparison is at work"),
        alone_in(tmp_path / "new"),
    ):
        pass


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_run_that_fails_is_reported_and_the_others_finish(tmp_path, capsys, jobs):
    cells = [make_cell(tmp_path, seed) for seed in (0, 7, 1)]
    failures, concluded = run(cells, jobs)
    assert {cell.seed for cell in concluded} == {0, 1}
    assert [failure.cell.seed for failure in failures] == [7]
    text = str(failures[0])
    assert "seed 7 failed (exit status 1)" in text
    assert text.endswith("    a line of seed 7\n    RuntimeError: too large")
    assert str(cells[1].log) in text
    assert "(3 of 3)" in capsys.readouterr().out


def test_only_the_last_start_of_a_failed_run_is_shown(tmp_path):
    cell = make_cell(tmp_path, 7)
    cell.path.mkdir(parents=True)
    cell.log.write_text("an older start\n")
    failures, _ = run([cell])
    assert "older" not in str(failures[0])
    assert cell.log.read_text().startswith("an older start\n")


def test_a_run_without_results_failed(tmp_path):
    with Reporter() as reporter:
        pool = Pool(1, reporter, lambda cell: [sys.executable, "-c", "print(1)"])
        failures = pool.run([make_cell(tmp_path)], print)
    assert failures[0].reason == "it ended without results"


def test_a_signal_stops_the_runs_and_leaves_what_is_finished(tmp_path):
    cells = [make_cell(tmp_path, seed) for seed in (0, 8, 1)]
    # The signal comes from outside, when the second run waits for it.
    waits = f"until test -e {shlex.quote(str(cells[1].path / 'waiting'))}; do sleep 0.1; done"
    sender = subprocess.Popen(["sh", "-c", f"{waits}; kill -TERM {os.getpid()}"])
    concluded = []
    with Reporter() as reporter, pytest.raises(Stopped, match="1 of 3 runs had ended") as caught:
        Pool(1, reporter, stub).run(cells, concluded.append)
    assert sender.wait() == 0
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert [cell.seed for cell in concluded] == [0]
    assert cells[1].started
    assert not cells[1].finished
    assert not cells[2].path.exists()


def test_the_last_step_is_read_from_the_log(tmp_path):
    assert last_step(tmp_path) == 0
    lines = ['{"event": "start"}', '{"step": 5}', '{"step": 10}', '{"event": "end"}', '{"step": 1']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert last_step(tmp_path) == 10


@pytest.mark.slow
def test_a_comparison_resumes_trains_and_skips(tmp_path, capsys):
    data = collect(NAVIGATE, tmp_path / "data", episodes=5, length=50)
    small = ["--steps", "2", "--eval-every", "2", "--batch-size", "8", "--width", "8"]
    small += ["--architecture", "mlp", "--episodes", "1", "--dataset-path", str(data), "--no-aim"]
    options = Options(("gcbc",), (NAVIGATE,), (0, 1), tmp_path / "out", jobs=2)
    first, second = plan(["gcbc"], [NAVIGATE], [0, 1], options.out, small)
    train(parse(list(first.flags)))
    before = first.results()
    (first.path / "results.json").unlink()  # As if it had been stopped just before its end.
    assert main(options, small) == []
    said = capsys.readouterr().out
    assert f"Resuming {first.name}" in said
    assert f"Starting {second.name}" in said
    assert first.results() == before
    scores = [100 * cell.results()["overall_success"] for cell in (first, second)]
    (row,) = parse_table((options.out / "comparison.md").read_text())
    assert row["success (%)"] == f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}"
    assert row["published (%)"] == "9 ± 6"
    assert row["seeds"] == "2"
    times = [(cell.path / "results.json").stat().st_mtime_ns for cell in (first, second)]
    assert main(options, small) == []
    assert "2 runs, of which 2 are finished" in capsys.readouterr().out
    assert times == [(c.path / "results.json").stat().st_mtime_ns for c in (first, second)]
