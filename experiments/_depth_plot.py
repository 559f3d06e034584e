import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ._plots import COLOURS, save_figure

_PANELS = (
    ("compile_seconds", "trace and compile (s)", 1.0),
    ("seconds_per_update", "one update (s)", 1.0),
    ("peak_bytes", "memory at most (GB)", 1e9),
)
_MARKERS = "osD^vPX*"
# What `benchmark_depth.py` calls the forms of one update; on a mesh its axes follow.
_LINES = {"fused": "-", "scan": "-.", "block": ":", "loop": "--"}


def plot_depth(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Draws compilation, speed and memory against depth, on logarithmic axes; what changes little
    is drawn from zero."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    depths = sorted({row["depth"] for row in rows})
    lines = list(dict.fromkeys((row["architecture"], row["twin"]) for row in rows))
    several = len({row["twin"] for row in rows}) > 1
    for axes, (name, label, unit) in zip(figure.subplots(1, 3), _PANELS, strict=True):
        for i, (architecture, twin) in enumerate(lines):
            mine = [r for r in rows if (r["architecture"], r["twin"]) == (architecture, twin)]
            axes.plot(
                [row["depth"] for row in mine],
                [row[name] / unit for row in mine],
                label=f"{architecture}, {twin}" if several else architecture,
                color=COLOURS[i % len(COLOURS)],
                marker=_MARKERS[i % len(_MARKERS)],
                linestyle=_LINES[twin.split()[0]],
            )
        axes.set(xscale="log", xlabel="depth", title=label)
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.xaxis.set_minor_locator(NullLocator())
        if max(row[name] for row in rows) < 3 * min(row[name] for row in rows):
            axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        else:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(lines)), frameon=False
    )
    save_figure(figure, path)
