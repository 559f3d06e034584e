import collections
import dataclasses

import numpy as np

from ._layouts import LAYOUTS

Cell = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A maze drawn with text: `#` wall, `R` start, `G` goal, `B` ball, `.` free.

    Rows are printed from the top in the direction of +x and columns from the left in that of +y:
    the cell in row $i$ and column $j$ has its centre at $(i s, j s)$ for cells of side $s$.

    **Raises:** `ValueError`, with the place, for rows of unequal length, unknown letters, a missing
    start or goal, a way out of the maze, or a goal that cannot be reached from every start.
    """

    text: str

    def __post_init__(self):
        rows = self.rows
        for i, row in enumerate(rows):
            if len(row) != len(rows[0]):
                raise ValueError(
                    f"Row {i} of the maze has {len(row)} cells, but row 0 has {len(rows[0])}: "
                    "pad it with walls, '#'."
                )
            for j, letter in enumerate(row):
                if letter not in "#RGB.":
                    raise ValueError(
                        f"The cell in row {i}, column {j} is {letter!r}; use '#' for a wall, 'R' "
                        "for a start, 'G' for a goal, 'B' for a ball and '.' for a free cell."
                    )
        for letter, what in (("R", "start"), ("G", "goal")):
            if not self.cells(letter):
                raise ValueError(f"The maze has no {what}: mark a cell with {letter!r}.")
        for start in self.cells("R"):
            self._check_ways(start)

    @classmethod
    def named(cls, layout: str) -> "Layout":
        """One of `LAYOUTS`."""
        if layout not in LAYOUTS:
            raise ValueError(f"There is no maze {layout!r}; there are {', '.join(LAYOUTS)}.")
        return cls(LAYOUTS[layout])

    @property
    def rows(self) -> list[str]:
        """The lines of the drawing."""
        return self.text.split()

    @property
    def walls(self) -> np.ndarray:
        """`[rows, columns]`, true for walls."""
        return np.array([[letter == "#" for letter in row] for row in self.rows])

    def cells(self, letter: str) -> list[Cell]:
        """Rows and columns of all cells with a letter, in reading order."""
        rows = self.rows
        return [(i, j) for i, row in enumerate(rows) for j, own in enumerate(row) if own == letter]

    def centres(self, letter: str, scale: float) -> np.ndarray:
        """`[cells, 2]`, the centres of those cells in metres."""
        return np.array(self.cells(letter), np.float32).reshape(-1, 2) * np.float32(scale)

    def corridor(self) -> list[Cell]:
        """The cells from the start to the goal of a maze without branches.

        **Raises:** `ValueError` if there is more than one way to go on.
        """
        (start, *others), goals = self.cells("R"), self.cells("G")
        if others or len(goals) != 1:
            raise ValueError("A corridor has one start and one goal.")
        way: list[Cell] = [start]
        while way[-1] != goals[0]:
            ahead = [cell for cell in self._neighbours(way[-1]) if cell not in way]
            if len(ahead) != 1:
                raise ValueError(
                    f"There are {len(ahead)} ways on from row {way[-1][0]}, column {way[-1][1]}; "
                    "a corridor has one."
                )
            way += ahead
        return way

    def _check_ways(self, start: Cell) -> None:
        seen, queue = {start}, collections.deque([start])
        while queue:
            cell = queue.popleft()
            if cell[0] in (0, len(self.rows) - 1) or cell[1] in (0, len(self.rows[0]) - 1):
                raise ValueError(
                    f"The maze is open at row {cell[0]}, column {cell[1]}: surround it with walls."
                )
            fresh = [near for near in self._neighbours(cell) if near not in seen]
            seen.update(fresh)
            queue.extend(fresh)
        for goal in self.cells("G"):
            if goal not in seen:
                raise ValueError(
                    f"There is no way from the start in row {start[0]}, column {start[1]} to the "
                    f"goal in row {goal[0]}, column {goal[1]}."
                )

    def _neighbours(self, cell: Cell) -> list[Cell]:
        i, j = cell
        around = [(i - 1, j), (i, j - 1), (i + 1, j), (i, j + 1)]
        return [(a, b) for a, b in around if self.rows[a][b] != "#"]
