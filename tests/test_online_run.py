"""The online experiment as a user runs it, small."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import equinox as eqx
import numpy as np
import pytest

from crlx import load_policy
from experiments._divergence import Diverged
from experiments._online_options import parse
from experiments.online_crl import main

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
    *("--steps", "160", "--num-envs", "4", "--warm-up", "10", "--unroll", "10", "--updates", "3"),
    *("--batch-size", "8", "--replay", "40", "--width", "8", "--episode-length", "25"),
    *("--eval-every", "80", "--eval-episodes", "2", "--eval-length", "25", "--no-aim"),
)

pytestmark = pytest.mark.usefixtures("compiled_once")


def flags(out, *more):
    return [*SMALL, "--out", str(out), *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    main(parse(flags(out)))
    return out


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def parameters(out):
    return eqx.filter(load_policy(out).actor, eqx.is_array)


def test_a_run_writes_all_that_it_promises(finished):
    results = json.loads((finished / "results.json").read_text())
    assert [e["step"] for e in results["evaluations"]] == [80, 160]
    assert set(results["evaluations"][0]["tasks"]) == {"point_u_maze", "point_u_maze_eval"}
    for measure in ("episode_success", "episode_success_any", "final_dist"):
        name = f"point_u_maze_eval/{measure}"
        values = [e[name] for e in results["evaluations"]]
        assert np.isclose(results["scores"][name], np.mean(values))
    assert min(results[f"{kind}_per_second"] for kind in ("updates", "env_steps")) > 0
    for picture in ("curve.png", "paths.png"):
        assert (finished / picture).read_bytes().startswith(b"\x89PNG")
    assert "point_u_maze after 160" in (finished / "replay.html").read_text()


def test_every_round_has_a_line_with_its_times(finished):
    rounds = [line for line in lines(finished) if "critic/loss" in line]
    assert [line["step"] for line in rounds] == [40, 80, 120, 160]
    for line in rounds:
        shares = [line[f"time/{part}"] for part in ("simulation", "replay", "updates")]
        assert min(shares) > 0
        assert np.isclose(sum(shares), 1)
        assert {"collect/success", "collect/dist", "env_steps_per_second"} <= line.keys()


def test_the_policy_loads_and_acts(finished):
    action = load_policy(finished).act(np.zeros((3, 4)), np.ones((3, 2)))
    assert action.shape == (3, 2)
    assert np.all(np.abs(action) <= 1)


def start(arguments):
    command = [sys.executable, str(ROOT / "experiments" / "online_crl.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def newest(out):
    """The step of the newest checkpoint, or 0."""
    names = (path.name for path in (out / "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def assert_same_end(out, finished):
    assert eqx.tree_equal(parameters(out), parameters(finished))
    before, after = (json.loads((d / "results.json").read_text()) for d in (finished, out))
    assert before["evaluations"] == after["evaluations"]


def test_a_run_that_lost_its_end_ends_the_same(finished, tmp_path):
    """From its last checkpoint networks, optimizer, replay, environments and keys go on bit for
    bit."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "results.json").unlink()
    shutil.rmtree(out / "checkpoints" / "160")
    main(parse(["--resume", "--out", str(out)]))
    rounds = [line["step"] for line in lines(out) if "critic/loss" in line]
    assert rounds == [40, 80, 120, 160, 120, 160]
    assert_same_end(out, finished)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_stopped_and_resumed_ends_the_same(finished, tmp_path, number):
    out = tmp_path / "run"
    process, deadline = start(flags(out)), time.monotonic() + 300
    while not newest(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    message = process.communicate(timeout=60)[1]
    assert newest(out), message
    assert not (out / "results.json").exists()
    main(parse(["--resume", "--out", str(out)]))
    assert_same_end(out, finished)


@pytest.mark.thorough
def test_twenty_kills_at_random_moments_change_nothing(tmp_path):
    long = ("--steps", "8000", "--eval-every", "120")
    main(parse(flags(tmp_path / "calm", *long)))
    out, moments = tmp_path / "killed", random.Random(0)
    for kill in range(20):
        exists, before = (out / "config.json").exists(), newest(out)
        process = start(["--resume", "--out", str(out)] if exists else flags(out, *long))
        if kill % 4 == 3:  # As it starts; else in the course of training.
            time.sleep(moments.uniform(0, 10))
        else:
            while newest(out) == before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 3))
        process.kill()
        message = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, message
    assert newest(out) > 1000
    main(parse(["--resume", "--out", str(out)]))
    assert eqx.tree_equal(parameters(out), parameters(tmp_path / "calm"))


def test_a_run_is_resumed_with_its_own_behaviour(finished):
    resumed = ["--resume", "--out", str(finished)]
    assert parse([*resumed, "--collect", "stochastic"]).behaviour == parse(resumed).behaviour
    with pytest.raises(ValueError, match=r"behaviour: crlx\.Stochastic → crlx\.BestOf"):
        main(parse([*resumed, "--collect", "best"]))


@pytest.mark.thorough
def test_replay_may_stay_out_of_checkpoints(tmp_path, capsys):
    out = tmp_path / "run"
    more = ("--no-checkpoint-replay", "--objective", "gcbc", "--eval-every", "1000")
    main(parse(flags(out, *more)))
    assert not list(out.glob("checkpoints/*/data"))
    main(parse(["--resume", "--out", str(out)]))
    assert "40 steps are gathered anew" in capsys.readouterr().out


@pytest.mark.thorough  # Beside the same of offline training.
def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    with pytest.raises(Diverged, match=r"Step \d+: .*not finite"):
        main(parse(flags(tmp_path / "run", "--learning-rate", "1e30")))


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path):
    huge = ("--num-envs", "100000", "--replay", "20000", "--steps", "100000000")
    with pytest.raises(ValueError, match=r"need \d+\.\d+ GB.*smaller --replay"):
        main(parse(flags(tmp_path / "run", *huge)))
    assert not (tmp_path / "run" / "config.json").exists()
