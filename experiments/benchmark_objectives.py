"""Updates per second of each objective: `python experiments/benchmark_objectives.py --help`."""

import contextlib
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import tyro

from crlx import OfflineRows, Spec, encode, replacing
from crlx.envs.ogbench import LOCAL
from experiments._data import Places, as_rows, load_data
from experiments._options import parse
from experiments._reporter import Reporter
from experiments._run_directory import provenance

# Our names are those of OGBench's agents.
_AGENTS = ("gcbc", "crl", "gcivl", "gciql", "qrl", "hiql")
_WORKER = pathlib.Path(__file__).with_name("_reference_worker.py")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Times updates, sampling included, of plain networks of the same sizes; with `--reference`
    also those of OGBench's own agents, by turns on the same machine."""

    objectives: tuple[str, ...] = _AGENTS
    """Which to time."""
    dataset: str = "pointmaze-medium-navigate-local"
    """On what data."""
    depth: int = 3
    """Hidden layers of each network."""
    width: int = 256
    """Their size."""
    dim: int = 256
    """Size of embeddings."""
    batch_size: int = 256
    """Rows of a minibatch."""
    updates: int = 100
    """Updates per measurement."""
    repeats: int = 5
    """Measurements of each, of which the median counts."""
    reference: pathlib.Path | None = None
    """The folder impls of OGBench's repository."""
    reference_python: pathlib.Path = pathlib.Path(sys.executable)
    """The interpreter of an environment with its requirements."""
    data_dir: pathlib.Path = pathlib.Path("data")
    """Where local datasets are kept."""
    out: pathlib.Path | None = None
    """A JSON file for the figures."""

    def __post_init__(self):
        for name in ("updates", "repeats", "depth", "width", "dim", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be positive.")
        unknown = sorted(set(self.objectives) - set(_AGENTS))
        if unknown:
            raise ValueError(f"OGBench has no agents {unknown}; there are {', '.join(_AGENTS)}.")
        if self.reference is not None and self.dataset not in LOCAL:
            raise ValueError(
                f"--reference needs a dataset that is collected here, such as {next(iter(LOCAL))}."
            )
        if self.reference is not None and not (self.reference / "agents").is_dir():
            raise ValueError(f"{self.reference} has no folder agents: name OGBench's impls.")


Timer = Callable[[], float]


def main(settings: Settings) -> None:
    with Reporter() as reporter:
        places = Places(settings.data_dir, None, None)
        data, _ = load_data(settings.dataset, places, reporter)
        rows = as_rows(data)
        table = [_measure(name, settings, rows, reporter) for name in settings.objectives]
    print(markdown(table))
    if settings.out is not None:
        report = {"settings": encode(settings), "rows": table, **provenance()}
        with replacing(settings.out) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _measure(
    name: str, settings: Settings, rows: OfflineRows, reporter: Reporter
) -> dict[str, Any]:
    """Updates per second, ours and theirs by turns, and the median of the ratios of turns."""
    ours = _ours(name, settings, rows)
    row: dict[str, Any] = {"objective": name}
    with _theirs(name, settings) as theirs:
        mine, reference = [], []
        for turn in range(settings.repeats):
            reporter.update(f"timing {name}", turn, settings.repeats)
            mine.append(ours())
            if theirs is not None:
                reference.append(theirs())
    reporter.finish(f"timing {name}")
    row["updates_per_second"] = settings.updates / statistics.median(mine)
    if reference:
        row["reference_updates_per_second"] = settings.updates / statistics.median(reference)
        ratios = [r / m for m, r in zip(mine, reference, strict=True)]
        row |= {"ratio": statistics.median(ratios), "ratios": ratios}
    return row


def _ours(name: str, settings: Settings, rows: OfflineRows) -> Timer:
    """Seconds of the updates of one compiled call."""
    sizes = ["--width", settings.width, "--depth", settings.depth, "--architecture.dim"]
    sizes += [settings.dim, "--batch-size", settings.batch_size, "--dataset", settings.dataset]
    flags = ["--objective", name, "--architecture", "mlp", *sizes]
    options = parse([str(flag) for flag in flags])
    size, actions = rows.steps.observation.shape[1], rows.steps.action.shape[1]
    learner = options.learner
    make = eqx.filter_jit(learner.init)
    progress = make(options.architecture, Spec(size, actions, size), key=jr.key(0))

    def fit(progress: Any, key: Any) -> Any:
        sizes = {"updates": settings.updates, "batch_size": settings.batch_size}
        return learner.fit(progress, rows, **sizes, key=key)

    compiled = eqx.filter_jit(fit)

    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(eqx.filter(compiled(progress, jr.key(1)), eqx.is_array))
        return time.perf_counter() - start

    once()
    return once


@contextlib.contextmanager
def _theirs(name: str, settings: Settings) -> Iterator[Timer | None]:
    """Seconds of OGBench's own updates, in a process of its own that waits between turns."""
    if settings.reference is None:
        yield None
        return
    file = settings.data_dir / "ogbench" / f"{settings.dataset}.npz"
    command = [settings.reference_python, _WORKER, "--impls", settings.reference]
    command += ["--agent", name, "--dataset", file, "--updates", settings.updates]
    for flag in ("depth", "width", "dim", "batch_size"):
        command += [f"--{flag.replace('_', '-')}", getattr(settings, flag)]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([str(part) for part in command], **pipe) as process:

        def once() -> float:
            return float(_ask(process, "\n"))

        _ask(process, "")  # Answered when all is compiled.
        try:
            yield once
        finally:
            process.kill()


def _ask(process: "subprocess.Popen[str]", question: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(question)
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if not answer:
        raise ValueError("OGBench's agent did not run; its own message is above.")
    return answer


def markdown(table: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table."""
    lines = ["| objective | updates/s | OGBench's own | ratio |", "|---|---|---|---|"]
    for row in table:
        theirs, ratio = row.get("reference_updates_per_second"), row.get("ratio")
        cells = "– | –" if ratio is None else f"{theirs:.1f} | {ratio:.2f}"
        lines.append(f"| {row['objective']} | {row['updates_per_second']:.1f} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
