import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import _published as published
from ._comparison_rows import Row
from ._plots import COLOURS, save_figure

_OURS: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "markersize": 6.5}
_SEED: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "markersize": 3.5, "alpha": 0.55}
_THEIRS: dict[str, Any] = {"color": COLOURS[1], "marker": "D", "markersize": 5.5}
_BARS: dict[str, Any] = {"linestyle": "none", "capsize": 3, "linewidth": 1.5}
_BESIDE, _SEEDS_BESIDE = 0.17, 0.34  # Of the distance between two objectives.


def plot_comparison(rows: Sequence[Row], protocol: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draws success here beside what OGBench reports, a panel for each dataset.

    **Arguments:**

    - `protocol`: `steps`, `batch_size`, `architecture` and `seeds`, for the legend.
    - `path`: the PNG file to write; it is replaced at once.
    """
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    objectives = list(dict.fromkeys(row.objective for row in rows))
    columns = min(len(datasets), 3 if len(objectives) <= 8 else 2)
    lines = math.ceil(len(datasets) / columns)
    wide = max(3.2, 0.62 * len(objectives) + 0.6)
    size = max(7.2, wide * columns), 2.9 * lines + 0.9
    figure = Figure(figsize=size)
    figure.set_layout_engine("constrained", h_pad=0.1, w_pad=0.08)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, dataset in zip(panels, datasets, strict=False):
        _draw(axes, [row for row in rows if row.dataset == dataset])
        axes.set_title(dataset, fontsize=10)
        axes.set_xticks(range(len(objectives)), objectives)
        axes.set_xlim(-0.6, len(objectives) - 0.4)
    for axes in panels[::columns]:
        axes.set_ylabel("success (%)")
    for axes in panels[len(datasets) :]:
        axes.set_visible(False)
    _legend(figure, protocol)
    save_figure(figure, path)


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    for i, row in enumerate(rows):
        left, right = i - _BESIDE, i + _BESIDE
        scores = list(row.scores.values())
        if row.mean is None:
            axes.text(left, 0, "…", color=COLOURS[0], ha="center", fontsize=14)
        else:
            axes.errorbar(
                [left], [row.mean], None if row.std is None else [row.std], **_BARS, **_OURS
            )
        if len(scores) > 1:
            axes.plot([i - _SEEDS_BESIDE] * len(scores), scores, linestyle="none", **_SEED)
        if row.published is not None:
            axes.errorbar([right], [row.published.mean], [row.published.std], **_BARS, **_THEIRS)
    axes.set_ylim(-4, 104)  # Markers at the bounds would be cut in half.
    axes.set_yticks(range(0, 101, 20))
    axes.grid(color="0.9", axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(labelleft=True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, protocol: Mapping[str, Any]) -> None:
    count = len(protocol["seeds"])
    here = f"{protocol['steps']:,} steps, batch {protocol['batch_size']:,}"
    seeds = "one seed" if count == 1 else f"mean ± std of {count} seeds"
    theirs = f"{published.STEPS // 10**6}M steps, batch {published.BATCH_SIZE:,}"
    handles = [
        Line2D([], [], linestyle="none", label=f"here: {seeds}, {here}", **_OURS),
        Line2D(
            [],
            [],
            linestyle="none",
            label=f"published: mean ± std of {published.SEEDS} seeds, {theirs}",
            **_THEIRS,
        ),
    ]
    if count > 1:
        handles.insert(1, Line2D([], [], linestyle="none", label="each seed", **_SEED))
    columns = len(handles) if figure.get_figwidth() > 9.5 else 1
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
