"""Cells of a grid, and what follows from its walls: which cells are free, and how far apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from rlbilinear.envs.games import is_whole
from rlbilinear.envs.moves import Move
from rlbilinear.envs.state import WALL

SMALLEST_WORLD, LARGEST_WORLD = 3, 64
"""Sides of the worlds that a maze may be made in."""
UNREACHABLE = -1
Grid = Int32[np.ndarray, "rows columns"]


class Cell(NamedTuple):
    """A cell of a grid; row 0 is at the bottom of the screen, column 0 at the left."""

    row: int
    column: int


def square_grid(
    grid: Int32[np.ndarray, "rows columns"], game: str, names: Mapping[int, str]
) -> Grid:
    """Return a copy of a grid that a maze or heist may be made of, of the simulator's integers.

    Args:
        grid: what was given.
        game: what it is to be, for the messages.
        names: the codes that it may hold, each with its name.

    Raises:
        ValueError: it is not square, too small or large, or holds something else.
    """
    grid = np.array(grid)
    size = grid.shape[0] if grid.ndim else 0
    if grid.shape != (size, size) or not SMALLEST_WORLD <= size <= LARGEST_WORLD:
        raise ValueError(
            f"a {game} is square, {SMALLEST_WORLD} to {LARGEST_WORLD} cells a side; "
            f"got shape {grid.shape}"
        )
    if grid.dtype.kind not in "iu" or not np.isin(grid, list(names)).all():
        raise ValueError(
            f"a grid holds {', '.join(f'{code} ({name})' for code, name in names.items())}; "
            f"got {np.unique(grid).tolist()} of {grid.dtype}"
        )
    return grid.astype("<i4")


def cells_of(mask: Bool[np.ndarray, "rows columns"]) -> tuple[Cell, ...]:
    """Return the cells that are set, by row and column."""
    rows, columns = np.nonzero(mask)
    return tuple(map(Cell, rows.tolist(), columns.tolist()))


def check_cell(cell: Cell) -> None:
    """Raise ValueError unless it is a `Cell` of whole numbers; a bare pair is none."""
    if not isinstance(cell, Cell) or not all(map(is_whole, cell)):
        raise ValueError(f"a position is a Cell(row, column), got {cell!r}")


def check_inside(grid: Grid, cell: Cell) -> None:
    """Raise ValueError, naming the cell, unless it is a `Cell` of the grid."""
    check_cell(cell)
    rows, columns = grid.shape
    if not (0 <= cell.row < rows and 0 <= cell.column < columns):
        raise ValueError(f"{cell} is outside of the {rows}x{columns} world")


def check_free(grid: Grid, cell: Cell) -> None:
    """Raise ValueError, naming the cell, unless it is one of the grid's that are not wall."""
    check_inside(grid, cell)
    if grid[cell] == WALL:
        raise ValueError(f"{cell} is a wall")


class Search(NamedTuple):
    """What a search from a goal found, for every cell."""

    steps: Int32[np.ndarray, "rows columns"]
    """Length of a shortest way to the goal, -1 where there is none."""
    moves: Int32[np.ndarray, "rows columns"]
    """Its first `Move`: STAY on the goal, -1 where there is no way."""


def search(grid: Grid, goal: Cell) -> Search:
    """Search breadth first for the ways to a goal, which may be a wall itself.

    Where several ways are shortest (a level of the game has one), which is taken is fixed.

    Raises:
        ValueError: the goal is outside.
    """
    check_inside(grid, goal)
    rows, columns = grid.shape
    width = columns + 2
    padded = np.zeros((rows + 2, width), np.bool_)  # flat lists with a border of walls are fastest
    np.not_equal(grid, WALL, out=padded[1:-1, 1:-1])
    unseen = bytearray(padded)
    steps = [UNREACHABLE] * len(unseen)
    moves = [UNREACHABLE] * len(unseen)
    first = (goal.row + 1) * width + goal.column + 1
    unseen[first], steps[first], moves[first] = 0, 0, int(Move.STAY)
    # The move from a neighbour back to the cell: opposite to the neighbour's side.
    sides = ((-1, 3), (width, 1), (-width, 2), (1, 0))
    reached = [first]
    for cell in reached:
        step = steps[cell] + 1
        for offset, move in sides:
            neighbour = cell + offset
            if unseen[neighbour]:
                unseen[neighbour] = 0
                steps[neighbour] = step
                moves[neighbour] = move
                reached.append(neighbour)
    found = np.array((steps, moves), np.int32).reshape(2, *padded.shape)[:, 1:-1, 1:-1]
    return Search(*found)


def unreachable(grid: Grid, start: Cell) -> tuple[Cell, ...]:
    """Return the free cells that no way leads to from the start, by row and column.

    Raises:
        ValueError: the start is outside.
    """
    return cells_of((grid != WALL) & (search(grid, start).steps == UNREACHABLE))
