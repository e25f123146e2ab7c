"""Shortest paths in a maze, where two of them part, and the moves of an expert who follows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, Int32

from rlbilinear.envs.grid import UNREACHABLE, Cell, Grid, check_free, search
from rlbilinear.envs.maze import Maze, expect_maze
from rlbilinear.envs.moves import STEP_OF_MOVE, Move

_STEPS = tuple(STEP_OF_MOVE[move] for move in Move)


def distances(maze: Maze | Grid, goal: Cell) -> Int32[np.ndarray, "rows columns"]:
    """Return the number of steps from each cell to the goal, -1 where there is no way.

    Args:
        maze: a maze, or its grid.
        goal: a free cell.

    Raises:
        ValueError: the goal is outside or a wall.
    """
    check_free(grid_of(maze), goal)
    return search(grid_of(maze), goal).steps


def expert_moves(maze: Maze | Grid, goal: Cell) -> Int8[np.ndarray, "rows columns"]:
    """Return from each cell the first move of a shortest way to the goal.

    Entries are `Move` values: STAY on the goal, -1 on walls and where there is no way. Where
    several ways are shortest (a maze of the game has one), which is returned is fixed.

    Args:
        maze: a maze, or its grid.
        goal: a free cell.

    Raises:
        ValueError: the goal is outside or a wall.
    """
    check_free(grid_of(maze), goal)
    return search(grid_of(maze), goal).moves.astype(np.int8)


def shortest_path(maze: Maze | Grid, start: Cell, goal: Cell) -> list[Cell]:
    """Return the cells of a shortest way, both ends included.

    Raises:
        ValueError: an end is outside or a wall, or there is no way.
    """
    check_free(grid_of(maze), start)
    moves = expert_moves(maze, goal)
    if moves[start] == UNREACHABLE:
        raise ValueError(f"there is no way from {start} to {goal}")
    path = [start]
    while path[-1] != goal:
        row_step, column_step = _STEPS[moves[path[-1]]]
        path.append(Cell(path[-1].row + row_step, path[-1].column + column_step))
    return path


def top_right(maze: Maze) -> Cell:
    """Return the free cell nearest the top right corner (in steps; the upper of two).

    Raises:
        ValueError: the maze has no free cell.
    """
    expect_maze(maze)
    cells = maze.free_cells()
    if not cells:
        raise ValueError("the maze has no free cell")
    return max(cells, key=lambda cell: (cell.row + cell.column, cell.row))


class Divergence(NamedTuple):
    """Two paths from one cell: what they share at first, and how each goes on."""

    shared: list[Cell]
    """From the start to the last cell before they part."""
    one: list[Cell]
    """The rest of the first path, empty when all of it is shared."""
    two: list[Cell]
    """The rest of the second."""

    @property
    def square(self) -> Cell | None:
        """Where the paths part; None when one is a part of the other: nothing is decided."""
        return self.shared[-1] if self.one and self.two else None


def path_divergence(one: Sequence[Cell], two: Sequence[Cell]) -> Divergence:
    """Split two paths where they part; shortest ones, or those that an agent has walked.

    Raises:
        ValueError: a path is empty, or they start on different cells.
    """
    if not one or not two or one[0] != two[0]:
        starts = [path[0] if path else None for path in (one, two)]
        raise ValueError(f"the paths start on one cell, got {starts[0]} and {starts[1]}")
    pairs = enumerate(zip(one, two, strict=False))
    length = next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))
    return Divergence(list(one[:length]), list(one[length:]), list(two[length:]))


def decision_square(
    maze: Maze, goal: Cell | None = None, other_goal: Cell | None = None
) -> Cell | None:
    """Return where the mouse's way to a goal leaves its way to another.

    None when one of the ways is a part of the other: there is nothing to decide. In a maze with
    loops, the ways are those of `shortest_path`.

    Args:
        maze: the maze; ways start at its mouse.
        goal: None for the cheese.
        other_goal: None for the top right corner, see `top_right`.

    Raises:
        ValueError: the maze has not exactly one cheese and no goal is given; a goal is outside,
            a wall, or cannot be reached.
    """
    expect_maze(maze)
    if goal is None:
        if len(maze.cheese) != 1:
            raise ValueError(
                f"a decision square needs one cheese, the maze has {len(maze.cheese)}; "
                "or give the goal"
            )
        (goal,) = maze.cheese
    if other_goal is None:
        other_goal = top_right(maze)
    ways = (shortest_path(maze, maze.mouse, cell) for cell in (goal, other_goal))
    return path_divergence(*ways).square


def grid_of(maze: Maze | Grid) -> Grid:
    """Return the grid; raise TypeError unless it is a maze or a grid."""
    if isinstance(maze, Maze):
        return maze.grid
    if not isinstance(maze, np.ndarray) or maze.ndim != 2:
        raise TypeError(f"expected a Maze or its grid, got {type(maze).__name__}")
    return maze
