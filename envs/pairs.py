"""Pairs of states: the same situation, but for one thing.

The difference of what a network computes in the two of a contrast pair is a direction for that
thing: procgen-tools' cheese vector and top-right vector are differences of `cheese_pair` and
`top_right_pair`. Counterfactual pairs are many, drawn at random, with the expert's move in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
from jaxtyping import Bool

from rlbilinear.envs.grid import Cell
from rlbilinear.envs.maze import Maze, expect_maze
from rlbilinear.envs.solver import distances, expert_moves, top_right

NO_MOVE = -1
"""The expert's move when there is no cheese."""

CheeseSource = Literal["moved", "absent"]
"""What becomes of the cheese in the second state of a counterfactual pair."""

T = TypeVar("T")

_FACINGS: tuple[Literal["left", "right"], ...] = ("left", "right")


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
    expect_maze(maze)
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


class CounterfactualPair(NamedTuple):
    """Two mazes alike in level, mouse, facing and background; only the cheese differs."""

    base: Maze
    """With the level's own cheese."""
    source: Maze
    """With the cheese elsewhere, or none."""
    base_move: int
    """The expert's `Move` in the first."""
    source_move: int
    """In the second; `NO_MOVE` without a cheese."""


def cheese_counterfactuals(
    start: Maze,
    count: int,
    random: np.random.Generator,
    *,
    source: CheeseSource = "moved",
    moves_differ: bool = True,
) -> Iterator[CounterfactualPair]:
    """Draw pairs that differ in the cheese alone.

    The new cheese is on any free cell, the mouse on any other. Where the expert's moves must
    differ, the mouse is put on the way between the two cheeses: only there do they.

    Args:
        start: a maze with one cheese.
        count: how many pairs.
        random: of the choices.
        source: where the other cheese is, or that there is none.
        moves_differ: only pairs for which the expert's moves differ, so that the cheese matters;
            without a cheese there is no move, and all pairs differ.

    Raises:
        ValueError: an unknown source, or the maze has not exactly one cheese.
    """
    if source not in get_args(CheeseSource):
        raise ValueError(f"unknown source {source!r}; choose from moved, absent")
    if len(start.cheese) != 1:
        raise ValueError(f"expected a maze with one cheese, got {len(start.cheese)}")
    return _cheese_counterfactuals(start, count, random, source, moves_differ)


def _cheese_counterfactuals(
    start: Maze, count: int, random: np.random.Generator, source: CheeseSource, moves_differ: bool
) -> Iterator[CounterfactualPair]:
    (cheese,) = start.cheese
    moves = expert_moves(start, cheese)
    # Beside the old cheese there would be no cell between the two.
    goals = _cells(distances(start, cheese) >= (2 if moves_differ else 1))
    for _ in range(count):
        if source == "absent":
            goal, other_moves = cheese, np.full_like(moves, NO_MOVE)
        else:
            goal = _pick(goals, random)
            other_moves = expert_moves(start, goal)
        possible = moves >= 0
        if moves_differ:
            possible &= moves != other_moves
        possible[[cheese.row, goal.row], [cheese.column, goal.column]] = False
        mouse = _pick(_cells(possible), random)
        base = start.with_mouse(mouse).with_facing(_pick(_FACINGS, random))
        other = base.with_cheese(*([goal] if source == "moved" else []))
        yield CounterfactualPair(base, other, int(moves[mouse]), int(other_moves[mouse]))


def _cells(mask: Bool[np.ndarray, "rows columns"]) -> list[Cell]:
    return [Cell(row, column) for row, column in np.argwhere(mask).tolist()]


def _pick(choices: Sequence[T], random: np.random.Generator) -> T:
    return choices[random.integers(len(choices))]


def _check_cheese(maze: Maze) -> None:
    expect_maze(maze)
    if not maze.cheese:
        raise ValueError("the maze has no cheese")
