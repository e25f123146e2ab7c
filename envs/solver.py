"""Shortest paths in a maze, and the moves of an expert who follows them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int8, Int32

from envs.maze import Cell, Maze
from envs.moves import STEP_OF_MOVE, Move
from envs.state import WALL

UNREACHABLE = -1
Grid = Int32[np.ndarray, "rows columns"]


def distances(maze: Maze | Grid, goal: Cell) -> Int32[np.ndarray, "rows columns"]:
    """Return the number of steps from each cell to the goal, -1 where there is no way.

    Args:
        maze: a maze, or its grid.
        goal: a free cell.

    Raises:
        ValueError: the goal is outside or a wall.
    """
    steps, _ = _search(maze, goal)
    return np.array(steps, np.int32).reshape(_padded_shape(maze))[1:-1, 1:-1]


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
    _, moves = _search(maze, goal)
    return np.array(moves, np.int8).reshape(_padded_shape(maze))[1:-1, 1:-1]


def shortest_path(maze: Maze | Grid, start: Cell, goal: Cell) -> list[Cell]:
    """Return the cells of a shortest way, both ends included.

    Raises:
        ValueError: an end is outside or a wall, or there is no way.
    """
    _check(_grid(maze), start)
    moves = expert_moves(maze, goal)
    if moves[start] == UNREACHABLE:
        raise ValueError(f"there is no way from {start} to {goal}")
    path = [start]
    while path[-1] != goal:
        row_step, column_step = STEP_OF_MOVE[Move(moves[path[-1]])]
        path.append(Cell(path[-1].row + row_step, path[-1].column + column_step))
    return path


def top_right(maze: Maze) -> Cell:
    """Return the free cell nearest the top right corner (in steps; the upper of two)."""
    return max(maze.free_cells(), key=lambda cell: (cell.row + cell.column, cell.row))


def decision_square(maze: Maze) -> Cell | None:
    """Return where the mouse's way to the cheese leaves its way to the top right corner.

    None when one of the ways is a part of the other: there is nothing to decide.

    Raises:
        ValueError: there is not exactly one cheese, or it or the corner cannot be reached.
    """
    if len(maze.cheese) != 1:
        raise ValueError(f"a decision square needs one cheese, the maze has {len(maze.cheese)}")
    to_cheese = shortest_path(maze, maze.mouse, maze.cheese[0])
    to_corner = shortest_path(maze, maze.mouse, top_right(maze))
    for here, next_cheese, next_corner in zip(
        to_cheese, to_cheese[1:], to_corner[1:], strict=False
    ):
        if next_cheese != next_corner:
            return here
    return None


def _search(maze: Maze | Grid, goal: Cell) -> tuple[list[int], list[int]]:
    """Search breadth first from the goal over flat lists of the grid with a border of walls."""
    grid = _grid(maze)
    _check(grid, goal)
    rows, columns = grid.shape
    width = columns + 2
    padded = np.zeros((rows + 2, width), np.bool_)
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
    return steps, moves


def _grid(maze: Maze | Grid) -> Grid:
    return maze.grid if isinstance(maze, Maze) else maze


def _padded_shape(maze: Maze | Grid) -> tuple[int, int]:
    rows, columns = _grid(maze).shape
    return rows + 2, columns + 2


def _check(grid: Grid, cell: Cell) -> None:
    rows, columns = grid.shape
    if not (0 <= cell.row < rows and 0 <= cell.column < columns):
        raise ValueError(f"{cell} is outside of the {rows}x{columns} world")
    if grid[cell] == WALL:
        raise ValueError(f"{cell} is a wall")
