from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from crlx import JSON

from ._run_directory import RunDirectory, write_json
from ._snapshot import Record

_LAST = 5  # Evaluations that the paper's scores are the means of.


def results(
    config: Mapping[str, JSON], facts: Mapping[str, JSON], record: Record, steps: int
) -> dict[str, JSON]:
    """What `results.json` holds. Scores are means of the last five evaluations, as in the paper,
    for each set of goals."""
    last = record.evaluations[-_LAST:]
    measures = {name for name in last[-1] if "/" in name}
    return {
        "config": dict(config),
        **facts,
        "compile_seconds": record.compile_seconds,
        "updates_per_second": record.updates / record.seconds,
        "env_steps_per_second": steps / record.seconds,
        "evaluations": list(record.evaluations),
        "scores": {name: sum(e[name] for e in last) / len(last) for name in sorted(measures)},
        "overall_success": sum(e["overall_success"] for e in last) / len(last),
    }


def conclude(found: Mapping[str, Any], directory: RunDirectory) -> None:
    """Writes `results.json` and prints the scores."""
    write_json(directory.path / "results.json", dict(found))
    last = found["evaluations"][-_LAST:]
    console = Console()
    console.print(_table(found["scores"], list(last[-1]["tasks"])))
    episodes = found["config"]["eval_episodes"]
    console.print(
        f"Means of the last {len(last)} evaluations, each of {episodes} episodes "
        f"with each set of goals.\nEverything is in {directory.path}",
        soft_wrap=True,
        highlight=False,
    )


def _table(scores: Any, tasks: list[str]) -> Table:
    table = Table(title="Scores")
    for column in ("goals of", "reach the goal", "steps at the goal", "final distance"):
        table.add_column(column, justify="left" if column == "goals of" else "right")
    for task in tasks:
        reached, time, distance = (
            scores[f"{task}/{measure}"]
            for measure in ("episode_success_any", "episode_success", "final_dist")
        )
        table.add_row(task, f"{reached:.1%}", f"{time:.0f}", f"{distance:.2f}")
    return table
