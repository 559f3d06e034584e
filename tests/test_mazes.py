import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crlx.envs.tasks import LAYOUTS, Layout

# Goals and walls as counted in the paper's drawings.
_COUNTS = {"u_maze": (6, 18), "u4_maze": (10, 24), "u5_maze": (16, 39), "big_maze": (25, 38)}
_COUNTS["hardest_maze"] = (45, 62)
_CORRIDORS = {"u": 7, "u2": 9, "u3": 11, "u4": 11, "u5": 17}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_sound(layout):
    maze = Layout.named(layout)
    assert maze.walls.sum() == len(maze.cells("#"))


@pytest.mark.parametrize("layout, counts", _COUNTS.items())
def test_counts(layout, counts):
    maze = Layout.named(layout)
    assert (len(maze.cells("G")), len(maze.cells("#"))) == counts


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if f"{name}_eval" in LAYOUTS])
def test_far_goals_lie_in_the_same_walls(layout):
    near, far = Layout.named(layout), Layout.named(f"{layout}_eval")
    assert np.array_equal(near.walls, far.walls)
    assert near.cells("R") == far.cells("R")
    assert set(far.cells("G")) < set(near.cells("G"))


def test_rows_are_x():
    maze = Layout("####\n#R.#\n##G#\n####")
    assert maze.centres("R", 4.0).tolist() == [[4.0, 4.0]]
    assert maze.centres("G", 4.0).tolist() == [[8.0, 8.0]]
    assert maze.walls[2].tolist() == [True, True, False, True]


@pytest.mark.parametrize("layout, cells", _CORRIDORS.items())
def test_corridor(layout, cells):
    maze = Layout.named(f"{layout}_maze_single_eval")
    way = maze.corridor()
    assert len(way) == cells == len(set(way))
    assert [way[0]] == maze.cells("R")
    assert [way[-1]] == maze.cells("G")
    steps = np.abs(np.diff(way, axis=0)).sum(1)
    assert (steps == 1).all()


@pytest.mark.parametrize(
    "drawing, message",
    [
        ("####\n#RG#\n###", "Row 2 of the maze has 3 cells"),
        ("####\n#RX#\n####", "row 1, column 2 is 'X'"),
        ("####\n#.G#\n####", "no start"),
        ("####\n#R.#\n####", "no goal"),
        ("####\n#RG.\n####", "open at row 1, column 3"),
        ("#R##\n#.G#\n####", "open at row 0, column 1"),
        ("#####\n#R#G#\n#####", "no way from the start in row 1, column 1"),
    ],
)
def test_malformed(drawing, message):
    with pytest.raises(ValueError, match=message):
        Layout(drawing)


def test_unknown_layout():
    with pytest.raises(ValueError, match="no maze 'v_maze'; there are u_maze"):
        Layout.named("v_maze")


def test_branches_are_no_corridor():
    with pytest.raises(ValueError, match="2 ways on from row 1, column 1"):
        Layout("#####\n#R..#\n#..G#\n#####").corridor()


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=4, max_size=4))
def test_mazes_are_refused_exactly_where_goals_are_out_of_reach(walls):
    inner = np.array(walls)
    inner[0, 0] = inner[-1, -1] = False
    letters = np.pad(np.where(inner, "#", "."), 1, constant_values="#")
    letters[1, 1], letters[-2, -2] = "R", "G"
    drawing = "\n".join("".join(row) for row in letters)
    if _reachable(inner):
        Layout(drawing)
    else:
        with pytest.raises(ValueError, match="no way"):
            Layout(drawing)


def _reachable(walls):
    """By powers of the adjacency matrix."""
    cells = [(i, j) for i, j in np.argwhere(~walls).tolist()]
    near = np.array([[abs(a - c) + abs(b - d) <= 1 for c, d in cells] for a, b in cells])
    ways = np.linalg.matrix_power(near.astype(float), len(cells))
    return ways[cells.index((0, 0)), cells.index((3, 3))] > 0


def test_letters_are_counted_once():
    counts = collections.Counter(LAYOUTS["big_maze"].replace("\n", ""))
    maze = Layout.named("big_maze")
    assert all(len(maze.cells(letter)) == counts[letter] for letter in "#RG.")
