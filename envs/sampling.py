"""Levels that satisfy constraints, drawn by a seed from a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

from rlbilinear.envs.games import check_mode, is_whole
from rlbilinear.envs.grid import Cell, check_cell
from rlbilinear.envs.levels import WORLD_SIZE, Level, Levels, generate_maze, maze_dim_of
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.solver import path_divergence, shortest_path

Corner = Literal["top right", "top left", "bottom right", "bottom left"]
MOST_TRIED = 100_000


class Region(NamedTuple):
    """A square of cells in a corner of the maze proper, such as its top right 5x5 cells."""

    side: int
    """In cells; the whole maze when it is not larger than this."""
    corner: Corner = "top right"

    def holds(self, maze: Level | Maze, cell: Cell) -> bool:
        """Return whether a cell of a maze lies in it.

        Raises:
            ValueError: it is no `Cell`.
        """
        check_cell(cell)
        last = maze.margin + maze.maze_dim - 1
        down = last - cell.row if "top" in self.corner else cell.row - maze.margin
        across = last - cell.column if "right" in self.corner else cell.column - maze.margin
        return 0 <= down < self.side and 0 <= across < self.side


@dataclass(frozen=True)
class Constraints:
    """What a level has to satisfy; None asks for nothing.

    Attributes:
        maze_dim: least and most side of the maze.
        steps: least and most steps from the mouse to the cheese.
        cheese_in: where the cheese is.
        cheese_out_of: where it is not.
        has_decision_square: whether the ways to the cheese and to the top right corner part.

    Raises:
        ValueError: says what cannot be satisfied.
    """

    maze_dim: tuple[int, int] | None = None
    steps: tuple[int, int] | None = None
    cheese_in: Region | None = None
    cheese_out_of: Region | None = None
    has_decision_square: bool | None = None

    def __post_init__(self) -> None:
        for name, limits in (("maze_dim", self.maze_dim), ("steps", self.steps)):
            if limits is not None and not (
                isinstance(limits, Sequence) and len(limits) == 2 and limits[0] <= limits[1]
            ):
                raise ValueError(f"{name} is the least and the most, got {limits}")
        for region in (self.cheese_in, self.cheese_out_of):
            if region is not None and not (
                isinstance(region, Region)
                and region.side >= 1
                and region.corner in get_args(Corner)
            ):
                raise ValueError(
                    "a Region has a side of at least 1 and is at the "
                    f"{', '.join(get_args(Corner))}; got {region}"
                )

    def allow(self, seed: int, mode: str = "easy") -> bool:
        """Return whether the level of this seed satisfies them; cheap ones are asked first.

        Raises:
            ValueError: the seed is no level seed, or the mode not one of maze's.
        """
        if self.maze_dim is not None:
            least, most = self.maze_dim
            if not least <= maze_dim_of(seed, mode) <= most:
                return False
        level = generate_maze(seed, mode)
        if self.cheese_in is not None and not self.cheese_in.holds(level, level.cheese):
            return False
        if self.cheese_out_of is not None and self.cheese_out_of.holds(level, level.cheese):
            return False
        if self.steps is None and self.has_decision_square is None:
            return True
        way = shortest_path(level.grid, level.start, level.cheese)
        if self.steps is not None and not self.steps[0] <= len(way) - 1 <= self.steps[1]:
            return False
        if self.has_decision_square is None:
            return True
        to_corner = shortest_path(level.grid, level.start, level.corner)
        square = path_divergence(way, to_corner).square
        return (square is not None) == self.has_decision_square

    def __str__(self) -> str:
        set_ones = [
            f"{f.name}={v}" for f in fields(self) if (v := getattr(self, f.name)) is not None
        ]
        return ", ".join(set_ones) or "no constraints"


NO_CONSTRAINTS = Constraints()


def sample_levels(
    within: Levels,
    count: int,
    *,
    seed: int,
    constraints: Constraints = NO_CONSTRAINTS,
    mode: str = "easy",
    most_tried: int = MOST_TRIED,
) -> list[int]:
    """Return distinct random level seeds of a range that satisfy constraints.

    The same arguments give the same levels; with a larger `count`, the same and more. Sets that
    are sampled within ranges that do not overlap are disjoint, whatever the constraints: see
    `Levels.split`. (Their seeds are; small mazes come up under several seeds.)

    Args:
        within: the range, such as `FITTING`.
        count: how many.
        seed: of the order in which levels are tried, which is that of `within.sample`.
        constraints: what each level satisfies.
        mode: distribution mode.
        most_tried: levels after which the search is given up (each takes up to half a
            millisecond).

    Raises:
        ValueError: not that many are found, with how many were tried; or the constraints cannot be
            satisfied in this mode.
    """
    check_mode("maze", mode)
    if not is_whole(count) or count < 0:
        raise ValueError(f"{count!r} levels asked for")
    if constraints.maze_dim is not None:
        least, most = constraints.maze_dim
        sizes = range(3, WORLD_SIZE[mode] + 1, 2)
        if not any(least <= size <= most for size in sizes):
            raise ValueError(
                f"mazes of mode {mode} have a side of {', '.join(map(str, sizes))}; "
                f"none is from {least} to {most}"
            )
    found: list[int] = []
    tried = 0
    for level in within.shuffled(seed):
        if len(found) == count or tried == most_tried:
            break
        tried += 1
        if constraints.allow(level, mode):
            found.append(level)
    if len(found) < count:
        raise ValueError(
            f"found {len(found)} of the {count} levels asked for among the {tried} tried of "
            f"{within.count} ({within}, mode {mode}), with {constraints}"
        )
    return found
