"""Steps per second of environments: `python experiments/benchmark_environments.py --help`."""

import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import tyro

from crlx import JSON
from crlx.envs.tasks import GoalEnv, make, task_names
from experiments._reporter import Reporter
from experiments._run_directory import provenance, write_json

# Each maze is compared with its body on open ground.
_OPEN = ("ant", "humanoid", "point")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Compiles and runs environments under random actions, all tasks by turns, each in batches,
    and compares mazes with the same body on open ground."""

    tasks: tuple[str, ...] = ("ant", "ant_u_maze", "ant_big_maze", "ant_hardest_maze")
    """Which, or `all` for every task that differs in what it must compute."""
    batches: tuple[int, ...] = (64, 512)
    """Environments at a time."""
    steps: int = 20
    """Control steps per measurement."""
    repeats: int = 5
    """Measurements of each, of which the median counts."""
    out: pathlib.Path | None = None
    """A JSON file for the figures."""

    def __post_init__(self):
        for name in ("steps", "repeats", "batches"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ValueError(f"--{name} must be positive.")
        unknown = sorted(set(self.tasks) - {*task_names(), "all"})
        if unknown:
            raise ValueError(f"There are no tasks {', '.join(unknown)}; see task_names().")

    def names(self) -> list[str]:
        """The tasks, each once."""
        every = [name for name in task_names() if not _repeats(name)]
        return list(dict.fromkeys(every if self.tasks == ("all",) else self.tasks))


def main(settings: Settings) -> None:
    rows: list[dict[str, JSON]] = []
    with Reporter() as reporter:
        for batch in settings.batches:
            rows += _measure(settings, batch, reporter)
    print(markdown(rows))
    if settings.out is not None:
        own = {**dataclasses.asdict(settings), "out": None}
        write_json(settings.out, {**provenance(), "settings": own, "rows": rows})


def _repeats(name: str) -> bool:
    """Whether another task computes the same, with other starts and goals."""
    return "_eval" in name or "_gen_" in name or name.endswith("_random_start")


def _measure(settings: Settings, batch: int, reporter: Reporter) -> list[dict[str, JSON]]:
    rows, runs = {}, {}
    for number, name in enumerate(settings.names()):
        reporter.update(f"compiling, batch {batch}", number, len(settings.names()))
        rows[name], runs[name] = _compile(make(name), batch, settings.steps)
    seconds = {name: [] for name in runs}
    for turn in range(settings.repeats):
        reporter.update(f"running, batch {batch}", turn, settings.repeats)
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    for name, row in rows.items():
        row["steps_per_second"] = batch * settings.steps / statistics.median(seconds[name])
        base = name.split("_")[0]
        if base in seconds and base != name and "maze" in name and base in _OPEN:
            turns = zip(seconds[base], seconds[name], strict=True)
            row["of_open_ground"] = statistics.median(open_ / maze for open_, maze in turns)
    reporter.finish(f"running, batch {batch}")
    return list(rows.values())


def _compile(env: GoalEnv, batch: int, steps: int) -> tuple[dict[str, JSON], Callable[[], None]]:
    """Seconds to trace and compile, and a random rollout that has run once."""
    keys = jr.split(jr.key(0), batch)
    start = time.perf_counter()
    reset = jax.jit(jax.vmap(env.reset)).lower(keys).compile()
    reset_seconds = time.perf_counter() - start
    shape = (batch, env.action_size)

    def once(state, key):
        action = jr.uniform(key, shape, jnp.float32, -1.0, 1.0)
        return jax.vmap(env.step)(state, action), None

    def rollout(state, keys):
        return jax.lax.scan(once, state, keys)[0]

    state, keys = reset(keys), jr.split(jr.key(1), steps)
    start = time.perf_counter()
    compiled = jax.jit(rollout).lower(state, keys).compile()
    step_seconds = time.perf_counter() - start

    def run() -> None:
        jax.block_until_ready(compiled(state, keys))

    run()
    compile_seconds = {"reset_seconds": reset_seconds, "step_seconds": step_seconds}
    return {"task": env.spec.name, "batch": batch, **compile_seconds}, run


def markdown(rows: list[dict[str, JSON]]) -> str:
    """The figures as a Markdown table."""
    head = "| task | batch | compile reset (s) | compile step (s) | steps/s | of open ground |"
    lines = [head, "|---|---|---|---|---|---|"]
    for row in rows:
        share = f"{row['of_open_ground']:.2f}" if "of_open_ground" in row else "–"
        cells = f"{row['reset_seconds']:.1f} | {row['step_seconds']:.1f}"
        speed = f"{row['steps_per_second']:,.0f}"
        lines.append(f"| {row['task']} | {row['batch']} | {cells} | {speed} | {share} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
