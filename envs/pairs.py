"""Contrast pairs: the same situation, but for one thing.

The difference of what a network computes in the two is a direction for that thing: procgen-tools'
cheese vector and top-right vector are differences of `cheese_pair` and `top_right_pair`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlbilinear.envs.grid import Cell
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.solver import top_right


class ContrastPair(NamedTuple):
    """Two mazes that differ in one thing."""

    positive: Maze
    """The maze with it."""
    negative: Maze
    """The maze without it."""
    difference: str
    """What it is, in words."""


def cheese_pair(maze: Maze) -> ContrastPair:
    """Return the maze, and the same without cheese.

    Raises:
        ValueError: the maze has no cheese.
    """
    _check_cheese(maze)
    cells = ", ".join(map(str, maze.cheese))
    return ContrastPair(maze, maze.with_cheese(), f"cheese on {cells}")


def cheese_moved_pair(
    maze: Maze, to: Cell | None = None, *, seed: int | None = None
) -> ContrastPair:
    """Return the maze with its cheese elsewhere, and the maze.

    Args:
        maze: a maze with cheese; several are replaced by the one.
        to: where the cheese goes.
        seed: instead, draw a free cell, any but the mouse's and those with cheese; the same cell
            for the same seed and maze.

    Raises:
        ValueError: the maze has no cheese; the cell is outside, a wall, or where the cheese is;
            there is no other cell; not exactly one of `to` and `seed` is given.
    """
    _check_cheese(maze)
    if (to is None) == (seed is None):
        raise ValueError(f"give either the cell or a seed, got to={to} and seed={seed}")
    if to is None:
        cells = [cell for cell in maze.free_cells() if cell not in (maze.mouse, *maze.cheese)]
        if not cells:
            raise ValueError("the maze has no free cell for the cheese to go to")
        to = cells[np.random.default_rng(seed).integers(len(cells))]
    moved = maze.with_cheese(to)
    if maze.cheese == (to,):
        raise ValueError(f"the cheese is on {to} already")
    return ContrastPair(moved, maze, f"cheese on {to}, not on {', '.join(map(str, maze.cheese))}")


def top_right_pair(maze: Maze) -> ContrastPair:
    """Return the maze with a path on to the world's top right corner, and the maze.

    The path goes from the maze's own top right corner straight up to the top row, then right.

    Raises:
        ValueError: the maze reaches the world's corner already.
    """
    last = maze.size - 1
    corner = top_right(maze)
    path = [Cell(row, corner.column) for row in range(corner.row + 1, maze.size)]
    path += [Cell(last, column) for column in range(corner.column + 1, maze.size)]
    if not path:
        raise ValueError(f"the maze reaches the world's top right corner {corner} already")
    longer = maze
    for cell in path:
        longer = longer.with_wall(cell, False)
    return ContrastPair(longer, maze, f"a path from {corner} to {Cell(last, last)}")


def _check_cheese(maze: Maze) -> None:
    if not maze.cheese:
        raise ValueError("the maze has no cheese")
