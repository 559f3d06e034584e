"""How runs that were trained together are written down."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from crlx import JSON, Checkpoints, take_run

from ._job import AbstractJob
from ._run_directory import RunDirectory, write_json
from ._seeds_job import means, own_evaluations
from ._snapshot import Record

Results = Callable[[Mapping[str, JSON], Record], dict[str, JSON]]


def conclude_all(
    record: Record,
    carry: Any,
    config: Mapping[str, JSON],
    job: AbstractJob,
    results: Results,
    directory: RunDirectory,
) -> None:
    """Makes a run of its own of each part, with its results and its networks, and writes mean and
    standard deviation of all.

    **Arguments:**

    - `record`, `carry`: of all runs together, that they ended with.
    - `config`: of all runs together.
    - `job`: of one of them.
    - `results`: what `results.json` holds, from a configuration and a record.
    - `directory`: of all.
    """
    each = {}
    for index, (name, part) in enumerate(directory.parts.items()):
        own = own_evaluations(record.evaluations, name)
        own_record = dataclasses.replace(record, evaluations=own)
        each[name] = results(directory.own_config(config, name), own_record)
        write_json(part.path / "results.json", each[name])
        _save(job, take_run(carry, index), own_record, part)
    scores = {name: _scores(found) for name, found in each.items()}
    spread = {name: float(value) for name, value in means(list(scores.values())).items()}
    found = {**results(config, record), "seeds": scores, "means": spread}
    write_json(directory.path / "results.json", found)
    console = Console()
    console.print(_table(scores, spread))
    console.print(f"Everything is in {directory.path}", soft_wrap=True, highlight=False)


def _scores(found: Mapping[str, Any]) -> dict[str, float]:
    return {"overall_success": found["overall_success"], **found.get("scores", {})}


def _save(job: AbstractJob, carry: Any, record: Record, part: RunDirectory) -> None:
    checkpoints = Checkpoints(part.checkpoints)
    try:
        step = job.step(job.rounds_done(carry))
        checkpoints.save(step, job.packed(carry), dataclasses.asdict(record))
    finally:
        checkpoints.close()


def _table(scores: Mapping[str, Mapping[str, float]], spread: Mapping[str, float]) -> Table:
    table = Table(title="Scores of all seeds")
    table.add_column("score")
    for name in (*scores, "mean ± std"):
        table.add_column(name, justify="right")
    for score in next(iter(scores.values())):
        values = (f"{one[score]:.3f}" for one in scores.values())
        table.add_row(score, *values, f"{spread[score]:.3f} ± {spread[f'{score}_std']:.3f}")
    return table
