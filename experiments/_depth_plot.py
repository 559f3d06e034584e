import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ._plots import save_figure

_PANELS = (
    ("compile_seconds", "trace and compile (s)", 1.0),
    ("seconds_per_update", "one update (s)", 1.0),
    ("peak_bytes", "memory at most (GB)", 1e9),
)
# One scan over stacked layers, and the Python loop that it is compared with.
_STYLES: dict[str, dict[str, Any]] = {
    "scan": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "loop": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
}


def plot_depth(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Draws compilation, speed and memory against depth, both axes logarithmic."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    depths = sorted({row["depth"] for row in rows})
    for axes, (name, label, unit) in zip(figure.subplots(1, 3), _PANELS, strict=True):
        for twin, style in _STYLES.items():
            points = [(row["depth"], row[name] / unit) for row in rows if row["twin"] == twin]
            if points:
                axes.plot(*zip(*points, strict=True), label=twin, **style)
        axes.set(xscale="log", yscale="log", xlabel="depth", title=label)
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    save_figure(figure, path)
