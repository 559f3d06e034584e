import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Circle

from crlx.envs.ogbench._evaluator import Episode, Evaluation
from crlx.envs.ogbench._maze import Maze
from experiments import _plots
from experiments._plots import plot_curve, plot_trajectories

TASKS = [f"task{i}" for i in range(1, 6)]


@pytest.fixture
def figures(monkeypatch):
    """The figures that were to be saved."""
    saved: list[Figure] = []
    monkeypatch.setattr(_plots, "save_figure", lambda figure, path: saved.append(figure))
    return saved


@pytest.fixture
def maze():
    walls = np.ones((5, 7), bool)
    walls[1:4, 1:6] = False
    walls[2, 2:5] = True
    return Maze(walls, cell=4.0, offset=(-4.0, -4.0), tolerance=0.5)


def metric(step, **losses):
    row = {f"{name}/loss": value for name, value in losses.items()}
    return {"step": step, "updates_per_second": 80.0, **row}


def evaluation_row(step, *successes):
    tasks = dict(zip(TASKS, successes, strict=False))
    overall = sum(successes) / len(successes)
    return {"step": step, "event": "evaluation", "overall_success": overall, "tasks": tasks}


def make_evaluation(maze, *, episodes=3, tasks=TASKS):
    """Paths along the lower corridor; every other episode stops in the middle of it."""
    made = []
    for task, i in itertools.product(tasks, range(episodes)):
        success = float(i % 2 == 0)
        x = np.linspace(0, 16 if success else 8, 50)
        path = np.stack([x, np.full(50, 0.1 * i)], axis=1).astype(np.float32)
        goal = np.array([16.0, 0.1 * i], np.float32)
        made.append(Episode(task, success, path, path[0], goal))
    means = {
        task: float(np.mean([episode.success for episode in made if episode.task == task]))
        for task in tasks
    }
    return Evaluation(step=12_000, tasks=means, episodes=made)


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def texts(figure):
    """The boxes of titles, axis labels and legends, with what they say."""
    figure.draw_without_rendering()
    shown = [figure._suptitle] if figure._suptitle else []
    for axes in figure.axes:
        shown += [axes.title, axes.xaxis.label, axes.yaxis.label, axes.get_legend()]
    shown += figure.legends
    return [
        (str(artist), artist.get_window_extent())
        for artist in shown
        if artist is not None and artist.get_window_extent().width > 0
    ]


def assert_readable(figure):
    width, height = figure.get_size_inches() * figure.dpi
    for name, box in texts(figure):
        assert -1 <= box.x0 < box.x1 <= width + 1, name
        assert -1 <= box.y0 < box.y1 <= height + 1, name
    for (one, a), (other, b) in itertools.combinations(texts(figure), 2):
        assert not a.overlaps(b), f"{one} overlaps {other}"


def test_curve_shows_success_in_percent_and_every_loss(figures, tmp_path):
    metrics = [metric(step, critic=7.0 / step, actor=-step) for step in (10, 20, 30)]
    evaluations = [evaluation_row(1, 0.0, 0.5), evaluation_row(30, 0.2, 1.0)]
    plot_curve(metrics, evaluations, tmp_path / "curve.png")
    shown = panels(figures[0])
    assert set(shown) == {"success", "actor/loss", "critic/loss"}
    success = lines(shown["success"])
    np.testing.assert_array_equal(success["all tasks"].get_xdata(), [1, 30])
    np.testing.assert_allclose(success["all tasks"].get_ydata(), [25, 60])
    np.testing.assert_allclose(success["task1"].get_ydata(), [0, 20])
    np.testing.assert_allclose(success["task2"].get_ydata(), [50, 100])
    assert success["all tasks"].get_linewidth() > success["task1"].get_linewidth()
    (loss,) = shown["critic/loss"].get_lines()
    np.testing.assert_array_equal(loss.get_xdata(), [10, 20, 30])
    np.testing.assert_allclose(loss.get_ydata(), [7 / 10, 7 / 20, 7 / 30])
    low, high = shown["success"].get_ylim()
    assert low < 0 < 100 < high
    assert_readable(figures[0])


def test_the_last_row_of_a_step_counts(figures, tmp_path):
    metrics = [
        metric(10, critic=1),
        metric(20, critic=2),
        metric(20, critic=3),
        metric(15, critic=4),
    ]
    evaluations = [evaluation_row(20, 0.1), evaluation_row(20, 0.9)]
    plot_curve(metrics, evaluations, tmp_path / "curve.png")
    shown = panels(figures[0])
    (loss,) = shown["critic/loss"].get_lines()
    np.testing.assert_array_equal(loss.get_xdata(), [10, 15, 20])
    np.testing.assert_array_equal(loss.get_ydata(), [1, 4, 3])
    np.testing.assert_allclose(lines(shown["success"])["all tasks"].get_ydata(), [90])


@pytest.mark.parametrize("losses", [1, 2, 3, 5])
def test_any_number_of_losses_is_readable(figures, tmp_path, losses):
    names = [f"loss{i}" for i in range(losses)]
    metrics = [metric(step, **dict.fromkeys(names, step)) for step in (1, 1_000_000)]
    plot_curve(metrics, [evaluation_row(1_000_000, *([0.5] * 5))], tmp_path / "curve.png")
    assert len(figures[0].axes) == 1 + losses
    assert_readable(figures[0])


def test_a_loss_may_be_missing_from_some_rows(figures, tmp_path):
    metrics = [metric(1, critic=1.0), metric(2, actor=2.0), {"event": "start", "config": {}}]
    plot_curve(metrics, [], tmp_path / "curve.png")
    (loss,) = panels(figures[0])["actor/loss"].get_lines()
    np.testing.assert_array_equal(loss.get_xdata(), [2])


def test_validation_losses_stand_beside_those_of_training(figures, tmp_path):
    metrics = [
        metric(1, critic=1.0),
        metric(2, critic=2.0),
        {"step": 2, "validation/critic/loss": 3},
    ]
    plot_curve(metrics, [], tmp_path / "curve.png")
    assert set(panels(figures[0])) == {"success", "critic/loss"}
    losses = lines(panels(figures[0])["critic/loss"])
    # Another row of the same step, without this loss, takes nothing away.
    np.testing.assert_array_equal(losses["training"].get_xdata(), [1, 2])
    np.testing.assert_array_equal(losses["validation"].get_xdata(), [2])


@pytest.mark.parametrize("metrics", [[], [metric(7, critic=1.0)]])
@pytest.mark.parametrize("evaluations", [[], [evaluation_row(7, 0.5)]])
def test_curves_of_no_or_one_point(figures, tmp_path, metrics, evaluations):
    plot_curve(metrics, evaluations, tmp_path / "curve.png")
    points = [
        line for axes in figures[0].axes for line in axes.get_lines() if len(line.get_xdata())
    ]
    assert len(points) == len(metrics) + 2 * len(evaluations)
    # A line through one point shows nothing but its marker.
    assert all(line.get_marker() not in (None, "None") for line in points)
    said = [text.get_text() for text in figures[0].axes[0].texts]
    assert said == ([] if evaluations else ["not evaluated yet"])
    assert_readable(figures[0])


def test_trajectories_show_what_happened(figures, tmp_path, maze):
    plot_trajectories(maze, make_evaluation(maze), tmp_path / "trajectories.png")
    figure = figures[0]
    assert list(panels(figure)) == [f"{task}: 67 %" for task in TASKS]
    assert "66.7 %" in figure._suptitle.get_text()
    assert "12,000" in figure._suptitle.get_text()
    for axes in figure.axes:
        assert axes.get_aspect() == 1.0
        paths = [line for line in axes.get_lines() if len(line.get_xdata()) == 50]
        reached = [line for line in paths if line.get_xdata()[-1] == 16]
        missed = [line for line in paths if line.get_xdata()[-1] == 8]
        assert (len(reached), len(missed)) == (2, 1)
        for a, b in itertools.product(reached, missed):
            assert to_rgba(a.get_color()) != to_rgba(b.get_color())
            assert a.get_linestyle() != b.get_linestyle()
        goals = [patch for patch in axes.patches if isinstance(patch, Circle)]
        assert [goal.radius for goal in goals] == [maze.tolerance] * 3
        assert sorted(goal.center[1] for goal in goals) == pytest.approx([0, 0.1, 0.2])
    assert_readable(figure)


def test_walls_are_where_the_maze_has_them(figures, tmp_path, maze):
    plot_trajectories(maze, make_evaluation(maze), tmp_path / "trajectories.png")
    (image,) = figures[0].axes[0].get_images()
    left, right, bottom, top = image.get_extent()
    assert image.origin == "lower"
    rows, columns = maze.walls.shape
    for i, j in itertools.product(range(rows), range(columns)):
        x, y = maze.cell_centre(i, j)
        row = int((y - bottom) / (top - bottom) * rows)
        column = int((x - left) / (right - left) * columns)
        assert image.get_array()[row, column] == maze.walls[i, j]


def test_only_the_first_paths_are_drawn(figures, tmp_path, maze):
    plot_trajectories(maze, make_evaluation(maze, episodes=50), tmp_path / "trajectories.png")
    for axes in figures[0].axes:
        assert sum(len(line.get_xdata()) == 50 for line in axes.get_lines()) == 10


def test_a_teleport_is_no_line(figures, tmp_path, maze):
    path = np.array([[0, 0], [1, 0], [9, 8], [10, 8]], np.float32)
    episode = Episode("task1", 0.0, path, path[0], path[0] + 16)
    plot_trajectories(maze, Evaluation(1, {"task1": 0.0}, [episode]), tmp_path / "x.png")
    drawn = max((line.get_xdata() for line in figures[0].axes[0].get_lines()), key=len)
    np.testing.assert_array_equal(drawn, [0, 1, np.nan, 9, 10])


@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS[:2], TASKS])
def test_any_number_of_tasks_is_readable(figures, tmp_path, maze, tasks):
    plot_trajectories(maze, make_evaluation(maze, tasks=tasks), tmp_path / "trajectories.png")
    assert len(figures[0].axes) == len(tasks)
    assert_readable(figures[0])


def test_pictures_are_written_whole(tmp_path, maze):
    plot_curve([metric(1, critic=1.0)], [evaluation_row(1, 0.5)], tmp_path / "curve.png")
    plot_trajectories(maze, make_evaluation(maze), tmp_path / "trajectories.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curve.png", "trajectories.png"]
    for file in tmp_path.iterdir():
        pixels = imread(file)
        assert pixels.shape[1] == 1800
        assert pixels.std() > 0.01, "the picture is empty"


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    def fail(figure, file, **settings):
        file.write_bytes(b"half a picture")
        raise OSError("disk full")

    picture = tmp_path / "curve.png"
    picture.write_bytes(b"the old picture")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_curve([], [], picture)
    assert picture.read_bytes() == b"the old picture"
    assert list(tmp_path.iterdir()) == [picture]
