from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from crlx import JSON

from ._run_directory import RunDirectory, write_json
from ._snapshot import Record


def conclude(
    config: Mapping[str, JSON], facts: Mapping[str, JSON], record: Record, directory: RunDirectory
) -> None:
    """Writes `results.json` and prints the scores.

    `overall_success` is the mean of the last three evaluations, as OGBench reports it.
    """
    evaluations = record.evaluations
    last = [e["overall_success"] for e in evaluations[-3:]]
    overall = sum(last) / len(last)
    results: dict[str, JSON] = {
        "config": dict(config),
        **facts,
        "compile_seconds": record.compile_seconds,
        "updates_per_second": record.updates / record.seconds,
        "evaluations": list(evaluations),
        "overall_success": overall,
    }
    write_json(directory.path / "results.json", results)
    console = Console()
    console.print(_table(evaluations, f"Success on {config['dataset']}"))
    console.print(
        f"Overall success {overall:.1%}: the mean of the last {len(last)} evaluations, each the "
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
