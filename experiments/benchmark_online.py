"""Online training beside JaxGCRL's own: `python experiments/benchmark_online.py --help`."""

import dataclasses
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any, Literal

import tyro

from crlx import encode
from experiments._launch import command
from experiments._run_directory import provenance, read_lines, write_json

_HERE = pathlib.Path(__file__).parent
# Our names of their tasks.
_TASKS = {"ant": "ant", "simple_u_maze": "point_u_maze"}
# JaxGCRL counts steps of an episode one further.
_LENGTH = 1001
_ENVS, _UNROLL = 64, 62
_PREFILL = 17 * _UNROLL  # Steps of each environment with which JaxGCRL begins: 1,000 or more.


@dataclasses.dataclass(frozen=True)
class Settings:
    """Trains the same task at the same sizes with this library and with JaxGCRL 0.2.8, one after
    the other, each in processes of its own: plain networks of two hidden layers of 256 with swish,
    64 environments, an unroll of 62, 250 updates with a batch of 256, the same replay and the same
    objective. Each episode of an environment begins where its first did, as there."""

    reference_python: pathlib.Path
    """The interpreter of an environment with jaxgcrl 0.2.8 and what it requires."""
    task: Literal["ant", "simple_u_maze"] = "ant"
    """JaxGCRL's name of the task."""
    steps: int = 200_000
    """Environment steps of each run."""
    evaluations: int = 4
    """How often each run is evaluated."""
    episodes: int = 64
    """Episodes of an evaluation."""
    seeds: tuple[int, ...] = (0,)
    """Random seeds, each a run of both."""
    folder: pathlib.Path = pathlib.Path("runs/benchmark_online")
    """Where runs are written; it must not hold any yet."""
    out: pathlib.Path | None = None
    """A JSON file for the figures."""

    def __post_init__(self):
        if not self.reference_python.exists():
            raise ValueError(f"There is no interpreter {self.reference_python}.")
        if min(self.steps, self.evaluations, self.episodes) < 1 or not self.seeds:
            raise ValueError("--steps, --evaluations and --episodes must be positive.")


def main(settings: Settings) -> None:
    rows = []
    for seed in settings.seeds:
        rows += [_ours(settings, seed), _theirs(settings, seed)]
        print(markdown(rows), flush=True)
    if settings.out is not None:
        write_json(settings.out, {"settings": encode(settings), "rows": rows, **provenance()})


def _ours(settings: Settings, seed: int) -> dict[str, Any]:
    out = settings.folder / f"{settings.task}-{seed}"
    # JaxGCRL's first updates come after its prefill and an unroll; its evaluations after equally
    # many unrolls each, so that both have made as many steps and updates then.
    each, prefill = _ENVS * _UNROLL, _ENVS * _PREFILL
    unrolls = max(1, math.ceil((settings.steps - prefill) / (settings.evaluations * each)))
    steps = prefill + settings.evaluations * unrolls * each
    sizes = {"num-envs": _ENVS, "unroll": _UNROLL, "warm-up": _PREFILL + _UNROLL}
    sizes |= {"updates": 250, "batch-size": 256, "steps": steps, "eval-every": unrolls * each}
    sizes |= {"replay": 10_000, "episode-length": _LENGTH, "eval-length": _LENGTH}
    sizes |= {"depth": 2, "width": 256, "architecture.dim": 64, "seed": seed, "out": out}
    sizes |= {"eval-episodes": settings.episodes, "env": _TASKS[settings.task]}
    sizes |= {"architecture.activation": "SWISH", "energy": "norm", "preset": "paper"}
    sizes |= {"architecture.initialization": "PAPER"}
    flags = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    flags += ["--architecture", "mlp", "--architecture.no-normalize", "--repeat-first", "--no-aim"]
    script = [sys.executable, _HERE / "online_crl.py", *flags]
    began, peak = time.time(), _run(script, sys.stderr)
    rounds = [line for line in read_lines(out) if "env_steps_per_second" in line]
    found = [line for line in read_lines(out) if line.get("event") == "evaluation"]
    task = _TASKS[settings.task]
    curve = [(e["step"], e[f"{task}/episode_success_any"], e[f"{task}/final_dist"]) for e in found]
    speed = statistics.median(_numbers(rounds[1:], "env_steps_per_second"))
    first = float(str(rounds[0]["time"])) - began
    return _row("crlx", seed, speed, first, peak, curve)


def _theirs(settings: Settings, seed: int) -> dict[str, Any]:
    script = [settings.reference_python, _HERE / "_jaxgcrl_worker.py", "--env", settings.task]
    script += ["--steps", settings.steps, "--evals", settings.evaluations, "--seed", seed]
    script += ["--eval-envs", settings.episodes, "--episode-length", _LENGTH]
    log = settings.folder / f"{settings.task}-{seed}-jaxgcrl.jsonl"
    with log.open("w") as file:
        peak = _run(script, file)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    epochs = [line for line in lines if line["event"] == "epoch"]
    curve = [
        (e["env_steps"], e["metrics"]["eval/episode_success_any"], e["metrics"]["eval/final_dist"])
        for e in epochs
    ]
    speed = statistics.median(_numbers(epochs[1:], "env_steps_per_second"))
    first = float(lines[-1]["seconds_until_first_epoch"])
    return _row("JaxGCRL", seed, speed, first, peak, curve)


def _run(script: list[Any], output: Any) -> int:
    """Runs a program to its end.

    **Returns:** the most bytes of memory that it held.
    """
    process = subprocess.Popen([str(part) for part in script], stdout=output)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise ValueError(f"{script[1]} failed; its own message is above.")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _numbers(lines: list[dict[str, Any]], name: str) -> list[float]:
    return [float(line[name]) for line in lines]


def _row(name: str, seed: int, speed: float, first: float, peak: int, curve: Any) -> dict[str, Any]:
    return {
        "library": name,
        "seed": seed,
        "env_steps_per_second": speed,
        "seconds_before_the_first_epoch": first,
        "peak_gigabytes": peak / 1e9,
        "curve": curve,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| | seed | env steps/s | start (s) | peak (GB) | reach the goal (%) | final distance |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        reached = ", ".join(f"{100 * success:.0f}" for _, success, _ in row["curve"])
        distance = ", ".join("–" if d is None else f"{d:.2f}" for _, _, d in row["curve"])
        lines.append(
            f"| {row['library']} | {row['seed']} | {row['env_steps_per_second']:,.0f} | "
            f"{row['seconds_before_the_first_epoch']:.0f} | {row['peak_gigabytes']:.2f} | "
            f"{reached} | {distance} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command(main, lambda arguments: tyro.cli(Settings, args=arguments))
