import csv
import datetime
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crlx import JSON, encode, replacing

from . import _published as published
from ._comparison import Cell
from ._comparison_plot import plot_comparison
from ._comparison_rows import Row, summarise
from ._run_directory import write_json

_MISSING, _UNKNOWN = "…", "–"
_HEADER = ("dataset", "objective", "success (%)", "published (%)", "seeds", "updates/s")
_COLUMNS = (
    *("dataset", "objective", "mean", "std", "seeds_finished", "seeds_asked"),
    *("published_mean", "published_std", "updates_per_second"),
    *("steps", "batch_size", "architecture", "episodes", "scores"),
)


def write_report(cells: Sequence[Cell], out: pathlib.Path) -> str:
    """Writes `comparison.md`, `.csv`, `.json` and `.png`, each whole or not at all.

    **Returns:** the table, in Markdown.
    """
    rows = summarise(cells)
    protocol = _protocol(cells)
    table = _markdown(rows)
    with replacing(out / "comparison.md") as temporary:
        temporary.write_text("\n".join((table, "", *_notes(cells, rows, protocol))) + "\n")
    with replacing(out / "comparison.csv") as temporary:
        _write_csv(cells, rows, protocol, temporary)
    write_json(out / "comparison.json", _everything(cells, rows, protocol))
    plot_comparison(rows, protocol, out / "comparison.png")
    return table


def _protocol(cells: Sequence[Cell]) -> dict[str, Any]:
    """What all runs have in common, and the architectures and learning rates that they have."""
    config: Any = cells[0].config
    rates: Any = dict.fromkeys(cell.config["learning_rate"] for cell in cells)
    return {
        "steps": config["steps"],
        "batch_size": config["batch_size"],
        "learning_rate": " and ".join(f"{rate:g}" for rate in rates),
        "architecture": " and ".join(dict.fromkeys(_architecture(cell.config) for cell in cells)),
        "episodes": config["episodes"],
        "inputs": "scaled to order one" if config["normalize"] else "raw, as OGBench's",
        "seeds": list(dict.fromkeys(cell.seed for cell in cells)),
    }


def _architecture(config: Mapping[str, Any]) -> str:
    sizes = (f"{n} {config['architecture'][n]}" for n in ("depth", "width"))
    return f"{config['architecture_name']} ({', '.join(sizes)})"


def _markdown(rows: Sequence[Row]) -> str:
    """A table that is legible as it is, too."""
    lines = [_HEADER, *(_line(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [i > 1 for i in range(len(widths))]
    rule = [
        ("-" * (width - 1)) + (":" if r else "-") for width, r in zip(widths, right, strict=True)
    ]
    padded = [
        [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def _line(row: Row) -> tuple[str, ...]:
    reported = row.published
    return (
        row.dataset,
        row.objective,
        _MISSING if row.mean is None else _score(row.mean, row.std, digits=1),
        _UNKNOWN if reported is None else _score(*reported, digits=0),
        str(len(row.seeds)) if len(row.results) == len(row.seeds) else _partly(row),
        _MISSING if row.speed is None else f"{row.speed:,.1f}",
    )


def _score(mean: float, std: float | None, *, digits: int) -> str:
    return f"{mean:.{digits}f}" if std is None else f"{mean:.{digits}f} ± {std:.{digits}f}"


def _partly(row: Row) -> str:
    return f"{len(row.results)} of {len(row.seeds)}"


def _notes(
    cells: Sequence[Cell], rows: Sequence[Row], protocol: Mapping[str, Any]
) -> Iterable[str]:
    """The protocol, as a list in Markdown."""
    found = [result for row in rows for result in row.results.values()]
    left = len(cells) - len(found)
    rest = f", {left} are not finished and show as {_MISSING}" if left else ""
    date = datetime.date.today().isoformat()
    yield f"- {date}: {len(found)} of {len(cells)} runs are finished{rest}."
    seeds = protocol["seeds"]
    yield (
        f"- Here: {protocol['steps']:,} gradient steps, batches of {protocol['batch_size']:,}, "
        f"architecture {protocol['architecture']}, learning rate {protocol['learning_rate']}, "
        f"inputs {protocol['inputs']}, "
        f"{protocol['episodes']} episodes of each task, {len(seeds)} "
        f"{'seed' if len(seeds) == 1 else 'seeds'} ({', '.join(map(str, seeds))})."
    )
    for objective, own in {cell.objective: cell.own for cell in cells}.items():
        if own:
            yield f"- {objective} alone: `{' '.join(own)}`."
    yield (
        f"- Success: the mean over tasks and over the last three evaluations{_steps(found)}. "
        "Then the mean over seeds ± the standard deviation of the sample (n − 1)."
    )
    yield (
        f"- Published: {published.SOURCE}; {published.STEPS:,} gradient steps, batches of "
        f"{published.BATCH_SIZE}, {published.EPISODES} episodes of each task, mean ± standard "
        f"deviation over {published.SEEDS} seeds. {_UNKNOWN}: not in OGBench."
    )
    if any(row.dataset.endswith("-local") for row in rows):
        yield (
            "- Datasets that end in -local are collected here by the recipe of their official "
            "counterparts, to which the published scores belong."
        )
    versions = [f"{name} {text}" for name, text in _distinct(found, "versions").items()]
    if versions:
        commits = ", ".join(sorted({str(result["commit"]) for result in found}))
        devices = ", ".join(sorted({str(result["device"]["kind"]) for result in found}))
        yield f"- Versions: {', '.join(versions)}; commit {commits}; device {devices}."
    for name in _inconsistent(rows):
        yield f"- **Runs on {name} had different data:** collect it once, and run them again."


def _steps(results: Sequence[Mapping[str, Any]]) -> str:
    """Of the evaluations that count."""
    if not results:
        return ""
    *head, tail = (f"{e['step']:,}" for e in results[0]["evaluations"][-3:])
    return f" (after {', '.join(head)} and {tail} steps)" if head else f" (one, after {tail} steps)"


def _distinct(results: Sequence[Mapping[str, Any]], name: str) -> dict[str, str]:
    """Every value that a fact has in some run."""
    keys = dict.fromkeys(key for result in results for key in result[name])
    return {k: " and ".join(sorted({str(r[name].get(k)) for r in results})) for k in keys}


def _inconsistent(rows: Sequence[Row]) -> list[str]:
    """Datasets whose runs did not all read the same data."""
    digests: dict[str, set[str]] = {}
    for row in rows:
        read = {str(result["config"].get("dataset_digest")) for result in row.results.values()}
        digests.setdefault(row.dataset, set()).update(read)
    return [name for name, found in digests.items() if len(found) > 1]


def _write_csv(
    cells: Sequence[Cell], rows: Sequence[Row], protocol: Mapping[str, Any], path: pathlib.Path
) -> None:
    built = {cell.objective: _architecture(cell.config) for cell in cells}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            scores = " ".join(f"{seed}:{score:.6g}" for seed, score in row.scores.items())
            own = {"architecture": built[row.objective], "scores": scores}
            writer.writerow({**protocol, **_summary(row), **own})


def _summary(row: Row) -> dict[str, Any]:
    mean, std = (None, None) if row.published is None else row.published
    return {
        "dataset": row.dataset,
        "objective": row.objective,
        "mean": row.mean,
        "std": row.std,
        "seeds_finished": len(row.results),
        "seeds_asked": len(row.seeds),
        "published_mean": mean,
        "published_std": std,
        "updates_per_second": row.speed,
    }


def _everything(
    cells: Sequence[Cell], rows: Sequence[Row], protocol: Mapping[str, Any]
) -> dict[str, JSON]:
    reference = {
        "source": published.SOURCE,
        "steps": published.STEPS,
        "batch_size": published.BATCH_SIZE,
        "seeds": published.SEEDS,
        "episodes": published.EPISODES,
    }
    lines = [
        {
            **_summary(row),
            "scores": {str(seed): score for seed, score in row.scores.items()},
            "tasks": {str(seed): tasks for seed, tasks in row.tasks.items()},
        }
        for row in rows
    ]
    return {
        "protocol": encode(dict(protocol)),
        "published": encode(reference),
        "date": datetime.date.today().isoformat(),
        "rows": encode(lines),
        "runs": [_run(cell) for cell in cells],
    }


def _run(cell: Cell) -> dict[str, JSON]:
    results = cell.results()
    told = {"dataset": cell.dataset, "objective": cell.objective, "seed": cell.seed}
    return {**told, "finished": results is not None, "config": dict(cell.config), **(results or {})}
