"""Vector fields: the mean step from each cell of a maze, of any policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.moves import STEP_OF_MOVE, Move
from rlbilinear.envs.observation import observe, placements

MovePolicy = Callable[[UInt8[np.ndarray, "n 3 64 64"]], Float[np.ndarray, "n 5"]]
"""From observations to the probability of each `Move`."""

_STEPS = np.array([STEP_OF_MOVE[move] for move in Move], float)


def mouse_cells(maze: Maze) -> tuple[Cell, ...]:
    """Return where the mouse can be in play: the free cells without cheese."""
    cheese = set(maze.cheese)
    return tuple(cell for cell in maze.free_cells() if cell not in cheese)


def on_grid(
    maze: Maze, cells: Sequence[Cell], values: Shaped[np.ndarray, "n *rest"]
) -> Float[np.ndarray, "rows columns *rest"]:
    """Place one value a cell on the maze's grid, row 0 at the bottom; NaN elsewhere.

    Raises:
        ValueError: not one value for each cell.
    """
    if len(values) != len(cells):
        raise ValueError(f"{len(values)} values for {len(cells)} cells")
    grid = np.full((*maze.grid.shape, *values.shape[1:]), np.nan)
    if cells:
        rows, columns = np.array(cells).T
        grid[rows, columns] = values
    return grid


def mean_steps(moves: Float[np.ndarray, "n 5"]) -> Float[np.ndarray, "n 2"]:
    """Return the mean step (up, right), in cells: P(up) - P(down) and P(right) - P(left).

    A move into a wall counts, though it leads nowhere.
    """
    return moves @ _STEPS


def vector_field(maze: Maze, policy: MovePolicy) -> Float[np.ndarray, "rows columns 2"]:
    """Ask a policy with the mouse at every cell, and return its mean steps, see `mean_steps`.

    Args:
        maze: facing and background stay as they are.
        policy: from observations to the probability of each move; asked once, for all cells.

    Returns:
        (up, right) for each cell, row 0 at the bottom; NaN where the mouse cannot be in play: walls
        and cheese.

    Raises:
        ValueError: the policy does not return five probabilities for each observation.
    """
    cells = mouse_cells(maze)
    if not cells:
        return on_grid(maze, cells, np.empty((0, 2)))
    moves = np.asarray(policy(observe(placements(maze, cells))), float)
    sums = moves.sum(1) if moves.shape == (len(cells), len(Move)) else np.array(np.nan)
    if not (np.allclose(sums, 1, atol=1e-4) and moves.min() >= 0):
        raise ValueError(
            f"expected from the policy the probabilities of {', '.join(m.name for m in Move)} for "
            f"each of {len(cells)} observations, got an array {moves.shape} with sums "
            f"{sums.min():g} to {sums.max():g}"
        )
    return on_grid(maze, cells, mean_steps(moves))
