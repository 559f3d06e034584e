from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crlx.envs.rendering import posed, render
from crlx.envs.tasks import GoalEnv, Locomotion
from crlx.envs.wrappers import TaskEvaluation, Trace

from ._maps import plot_maze
from ._plots import COLOURS, draw_loss, finish_axes, save_figure, series
from ._run_directory import RunDirectory

_MEASURES = {
    "episode_success_any": "episodes that reach the goal (%)",
    "episode_success": "steps at the goal in an episode",
    "final_dist": "distance to the goal at the end",
}


class Pictures:
    """Draws a run: `curve.png`, and of its newest policy `paths.png` from above, where the task is
    to go somewhere, and `replay.html` to play.

    **Arguments:**

    - `env`: the task.
    """

    def __init__(self, env: GoalEnv):
        self._env = env

    def draw(
        self,
        found: TaskEvaluation,
        step: int,
        evaluations: Sequence[Mapping[str, Any]],
        directory: RunDirectory,
    ) -> None:
        """After an evaluation, of which `evaluations` has all lines until now."""
        path = directory.path
        plot_online_curve(directory.lines(), evaluations, path / "curve.png")
        name = self._env.spec.name
        title = f"{name} after {step:,} environment steps"
        task = self._env.task
        maze = task.arena.maze() if isinstance(task, Locomotion) else None
        if isinstance(task, Locomotion) and maze is not None:
            paths = [
                path[: length + 1]
                for trace in found.traces.values()
                for path, length in zip(
                    np.asarray(trace.achieved)[..., :2], np.asarray(trace.length), strict=True
                )
            ]
            plot_maze(maze, task.body.scale, paths, path / "paths.png", title=title)
        q = _best(found.traces[name])
        render(self._env, posed(self._env, jnp.asarray(q)), path / "replay.html", title=title)


def _best(trace: Trace) -> np.ndarray:
    """The positions of an episode that reached its goal, or of the first if none did."""
    episode = int(np.argmax(np.asarray(trace.reached)))
    return np.asarray(trace.q[episode, : int(trace.length[episode]) + 1])


def plot_online_curve(
    metrics: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], path: Any
) -> None:
    """Draws what evaluations measured with each set of goals, and losses, against steps of the
    environments.

    **Arguments:**

    - `metrics`: rows with a `step` and numbers by name; names that end in `/loss` are drawn.
    - `evaluations`: rows with a `step`, the sets of goals as the names in `tasks`, and
      `set/measure` for each of them.
    - `path`: the PNG file to write; it is replaced at once.
    """
    losses = sorted({name for row in metrics for name in row if name.endswith("/loss")})
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    count = len(_MEASURES) * max(len(losses), 1)  # Columns of a grid that both lines fit.
    grid = figure.add_gridspec(2, count, height_ratios=[4.5, 3])
    for i, (measure, label) in enumerate(_MEASURES.items()):
        wide = count // len(_MEASURES)
        axes = figure.add_subplot(grid[0, i * wide : (i + 1) * wide])
        _draw_measure(axes, evaluations, measure)
        axes.set_title(label, fontsize=10)
    figure.axes[0].legend(frameon=False, fontsize=8)
    for i, name in enumerate(losses):
        wide = count // len(losses)
        draw_loss(figure.add_subplot(grid[1, i * wide : (i + 1) * wide]), metrics, name)
    end = max([1, *(row["step"] for row in [*metrics, *evaluations] if "step" in row)])
    for axes in figure.axes:
        finish_axes(axes, end)
        axes.set_xlabel("environment steps")
    save_figure(figure, path)


def _draw_measure(axes: Axes, evaluations: Sequence[Mapping[str, Any]], measure: str) -> None:
    factor = 100 if measure == "episode_success_any" else 1
    for i, name in enumerate(evaluations[-1]["tasks"] if evaluations else ()):
        steps, values = series(evaluations, lambda row, name=name: row.get(f"{name}/{measure}"))
        style = {"color": COLOURS[i % len(COLOURS)], "marker": "o", "markersize": 3}
        axes.plot(steps, factor * values, label=name, **style)
    if factor == 100:
        axes.set_ylim(-3, 103)
    else:
        axes.set_ylim(bottom=0)
