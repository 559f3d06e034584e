import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ._comparison import Cell
from ._published import Score, published

_LAST = 3  # Evaluations that a score is the mean of, as in `results.json`.


@dataclasses.dataclass(frozen=True)
class Row:
    """One objective on one dataset.

    **Arguments:**

    - `seeds`: those that were asked for.
    - `results`: what the finished runs wrote, by seed.
    """

    dataset: str
    objective: str
    seeds: tuple[int, ...]
    results: Mapping[int, Mapping[str, Any]]

    @property
    def scores(self) -> dict[int, float]:
        """Success in percent, by seed."""
        return {seed: 100 * found["overall_success"] for seed, found in self.results.items()}

    @property
    def mean(self) -> float | None:
        """Over the finished seeds; None if there are none."""
        return average(list(self.scores.values()))

    @property
    def std(self) -> float | None:
        """Of a sample (n - 1); None for fewer than two seeds."""
        scores, mean = list(self.scores.values()), self.mean
        if mean is None or len(scores) < 2:
            return None
        return math.sqrt(sum((score - mean) ** 2 for score in scores) / (len(scores) - 1))

    @property
    def tasks(self) -> dict[int, dict[str, float]]:
        """Success in percent of each task, by seed."""
        return {seed: _tasks(found["evaluations"]) for seed, found in self.results.items()}

    @property
    def speed(self) -> float | None:
        """Updates per second."""
        return average([found["updates_per_second"] for found in self.results.values()])

    @property
    def published(self) -> Score | None:
        """What OGBench reports."""
        return published(self.dataset, self.objective)


def _tasks(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    last = evaluations[-_LAST:]
    return {
        task: 100 * sum(evaluation["tasks"][task] for evaluation in last) / len(last)
        for task in last[-1]["tasks"]
    }


def average(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def summarise(cells: Sequence[Cell]) -> list[Row]:
    """A row for every objective and dataset, in the order in which they were asked for: datasets
    first."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.dataset, cell.objective), []).append(cell)
    rows = []
    for (dataset, objective), group in groups.items():
        found = {cell.seed: cell.results() for cell in group}
        results = {seed: result for seed, result in found.items() if result is not None}
        rows.append(Row(dataset, objective, tuple(found), results))
    return rows
