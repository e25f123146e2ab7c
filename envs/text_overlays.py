"""Drawing over a maze in text, for a terminal: arrows and paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from rlbilinear.envs.grid import check_inside
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.state import WALL

_COMPASS = "→↗↑↖←↙↓↘"
"""Arrows at every 45 degrees, from the right on."""
_SHORTEST = 0.1


def arrows_text(maze: Maze, field: Float[np.ndarray, "rows columns 2"]) -> str:
    """Draw a maze in text with an arrow in each cell, such as where a policy sends the mouse.

    Args:
        maze: the maze.
        field: for each cell (up, right), row 0 at the bottom; NaN draws nothing, and a length
            below 0.1 a dot. See `rlbilinear.envs.fields.vector_field`.

    Raises:
        ValueError: a field of another shape.
    """
    if field.shape != (*maze.grid.shape, 2):
        raise ValueError(f"expected a field {(*maze.grid.shape, 2)}, got {field.shape}")
    return _drawn(
        maze,
        {
            Cell(row, column): _arrow(*field[row, column])
            for row, column in np.argwhere(np.isfinite(field).all(2)).tolist()
        },
    )


def path_text(maze: Maze, cells: Sequence[Cell]) -> str:
    """Draw a maze in text with a path, such as `shortest_path`: arrows to the next cell.

    Raises:
        ValueError: a cell is outside of the maze.
    """
    for cell in cells:
        check_inside(maze.grid, cell)
    steps = [(here, np.subtract(there, here)) for here, there in pairwise(cells)]
    return _drawn(maze, {here: _arrow(*step) for here, step in steps})


def _arrow(up: float, right: float) -> str:
    if np.hypot(up, right) < _SHORTEST:
        return "·"
    return _COMPASS[round(np.arctan2(up, right) / (np.pi / 4)) % 8]


def _drawn(maze: Maze, marks: Mapping[Cell, str]) -> str:
    """Draw a maze as `print` does, with a mark in cells, beside the mouse or cheese there."""
    cheese = set(maze.cheese)

    def symbol(cell: Cell) -> str:
        who = ("M" if cell == maze.mouse else "") + ("C" if cell in cheese else "")
        blank = "██" if maze.grid[cell] == WALL else "  "
        return (who + marks.get(cell, "") + blank)[:2]

    rows, columns = maze.grid.shape
    lines = ("".join(symbol(Cell(row, c)) for c in range(columns)) for row in range(rows))
    return "\n".join(line.rstrip() for line in reversed(list(lines)))
