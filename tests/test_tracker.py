import importlib.util
import json
import pathlib
import subprocess
import sys
import time

import pytest

from experiments import _tracker
from experiments._tracker import finish_mirror, start_mirror

SCRIPT = pathlib.Path(_tracker.__file__).with_name("aim_mirror.py")
CONFIG = {"objective": {"name": "infonce", "weights": [1, 2]}, "resume": None}
START = {"event": "start", "config": CONFIG}
END = {"event": "end"}

needs_aim = pytest.mark.skipif(
    importlib.util.find_spec("aim") is None, reason="Aim has no wheel for this Python."
)

# A process of its own, since Aim holds on to the files of a repository while it runs.
_READ = """
import json, sys
from aim import Repo, Run
found = []
for name in Repo.from_path(sys.argv[1]).list_all_runs():
    run = Run(name, repo=sys.argv[1], system_tracking_interval=None, capture_terminal_logs=False)
    metrics = {}
    for metric in run.metrics():
        steps, (values, *_) = metric.data.numpy()
        metrics[metric.name] = [[int(step), value] for step, value in zip(steps, values)]
    found.append({"name": run.name, "config": run.get("config"), "metrics": metrics})
    run.close()
print(json.dumps(found))
"""


@pytest.fixture
def run_dir(tmp_path):
    path = tmp_path / "runs" / "trial"
    path.mkdir(parents=True)
    return path


def log(run_dir, *rows):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def metric(step, loss):
    return {"step": step, "time": 12.5, "critic/loss": loss, "rows": 3}


def evaluation(step, **tasks):
    overall = sum(tasks.values()) / len(tasks)
    row = {"step": step, "event": "evaluation", "overall_success": overall, "tasks": tasks}
    return {**row, "validation/critic/loss": 0.5, "finished": True}


def mirror(run_dir, *arguments):
    command = [sys.executable, SCRIPT, run_dir, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def read(repo):
    """Name, configuration and metrics of every run in the repository."""
    command = [sys.executable, "-c", _READ, repo]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@needs_aim
def test_everything_is_mirrored_once_however_often(run_dir):
    log(run_dir, START, metric(1, 2.0), evaluation(1, task1=0.25, task2=0.75))
    whole = (run_dir / "metrics.jsonl").stat().st_size
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "critic/lo')
    assert mirror(run_dir).returncode == 0
    noted = json.loads((run_dir / "aim.json").read_text())
    assert noted["bytes"] == whole

    # The line is completed, the run resumes one step back, and the mirror is called again.
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('ss": 1.5}\n')
    log(run_dir, START, metric(2, 1.25), metric(3, 1.0), END)
    assert mirror(run_dir).returncode == 0
    # And once more, as if it had been killed after tracking and before noting it.
    (run_dir / "aim.json").write_text(json.dumps(noted))
    assert mirror(run_dir).returncode == 0
    assert json.loads((run_dir / "aim.json").read_text())["run"] == noted["run"]
    assert sorted(file.name for file in run_dir.iterdir()) == ["aim.json", "metrics.jsonl"]
    metrics = {
        "critic/loss": [[1, 2.0], [2, 1.25], [3, 1.0]],
        "rows": [[1, 3.0], [2, 3.0], [3, 3.0]],
        "evaluation/overall_success": [[1, 0.5]],
        "evaluation/task1": [[1, 0.25]],
        "evaluation/task2": [[1, 0.75]],
        "validation/critic/loss": [[1, 0.5]],
    }
    assert read(run_dir.parent) == [{"name": "trial", "config": CONFIG, "metrics": metrics}]

    # Such a log was replaced, not appended to.
    (run_dir / "metrics.jsonl").write_text("{}\n")
    shorter = mirror(run_dir)
    assert shorter.returncode == 1
    assert "start over" in shorter.stderr


@needs_aim
@pytest.mark.thorough
def test_a_damaged_line_is_skipped_and_another_repository_filled(run_dir, tmp_path):
    log(run_dir, START, metric(1, 2.0))
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "critic/lo')
    log(run_dir, START, metric(3, 1.0))
    repo = tmp_path / "elsewhere"
    repo.mkdir()
    result = mirror(run_dir, "--repo", repo)
    assert result.returncode == 0
    assert result.stdout.count("no JSON") == 1
    (found,) = read(repo)
    assert found["metrics"]["critic/loss"] == [[1, 2.0], [3, 1.0]]
    assert not (run_dir.parent / ".aim").exists()


@needs_aim
@pytest.mark.thorough
def test_a_live_mirror_follows_until_the_log_ends(run_dir, capsys):
    log(run_dir, START)
    process = start_mirror(run_dir)
    assert process is not None
    wait_for((run_dir / "aim.json").exists)
    log(run_dir, metric(1, 2.0))
    size = (run_dir / "metrics.jsonl").stat().st_size
    wait_for(lambda: json.loads((run_dir / "aim.json").read_text())["bytes"] == size)
    assert process.poll() is None
    log(run_dir, metric(2, 1.0), END)
    finish_mirror(process, 30)
    assert process.returncode == 0
    assert capsys.readouterr().out == ""
    (found,) = read(run_dir.parent)
    assert found["metrics"]["critic/loss"] == [[1, 2.0], [2, 1.0]]


@needs_aim
@pytest.mark.thorough
def test_a_live_mirror_ends_with_the_process_it_follows(run_dir):
    # A resumed run: the end of the first start is not the end of the log.
    log(run_dir, START, END, START, metric(1, 2.0))
    followed = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    command = [sys.executable, SCRIPT, run_dir, "--follow", str(followed.pid)]
    process = subprocess.Popen(command)
    size = (run_dir / "metrics.jsonl").stat().st_size
    wait_for(lambda: (run_dir / "aim.json").exists())
    wait_for(lambda: json.loads((run_dir / "aim.json").read_text())["bytes"] == size)
    assert process.poll() is None
    log(run_dir, metric(2, 1.0))
    followed.communicate(b"\n")
    assert process.wait(30) == 0
    (found,) = read(run_dir.parent)
    assert found["metrics"]["critic/loss"] == [[1, 2.0], [2, 1.0]]


@needs_aim
def test_a_broken_repository_is_no_trouble_for_the_training(run_dir, capsys):
    (run_dir.parent / ".aim").write_text("no directory")
    log(run_dir, START, END)
    finish_mirror(start_mirror(run_dir), 30)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Warning: the mirror to Aim failed")
    assert "Not a directory" in (run_dir / "aim.log").read_text()


@needs_aim
def test_a_directory_without_a_log_is_refused(run_dir):
    result = mirror(run_dir)
    assert result.returncode == 1
    assert "There is no" in result.stderr
    assert not (run_dir.parent / ".aim").exists()


def test_without_aim_one_line_says_so(run_dir, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert start_mirror(run_dir) is None
    assert len(capsys.readouterr().out.splitlines()) == 1
    finish_mirror(None, 1)
    assert capsys.readouterr().out == ""
    assert list(run_dir.iterdir()) == []


def test_a_mirror_that_cannot_start_is_reported(run_dir, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(sys, "executable", str(run_dir / "no-python"))
    assert start_mirror(run_dir) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Warning:")


@pytest.mark.parametrize(
    ("code", "warning"),
    [
        ("pass", None),
        ("raise SystemExit(3)", "failed (exit status 3)"),
        ("import time; time.sleep(60)", "took over 0.5 s"),
    ],
)
def test_only_trouble_is_reported(code, warning, capsys):
    timeout = 0.5 if "sleep" in code else 30
    process = subprocess.Popen([sys.executable, "-c", code])
    began = time.monotonic()
    finish_mirror(process, timeout)
    assert time.monotonic() - began < 30
    assert process.returncode is not None, "it still runs"
    said = capsys.readouterr().out.splitlines()
    assert len(said) == (warning is not None)
    assert all(warning in line for line in said)
