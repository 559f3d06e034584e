"""Draw metrics of several runs in one figure: `python experiments/plot_metrics.py --help`."""

import dataclasses
import math
import pathlib
import sys
from typing import Annotated, Any

import tyro
from matplotlib.figure import Figure

from experiments._plots import COLOURS, finish_axes, save_figure
from experiments._run_directory import read_lines


@dataclasses.dataclass(frozen=True)
class Options:
    """Overlays metrics of several runs, a panel each."""

    runs: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional]
    """Folders of runs."""
    metrics: tuple[str, ...] = ("critic/contrast", "critic/penalty", "actor/loss")
    """Names as in metrics.jsonl, of training or of evaluations."""
    labels: tuple[str, ...] = ()
    """What to call the runs; by default the names of their folders."""
    log: tuple[str, ...] = ()
    """Those metrics whose axis is logarithmic."""
    out: pathlib.Path = pathlib.Path("metrics.png")
    """The picture to write."""

    def __post_init__(self):
        if not self.runs:
            raise ValueError("Name at least one folder of a run.")
        if self.labels and len(self.labels) != len(self.runs):
            raise ValueError(f"{len(self.runs)} runs need as many labels; got {len(self.labels)}.")
        unknown = set(self.log) - set(self.metrics)
        if unknown:
            raise ValueError(f"--log names {sorted(unknown)}, which --metrics does not.")


def main(options: Options) -> None:
    labels = options.labels or tuple(run.name for run in options.runs)
    lines = {label: read(run) for label, run in zip(labels, options.runs, strict=True)}
    columns = min(4, len(options.metrics))
    rows = math.ceil(len(options.metrics) / columns)
    figure = Figure(figsize=(3.6 * columns, 3.1 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(panels, options.metrics, strict=False):
        for colour, (label, found) in zip(COLOURS * len(lines), lines.items(), strict=False):
            points = [(line["step"], line[name]) for line in found if name in line]
            if not points:
                raise ValueError(f"The run {label} logged no {name}.")
            style = {"color": colour, "marker": "o" if len(points) < 30 else None, "markersize": 3}
            axes.plot(*zip(*points, strict=True), label=label, **style)
        scale = "log" if name in options.log else "linear"
        axes.set(xlabel="step", yscale=scale)
        axes.set_title(name, fontsize=9)
        finish_axes(axes, max(found[-1]["step"] for found in lines.values() if found))
    for axes in panels[len(options.metrics) :]:
        axes.set_visible(False)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    save_figure(figure, options.out)
    print(f"Wrote {options.out}")


def read(run: pathlib.Path) -> list[dict[str, Any]]:
    """What a run logged of each step, in training and in evaluations, in the order of the steps."""
    lines: list[dict[str, Any]] = read_lines(run)
    steps: dict[int, dict[str, Any]] = {}
    for line in lines:
        if "step" in line:
            # A run that was resumed may have logged a step twice: the later counts.
            steps.setdefault(line["step"], {}).update(line)
    return [steps[step] for step in sorted(steps)]


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
