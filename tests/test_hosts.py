"""Several processes that train one run, as on several hosts, through `jax.distributed`."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import equinox as eqx
import jax
import numpy as np
import pytest
from lengths import at_length

from crlx import join_hosts, load_policy
from crlx.envs.ogbench import collect
from experiments import _online_options as online_options
from experiments import _options as offline_options
from experiments import offline_ogbench, online_crl
from experiments._run_directory import read_lines

ROOT = pathlib.Path(__file__).parents[1]
SMALL = ("--architecture", "mlp", "--width", "8", "--no-aim")
ONLINE = (
    *("--steps", "320", "--num-envs", "8", "--warm-up", "10", "--unroll", "10", "--updates", "3"),
    *("--batch-size", "8", "--replay", "40", "--depth", "2", "--objective", "gcbc"),
    *("--episode-length", "25", "--eval-every", "160", "--eval-episodes", "2", *SMALL),
)
# All that JAX itself prints, from several threads at once, which may write into each other's lines.
GLOO = {"Gloo", "Rank", "is", "connected", "to", "peer", "ranks", "Expected", "number", "of"}

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data = collect("pointmaze-medium-navigate-local", folder, episodes=4, length=100)
    sizes = ("--steps", "20", "--eval-every", "20", "--batch-size", "8", "--depth", "3")
    return (*sizes, "--episodes", "1", "--dataset-path", str(data), *SMALL)


def start(script, *flags):
    """Two processes of two devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flag = "--xla_force_host_platform_device_count=2"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
    }
    # The first writes the cache of compiled programs, of which the other has its own devices.
    del environment["JAX_COMPILATION_CACHE_DIR"]
    return [
        subprocess.Popen(
            [sys.executable, str(ROOT / "experiments" / script), *flags],
            env={**environment, "JAX_PROCESS_ID": str(own)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in range(2)
    ]


def finish(processes, code=0, seconds=300):
    """What they printed. Where one fails, the other would wait for it."""
    deadline = time.monotonic() + seconds
    while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
        if any(p.poll() not in (None, code) for p in processes):
            break
        time.sleep(0.1)
    for process in processes:
        process.kill()
    found = [process.communicate() for process in processes]
    assert [p.returncode for p in processes] == [code, code], found
    return [stdout for stdout, _ in found]


def assert_same(one, other):
    """Sums are taken in another order: losses differ by one in ten thousand at most, parameters by
    1e-5, after updates of 3e-4."""
    actors = (eqx.filter(load_policy(run).actor, eqx.is_array) for run in (one, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5), *actors)
    losses = [
        [line["total/loss"] for line in read_lines(run) if "total/loss" in line]
        for run in (one, other)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    first, second = (json.loads((run / "results.json").read_text()) for run in (one, other))
    assert len(first["evaluations"]) == len(second["evaluations"])


@pytest.mark.parametrize("objective", at_length(["gcbc", "infonce"], {"infonce"}))
def test_two_processes_train_one_run(offline, tmp_path, objective):
    """With layers in two parts, and checkpoints of both; for infonce with negatives of both."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    flags = (*offline, "--objective", objective)
    processes = start("offline_ogbench.py", *flags, "--mesh", "data=2,layers=2", "--out", str(both))
    offline_ogbench.main(offline_options.parse([*flags, "--out", str(alone)]))
    first, second = finish(processes)
    assert "Overall success" in first
    assert set(re.findall("[A-Za-z]+", second)) <= GLOO
    assert_same(alone, both)


@pytest.mark.thorough
def test_two_processes_act(tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    processes = start("online_crl.py", *ONLINE, "--mesh", "data=4", "--out", str(both))
    online_crl.main(online_options.parse([*ONLINE, "--out", str(alone)]))
    finish(processes)
    assert_same(alone, both)


@pytest.mark.thorough
def test_a_signal_to_one_process_stops_both(tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    online_crl.main(online_options.parse([*ONLINE, "--out", str(alone)]))
    processes = start("online_crl.py", *ONLINE, "--mesh", "data=4", "--out", str(both))
    checkpoints, deadline = both / "checkpoints", time.monotonic() + 300
    while not list(checkpoints.glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    finish(processes, code=128 + signal.SIGTERM)
    assert not (both / "results.json").exists()
    online_crl.main(online_options.parse(["--resume", "--out", str(both), "--mesh", "data=1"]))
    assert_same(alone, both)


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES and JAX_PROCESS_ID, give both"):
        join_hosts()
