"""Levels that satisfy constraints, drawn by a seed from a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from rlbilinear.envs.games import check_mode, is_whole
from rlbilinear.envs.levels import WORLD_SIZE, Level, Levels, generate_maze, maze_dim_of
from rlbilinear.envs.places import Place, Region, cells_in, check_place, holds
from rlbilinear.envs.solver import path_divergence, shortest_path
from rlbilinear.envs.topology import dead_ends

MOST_TRIED = 100_000


@dataclass(frozen=True)
class Constraints:
    """What a level has to satisfy; None asks for nothing.

    Attributes:
        maze_dim: least and most side of the maze.
        steps: least and most steps from the mouse to the cheese.
        cheese_in: where the cheese is.
        cheese_out_of: where it is not.
        has_decision_square: whether the ways to the cheese and to the top right corner part.
        dead_end_in: where a dead end is: a cell with one way to it, other than the mouse's start.
        cheese_in_dead_end: whether the cheese is in a dead end.

    Raises:
        ValueError: says what cannot be satisfied.
    """

    maze_dim: tuple[int, int] | None = None
    steps: tuple[int, int] | None = None
    cheese_in: Place | None = None
    cheese_out_of: Place | None = None
    has_decision_square: bool | None = None
    dead_end_in: Place | None = None
    cheese_in_dead_end: bool | None = None

    def __post_init__(self) -> None:
        for name, limits in (("maze_dim", self.maze_dim), ("steps", self.steps)):
            if limits is not None and not (
                isinstance(limits, Sequence)
                and len(limits) == 2
                and all(map(is_whole, limits))
                and limits[0] <= limits[1]
            ):
                raise ValueError(f"{name} is the least and the most, got {limits!r}")
        for name in ("has_decision_square", "cheese_in_dead_end"):
            if getattr(self, name) not in (None, True, False):
                raise ValueError(f"{name} is True, False or None, got {getattr(self, name)!r}")
        for name in ("cheese_in", "cheese_out_of", "dead_end_in"):
            place = getattr(self, name)
            if place is not None:
                check_place(name, place)

    def allow(self, seed: int, mode: str = "easy") -> bool:
        """Return whether the level of this seed satisfies them; cheap ones are asked first.

        Raises:
            ValueError: the seed is not a level seed, or the mode not one of maze's.
        """
        if self.maze_dim is not None:
            least, most = self.maze_dim
            if not least <= maze_dim_of(seed, mode) <= most:
                return False
        level = generate_maze(seed, mode)
        if self.cheese_in is not None and not holds(self.cheese_in, level, level.cheese):
            return False
        if self.cheese_out_of is not None and holds(self.cheese_out_of, level, level.cheese):
            return False
        return self._allow_dead_ends(level) and self._allow_ways(level)

    def _allow_dead_ends(self, level: Level) -> bool:
        if self.dead_end_in is None and self.cheese_in_dead_end is None:
            return True
        ends = [cell for cell in dead_ends(level.grid) if cell != level.start]
        if self.dead_end_in is not None and not any(
            holds(self.dead_end_in, level, cell) for cell in ends
        ):
            return False
        return self.cheese_in_dead_end in (None, level.cheese in ends)

    def _allow_ways(self, level: Level) -> bool:
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
        seed: seed of the order in which levels are tried, which is that of `within.sample`.
        constraints: what each level satisfies.
        mode: distribution mode.
        most_tried: levels after which the search is given up (each takes up to half a
            millisecond).

    Raises:
        ValueError: not that many are found, with how many were tried; or the constraints cannot be
            satisfied in this mode.
    """
    check_mode("maze", mode)
    if not isinstance(within, Levels):
        raise TypeError(f"expected Levels, such as FITTING, got {type(within).__name__}")
    if not is_whole(count) or count < 0:
        raise ValueError(f"{count!r} levels asked for")
    if not is_whole(most_tried) or most_tried < 0:
        raise ValueError(f"most_tried must be an integer from 0 on, got {most_tried!r}")
    if constraints.maze_dim is not None:
        least, most = constraints.maze_dim
        sizes = range(3, WORLD_SIZE[mode] + 1, 2)
        if not any(least <= size <= most for size in sizes):
            raise ValueError(
                f"mazes of mode {mode} have a side of {', '.join(map(str, sizes))}; "
                f"none is from {least} to {most}"
            )
    size = WORLD_SIZE[mode]
    for name in ("cheese_in", "dead_end_in"):
        place = getattr(constraints, name)
        if place is None or isinstance(place, Region):
            continue
        if outside := [cell for cell in cells_in(place) if max(cell) >= size]:
            raise ValueError(
                f"{name}: {outside[0]} is outside of the {size}x{size} world of mode {mode}"
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
