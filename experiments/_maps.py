import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from crlx.envs.tasks import Layout
from experiments._plots import COLOURS, save_figure

_WALL, _START, _GOAL = "#8c8c8c", "#cfe3f2", "#fbe3bd"
_KINDS = {"R": ("start", _START), "G": ("goal", _GOAL), "B": ("ball", "#dcefdc")}


def plot_maze(
    maze: Layout,
    scale: float,
    paths: Sequence[np.ndarray] | Mapping[str, np.ndarray],
    file: pathlib.Path,
    *,
    title: str = "",
) -> None:
    """Draws a maze from above, with the ways that were taken in it.

    Rows go down the page, in the direction of +x, and columns to the right, in that of +y, as in
    the text of a maze.

    **Arguments:**

    - `maze`, `scale`: what it is, and the side of its cells in metres.
    - `paths`: `[steps, 2]`, x and y in metres, by name if there is to be a legend; none will do.
    - `file`: the PNG file to write; it is replaced at once.
    - `title`: what to write above it.
    """
    named = paths if isinstance(paths, Mapping) else dict(enumerate(paths))
    rows, columns = maze.walls.shape
    side = 4.5 / max(rows, columns)
    # Room for axes beside the maze, and for the legend.
    figure = Figure((side * columns + 2.3, side * rows + 0.8), layout="constrained")
    axes = figure.subplots()
    _draw_cells(axes, maze, scale)
    for i, path in enumerate(named.values()):
        _draw_path(axes, np.asarray(path), COLOURS[i % len(COLOURS)])
    axes.set(
        aspect="equal",
        title=title,
        xlabel="y (m)",
        ylabel="x (m)",
        xlim=(-0.5 * scale, (columns - 0.5) * scale),
        ylim=((rows - 0.5) * scale, -0.5 * scale),
        xticks=scale * np.arange(0, columns, 1 + columns // 9),
        yticks=scale * np.arange(0, rows, 1 + rows // 9),
    )
    axes.spines[:].set_visible(False)
    handles = [
        Rectangle((0, 0), 1, 1, facecolor=colour, label=f"{name} cell")
        for letter, (name, colour) in _KINDS.items()
        if maze.cells(letter)
    ]
    handles += [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], label=name)
        for i, name in enumerate(named)
        if isinstance(name, str)
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    save_figure(figure, file)


def _draw_cells(axes: Axes, maze: Layout, scale: float) -> None:
    walls = maze.walls
    for i, j in np.ndindex(*walls.shape):
        letter = maze.rows[i][j]
        colour = _WALL if walls[i, j] else _KINDS.get(letter, ("", "white"))[1]
        corner = (j - 0.5) * scale, (i - 0.5) * scale
        # Lines between free cells only: walls are one piece.
        edge = _WALL if walls[i, j] else "#e0e0e0"
        style = {"facecolor": colour, "edgecolor": edge, "linewidth": 0.7}
        axes.add_patch(Rectangle(corner, scale, scale, **style, zorder=2 if walls[i, j] else 1))


def _draw_path(axes: Axes, path: np.ndarray, colour: str) -> None:
    if path.ndim != 2 or path.shape[1] != 2:
        raise ValueError(f"A path is [steps, 2], x and y; got the shape {path.shape}.")
    axes.plot(path[:, 1], path[:, 0], color=colour, linewidth=1.4, zorder=3)
    start = {"marker": "o", "markerfacecolor": "white", "markersize": 6}
    axes.plot(path[0, 1], path[0, 0], color=colour, **start, zorder=4)
    axes.plot(path[-1, 1], path[-1, 0], color=colour, marker="o", markersize=5, zorder=4)
