from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from crlx import JSON

from ._run_directory import RunDirectory, write_json
from ._snapshot import Record

_LAST = 3  # Evaluations that scores are the means of.


def results(
    config: Mapping[str, JSON], facts: Mapping[str, JSON], record: Record
) -> dict[str, JSON]:
    """What `results.json` holds. `overall_success` is the mean of the last three evaluations, as
    OGBench reports it."""
    last = [e["overall_success"] for e in record.evaluations[-_LAST:]]
    return {
        "config": dict(config),
        **facts,
        "compile_seconds": record.compile_seconds,
        "updates_per_second": record.updates / record.seconds,
        "evaluations": list(record.evaluations),
        "overall_success": sum(last) / len(last),
    }


def conclude(found: Mapping[str, Any], directory: RunDirectory) -> None:
    """Writes `results.json` and prints the scores."""
    write_json(directory.path / "results.json", dict(found))
    config, evaluations = found["config"], found["evaluations"]
    console = Console()
    console.print(_table(evaluations, f"Success on {config['dataset']}"))
    console.print(
        f"Overall success {found['overall_success']:.1%}: the mean of the last "
        f"{len(evaluations[-_LAST:])} evaluations, each the "
        f"mean of {len(evaluations[-1]['tasks'])} tasks with {config['episodes']} episodes.\n"
        f"Everything is in {directory.path}",
        soft_wrap=True,
        highlight=False,
    )


def _table(evaluations: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title)
    for column in ("step", *evaluations[-1]["tasks"], "overall"):
        table.add_column(column, justify="right")
    for line in evaluations:
        scores = (*line["tasks"].values(), line["overall_success"])
        table.add_row(f"{line['step']:,}", *(f"{score:.0%}" for score in scores))
    return table
