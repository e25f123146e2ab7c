"""Where in a level something is: in a region of the maze, or on cells of the world."""

from __future__ import annotations

import reprlib
from typing import Literal, NamedTuple, get_args

from rlbilinear.envs.games import is_whole
from rlbilinear.envs.grid import Cell, check_cell
from rlbilinear.envs.levels import Level
from rlbilinear.envs.maze import Maze

Corner = Literal["top right", "top left", "bottom right", "bottom left"]


class Region(NamedTuple):
    """A square of cells in a corner of the maze proper, such as its top right 5x5 cells."""

    side: int
    """In cells; the whole maze when it is not larger than this."""
    corner: Corner = "top right"

    def holds(self, maze: Level | Maze, cell: Cell) -> bool:
        """Return whether a cell of a maze lies in it.

        Raises:
            ValueError: it is not a `Cell`.
        """
        check_cell(cell)
        last = maze.margin + maze.maze_dim - 1
        down = last - cell.row if "top" in self.corner else cell.row - maze.margin
        across = last - cell.column if "right" in self.corner else cell.column - maze.margin
        return 0 <= down < self.side and 0 <= across < self.side


Place = Region | Cell | tuple[Cell, ...]
"""A region of the maze proper, a cell of the world, or one of several such cells."""


def check_place(name: str, place: Place) -> None:
    """Raise ValueError, naming what it is for, unless it is a region, a cell or some cells."""
    if isinstance(place, Region):
        if not (is_whole(place.side) and place.side >= 1 and place.corner in get_args(Corner)):
            raise ValueError(
                f"{name}: a Region has a side of at least 1 and is at the "
                f"{', '.join(get_args(Corner))}; got {place}"
            )
        return
    cells = (place,) if isinstance(place, Cell) else place
    if not (isinstance(cells, tuple) and cells) or not all(
        isinstance(cell, Cell) and all(is_whole(i) and i >= 0 for i in cell) for cell in cells
    ):
        raise ValueError(
            f"{name} is a Region, a Cell or a tuple of cells, got {reprlib.repr(place)}"
        )


def cells_in(place: Cell | tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Return the cells of a place that is not a region."""
    return (place,) if isinstance(place, Cell) else place


def holds(place: Place, level: Level, cell: Cell) -> bool:
    """Return whether a level's cell is there."""
    return place.holds(level, cell) if isinstance(place, Region) else cell in cells_in(place)
