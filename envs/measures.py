"""The sixteen geometric measures of a maze that published behavioural statistics regress on.

Names and definitions are those of procgen-tools (its metrics.py), used in "Behavioural statistics
for a maze-solving agent" (Grietzer and Turner, 2023) to predict whether an agent that was trained
with cheese in the top right 5x5 cells takes the cheese or the corner.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32

from rlbilinear.envs.grid import Cell
from rlbilinear.envs.maze import Maze, expect_mazes
from rlbilinear.envs.solver import decision_square, distances, top_right
from rlbilinear.envs.state import WALL

if TYPE_CHECKING:
    import pandas as pd

REGION = 5
"""Side of the top right region."""


@dataclass(frozen=True)
class Measure:
    """A number that says something of a maze; call it with the maze.

    Attributes:
        name: what it is called in tables.
        sentence: what it measures.
        function: what computes it.
    """

    name: str
    sentence: str
    function: Callable[[Maze], float]

    def __call__(self, maze: Maze) -> float:
        """Return the measure, NaN where the maze has none."""
        return self.function(maze)


def measure_table(
    mazes: Iterable[Maze], measures: Mapping[str, Callable[[Maze], float]] | None = None
) -> pd.DataFrame:
    """Return a table of measures: a row for each maze, in order, and a column for each measure.

    A number is NaN where the maze lacks a place that it measures from or to (no decision square,
    not exactly one cheese), or where no way leads there.

    Args:
        mazes: the mazes; ways start at the mouse, so for the published numbers it is where the
            level puts it.
        measures: functions of a maze by name; None for the sixteen `MEASURES`.
    """
    import pandas as pd  # takes longer than all else here, for one function

    chosen = MEASURES if measures is None else measures
    mazes = expect_mazes(mazes)
    rows = [[measure(maze) for measure in chosen.values()] for maze in mazes]
    return pd.DataFrame(rows, columns=list(chosen), dtype=float)


@functools.lru_cache(maxsize=8)
def _places(maze: Maze) -> dict[str, tuple[Cell, ...]]:
    """Return the places that are measured between, each its free cells; none when it is not there.

    The last mazes are remembered, because one maze has many measures.
    """
    cheese = maze.cheese if len(maze.cheese) == 1 else ()
    corner = top_right(maze)
    square = None
    if cheese and maze.grid[maze.mouse] != WALL:
        steps = _steps_from(maze, maze.mouse)
        if min(steps[cheese[0]], steps[corner]) >= 0:
            square = decision_square(maze)
    region = tuple(
        cell
        for cell in maze.free_cells()
        if 0 <= corner.row - cell.row < REGION and 0 <= corner.column - cell.column < REGION
    )
    return {
        "cheese": cheese,
        "decision_square": () if square is None else (square,),
        "top_right": (corner,),
        "5x5": region,
    }


@functools.lru_cache(maxsize=8)
def _steps_from(maze: Maze, cell: Cell) -> Int32[np.ndarray, "rows columns"]:
    return distances(maze, cell)


def _euclidean(_: Maze, start: Cell, ends: Iterable[Cell]) -> Iterable[float]:
    return (math.dist(start, end) for end in ends)


def _taxicab(_: Maze, start: Cell, ends: Iterable[Cell]) -> Iterable[float]:
    return (abs(start.row - end.row) + abs(start.column - end.column) for end in ends)


def _steps(maze: Maze, start: Cell, ends: Iterable[Cell]) -> Iterable[float]:
    steps = _steps_from(maze, start)
    return (steps[end] for end in ends if steps[end] >= 0)


def _shortest(
    distances_to: Callable[[Maze, Cell, Iterable[Cell]], Iterable[float]],
    start: str,
    end: str,
    maze: Maze,
) -> float:
    places = _places(maze)
    return min(
        (float(d) for cell in places[start] for d in distances_to(maze, cell, places[end])),
        default=math.nan,
    )


def _cheese_coord_norm(maze: Maze) -> float:
    return math.hypot(*maze.cheese[0]) if len(maze.cheese) == 1 else math.nan


def _registry() -> Iterable[Measure]:
    kinds = {
        "euc_dist": ("Euclidean distance", _euclidean),
        "taxi_dist": ("Taxi-cab distance", _taxicab),
        "steps_between": ("Number of steps", _steps),
    }
    ends = {
        "cheese": "the cheese",
        "decision_square": "the decision square",
        "top_right": "the top right corner",
        "5x5": "the nearest free cell of the top right 5x5 cells",
    }
    for end, start in (
        ("decision_square", "cheese"),
        ("top_right", "cheese"),
        ("top_right", "decision_square"),
        ("5x5", "cheese"),
        ("5x5", "decision_square"),
    ):
        for kind, (words, distances_to) in kinds.items():
            yield Measure(
                f"{kind}_{start}_{end}",
                f"{words} between {ends[start]} and {ends[end]}.",
                functools.partial(_shortest, distances_to, start, end),
            )
    yield Measure(
        "cheese_coord_norm",
        "Euclidean norm of the cheese's row and column in the world (row 0 at the bottom).",
        _cheese_coord_norm,
    )


MEASURES: Mapping[str, Measure] = MappingProxyType({each.name: each for each in _registry()})
"""The sixteen by name.

The decision square is where the mouse's way to the cheese leaves its way to the top right corner;
that corner is the free cell nearest to it, in levels the maze's own corner; the 5x5 cells are
those down and to the left of it. Each is NaN where a place it needs is not there.
"""
