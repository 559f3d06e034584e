import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from crlx import replacing
from crlx.envs.ogbench import Episode, Evaluation, Maze

Row = Mapping[str, Any]

# The colours of Okabe and Ito, which are told apart without seeing red or green.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_REACHED: dict[str, Any] = {"color": COLOURS[0], "linestyle": "-", "linewidth": 1.3}
_MISSED: dict[str, Any] = {"color": COLOURS[1], "linestyle": (0, (3, 1.5)), "linewidth": 1.3}
_MISSED_END: dict[str, Any] = {"marker": "X", "markeredgecolor": "white", "markeredgewidth": 0.5}
_START: dict[str, Any] = {
    "marker": "o",
    "color": "white",
    "markeredgecolor": "black",
    "linestyle": "none",
}
_GOAL: dict[str, Any] = {
    "marker": "*",
    "color": COLOURS[4],
    "markeredgecolor": "black",
    "linestyle": "none",
}
_FLOOR, _WALL = "white", "#bdbdbd"
_VALIDATION = "validation/"  # Prefix of what was measured on held-out data.
_PATHS = 10  # Paths per task: more of them hide one another.


def plot_curve(metrics: Sequence[Row], evaluations: Sequence[Row], path: pathlib.Path) -> None:
    """Draws success and losses against gradient steps.

    Where several rows have the same step, as after a resumed run, the last one counts.

    **Arguments:**

    - `metrics`: rows with a `step` and numbers by name; names that end in `/loss` are drawn, and
      those that begin with `validation/` beside their counterparts.
    - `evaluations`: rows with a `step`, an `overall_success` and the success of each of `tasks`,
      all between 0 and 1.
    - `path`: the PNG file to write; it is replaced at once.
    """
    names = {name for row in metrics for name in row if name.endswith("/loss")}
    losses = sorted({name.removeprefix(_VALIDATION) for name in names})
    lines = math.ceil(len(losses) / 2)
    figure = Figure(figsize=(12, 4.5 + 2.5 * lines), layout="constrained")
    grid = figure.add_gridspec(1 + lines, 2, height_ratios=[4.5] + [2.5] * lines)
    success = figure.add_subplot(grid[0, :])
    _draw_success(success, evaluations)
    end = max([1, *(row["step"] for row in [*metrics, *evaluations] if "step" in row)])
    for i, name in enumerate(losses):
        # A last one that is alone takes the whole line.
        alone = i == len(losses) - 1 and i % 2 == 0
        axes = figure.add_subplot(grid[1 + i // 2, :] if alone else grid[1 + i // 2, i % 2])
        draw_loss(axes, metrics, name)
    for axes in figure.axes:
        finish_axes(axes, end)
        place = axes.get_subplotspec()
        if place is not None and place.is_last_row():
            axes.set_xlabel("gradient steps")
    save_figure(figure, path)


def finish_axes(axes: Axes, end: float) -> None:
    """The same horizontal axis, up to `end`, for all parts of a figure."""
    axes.set_xlim(-0.01 * end, 1.01 * end)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#e0e0e0", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_success(axes: Axes, evaluations: Sequence[Row]) -> None:
    for i, task in enumerate(dict.fromkeys(task for row in evaluations for task in row["tasks"])):
        steps, values = series(evaluations, lambda row, task=task: row["tasks"].get(task))
        style: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": "o",
            "markersize": 3,
        }
        axes.plot(steps, 100 * values, linewidth=1, alpha=0.8, label=task, **style)
    steps, values = series(evaluations, lambda row: row["overall_success"])
    axes.plot(steps, 100 * values, "k-o", linewidth=3, markersize=5, label="all tasks")
    # Lines at the bounds would be cut in half.
    axes.set_ylim(-3, 103)
    axes.set_title("success")
    axes.set_ylabel("episodes that reach the goal (%)")
    if evaluations:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    else:
        axes.text(0.5, 0.5, "not evaluated yet", ha="center", transform=axes.transAxes)


def draw_loss(axes: Axes, metrics: Sequence[Row], name: str) -> None:
    """One loss in training, and beside it on held-out data where that was measured."""
    steps, values = series(metrics, lambda row: row.get(name))
    # A line through one point is invisible.
    alone = "o" if len(steps) == 1 else None
    axes.plot(steps, values, color="black", linewidth=1, marker=alone, label="training")
    steps, values = series(metrics, lambda row: row.get(_VALIDATION + name))
    if len(steps):
        style = {"color": COLOURS[1], "linestyle": "--", "marker": "o", "markersize": 3}
        axes.plot(steps, values, label="validation", **style)
        axes.legend(frameon=False)
    axes.set_title(name)


def series(rows: Sequence[Row], value: Callable[[Row], Any]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that have both, in order, without repeated steps."""
    points = {row["step"]: value(row) for row in rows if "step" in row and value(row) is not None}
    steps = sorted(points)
    return np.asarray(steps, float), np.asarray([points[step] for step in steps], float)


def plot_trajectories(maze: Maze, evaluation: Evaluation, path: pathlib.Path) -> None:
    """Draws the first paths of every task into the maze, one panel per task.

    **Arguments:**

    - `maze`: the maze of the evaluation's environment.
    - `evaluation`: an evaluation in that maze.
    - `path`: the PNG file to write; it is replaced at once.
    """
    columns = min(3, len(evaluation.tasks))
    lines = math.ceil(len(evaluation.tasks) / columns)
    height, width = maze.walls.shape
    panel = 12 / columns
    size = 0.22 * 72 * panel / width  # Of the markers: a fifth of a cell, in points.
    figure = Figure((12, lines * (panel * height / width + 0.3) + 0.8), layout="constrained")
    for i, (task, success) in enumerate(evaluation.tasks.items()):
        axes = figure.add_subplot(lines, columns, i + 1)
        _draw_maze(axes, maze)
        episodes = [episode for episode in evaluation.episodes if episode.task == task][:_PATHS]
        # Failures wander, so successes go on top of them.
        for episode in sorted(episodes, key=lambda episode: episode.success):
            _draw_episode(axes, episode, maze, size)
        axes.set_title(f"{task}: {100 * success:.0f} %")
    figure.suptitle(
        f"success {100 * evaluation.overall_success:.1f} % after {evaluation.step:,} gradient "
        f"steps (at most {_PATHS} episodes of each task are drawn)"
    )
    handles = [
        Line2D([], [], label="goal reached", **_REACHED),
        Line2D([], [], label="goal missed", markersize=8, **_MISSED, **_MISSED_END),
        Line2D([], [], label="start", markersize=7, **_START),
        Line2D([], [], label="goal, with the distance that counts", markersize=11, **_GOAL),
        Patch(color=_WALL, label="wall"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    save_figure(figure, path)


def _draw_maze(axes: Axes, maze: Maze) -> None:
    height, width = maze.walls.shape
    left, bottom = (x - maze.cell / 2 for x in maze.offset)
    extent = (left, left + maze.cell * width, bottom, bottom + maze.cell * height)
    colours = ListedColormap([_FLOOR, _WALL])
    axes.imshow(maze.walls, colours, origin="lower", extent=extent, vmin=0, vmax=1)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _draw_episode(axes: Axes, episode: Episode, maze: Maze, size: float) -> None:
    if episode.path is not None:
        x, y = _broken_at_jumps(episode.path, maze.cell / 2).T
        axes.plot(x, y, alpha=0.8, **(_REACHED if episode.success else _MISSED))
        if not episode.success:
            axes.plot(x[-1], y[-1], markersize=size, zorder=6, **_MISSED, **_MISSED_END)
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": "black", "linewidth": 0.6}
    axes.add_patch(Circle(tuple(episode.goal[:2]), maze.tolerance, alpha=0.5, zorder=3, **style))
    axes.plot(*episode.start[:2], markersize=0.7 * size, zorder=4, **_START)
    axes.plot(*episode.goal[:2], markersize=size, zorder=5, **_GOAL)


def _broken_at_jumps(path: np.ndarray, length: float) -> np.ndarray:
    """The path with a gap wherever one step is longer than `length`: a teleport, not a line."""
    far = np.linalg.norm(np.diff(path, axis=0), axis=1) > length
    return np.insert(path, 1 + np.flatnonzero(far), np.nan, axis=0)


def save_figure(figure: Figure, path: pathlib.Path) -> None:
    """Writes a PNG file whole or not at all, at 150 dots per inch."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
