import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ._inspection import GRADIENT, Inspection
from ._plots import save_figure

_PANELS = {
    "branch": "what a block adds: |F|",
    "stream": "the stream after it: |h + F|",
    "ratio": "in proportion: |F| / |h|",
    GRADIENT: "norm of its gradient",
}
# The colours of Okabe and Ito, which are told apart without seeing red or green. The dashes help.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "D"},
    {"color": "#E69F00", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": "#56B4E9", "linestyle": (0, (8, 2)), "marker": "P"},
)
_WIDE = 1.3  # The decades from which an axis is logarithmic.

Curves = Mapping[str, Mapping[str, np.ndarray]]


def plot_inspections(inspections: Mapping[str, Inspection], path: pathlib.Path) -> None:
    """Draws statistics of blocks against the index of the block.

    One subject has a row of panels with a line for each network; several have a row of panels for
    each network with a line for each subject.

    **Arguments:**

    - `inspections`: by the label of their subject.
    - `path`: the PNG file to write; it is replaced at once.
    """
    every: dict[str, Curves] = {
        label: {name: n.blocks for name, n in inspection.networks.items() if n.blocks}
        for label, inspection in inspections.items()
    }
    if len(every) == 1:
        rows = every
    else:
        names = dict.fromkeys(name for curves in every.values() for name in curves)
        rows = {n: {label: c[n] for label, c in every.items() if n in c} for n in names}
    drawn = list(dict.fromkeys(name for curves in rows.values() for name in curves))
    styles = {name: _STYLES[i % len(_STYLES)] for i, name in enumerate(drawn)}
    figure = Figure(figsize=(14, 0.7 + 3.0 * max(1, len(rows))), layout="constrained")
    for i, (title, curves) in enumerate(rows.items()):
        panels = [figure.add_subplot(len(rows), 4, 4 * i + j + 1) for j in range(4)]
        for axes, statistic in zip(panels, _PANELS, strict=True):
            _draw(axes, {n: c[statistic] for n, c in curves.items() if statistic in c}, styles)
            axes.set_title(_PANELS[statistic] if i == 0 else "")
            axes.set_xlabel("block" if i == len(rows) - 1 else "")
        panels[0].set_ylabel(title)
    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    save_figure(figure, path)


def _draw(axes: Axes, curves: Mapping[str, np.ndarray], styles: Mapping[str, Any]) -> None:
    for i, (name, values) in enumerate(curves.items()):
        every = max(1, len(values) // 6)
        # Lines that coincide are told apart by markers side by side.
        marks = (i * every // len(curves), every)
        style = {"markersize": 4, "markevery": marks, "linewidth": 1.6, **styles[name]}
        axes.plot(1 + np.arange(len(values)), values, **style)
    if not curves:
        axes.text(0.5, 0.5, "no blocks", ha="center", transform=axes.transAxes)
    decades = _decades([*curves.values()])
    if decades > _WIDE:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _decades(curves: Sequence[np.ndarray]) -> float:
    values = np.concatenate([np.ravel(curve) for curve in curves] or [np.ones(1)])
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.log10(values.max() / values.min())) if values.size else 0.0
