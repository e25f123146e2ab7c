"""Maze levels from their seeds without the simulator, and ranges of levels kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, combinations, islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from rlbilinear.envs.games import BACKGROUNDS, NUM_LEVELS, check_level_seed, is_whole
from rlbilinear.envs.grid import Cell
from rlbilinear.envs.state import CHEESE, SPACE, WALL


@dataclass(frozen=True, order=True)
class Levels:
    """The level seeds start, start + 1, ..., start + count - 1.

    Raises:
        ValueError: not all of them are level seeds (0..2**31 - 2), or there are none.
    """

    start: int
    count: int

    def __post_init__(self) -> None:
        whole = is_whole(self.start) and is_whole(self.count)
        if whole:  # numpy's integers would overflow
            object.__setattr__(self, "start", int(self.start))
            object.__setattr__(self, "count", int(self.count))
        if not (whole and self.start >= 0 and self.count > 0 and self.stop <= NUM_LEVELS):
            raise ValueError(
                f"levels are a range within 0..{NUM_LEVELS - 1}, "
                f"got start {self.start!r}, count {self.count!r}"
            )

    @property
    def stop(self) -> int:
        """The first seed after the range."""
        return self.start + self.count

    def first(self, number: int) -> list[int]:
        """Return the first seeds.

        Raises:
            ValueError: there are not that many.
        """
        self._check(number)
        return list(range(self.start, self.start + number))

    def sample(self, number: int, seed: int) -> list[int]:
        """Return distinct random seeds of the range, the same for the same `seed`.

        Raises:
            ValueError: there are not that many, or `seed` is not an integer from 0 on.
        """
        self._check(number)
        return list(islice(self.shuffled(seed), number))

    def shuffled(self, seed: int) -> Iterator[int]:
        """Yield each seed of the range once, in an order that is the same for the same `seed`.

        Raises:
            ValueError: `seed` is not an integer from 0 on.
        """
        if not is_whole(seed) or seed < 0:
            raise ValueError(f"the seed of an order is an integer from 0 on, got {seed!r}")
        drawn: set[int] = set()
        random = np.random.default_rng(seed)
        while len(drawn) < self.count:
            level = int(random.integers(self.start, self.stop))
            if level not in drawn:
                drawn.add(level)
                yield level

    def split(self, **shares: int) -> dict[str, Levels]:
        """Cut the range into named ranges, one after the other, in proportion to the shares.

        What is sampled in one is never in another: `FITTING.split(fit=3, select=1)`.

        Raises:
            ValueError: there are no shares, or one of them comes to no level.
        """
        total = sum(shares.values())
        if not shares or min(shares.values()) < 1 or total > self.count:
            raise ValueError(
                f"shares are one or more whole numbers that add up to at most {self.count}, "
                f"got {shares}"
            )
        ends = [self.start + self.count * part // total for part in accumulate(shares.values())]
        starts = [self.start, *ends[:-1]]
        return {
            name: Levels(start, end - start)
            for name, start, end in zip(shares, starts, ends, strict=True)
        }

    def overlaps(self, other: Levels) -> bool:
        """Return whether a seed is in both."""
        return self.start < other.stop and other.start < self.stop

    def __contains__(self, seed: int) -> bool:
        return is_whole(seed) and self.start <= seed < self.stop

    def __len__(self) -> int:
        return self.count

    def __str__(self) -> str:
        return f"levels {self.start} to {self.stop - 1}"

    def _check(self, number: int) -> None:
        if not is_whole(number) or not 0 <= number <= self.count:
            raise ValueError(f"{number} of {self.count} {self} asked for")


def check_disjoint(ranges: Iterable[Levels]) -> None:
    """Raise ValueError, naming the two, when a seed is in more than one of the ranges."""
    for one, two in combinations(ranges, 2):
        if one.overlaps(two):
            raise ValueError(f"{one} and {two} overlap")


EVALUATION = Levels(0, 100_000)
"""What agents and edits are scored on."""
FITTING = Levels(100_000, 100_000)
"""What probes are fitted on."""
TRAINING = Levels(200_000, NUM_LEVELS - 200_000)
"""What agents learn from."""

WORLD_SIZE = {"easy": 15, "hard": 25, "memory": 31}


class Level(NamedTuple):
    """A maze level."""

    grid: Int32[np.ndarray, "rows columns"]
    margin: int
    maze_dim: int
    background: int
    cheese: Cell

    @property
    def start(self) -> Cell:
        """Where the mouse is: the maze's bottom left corner."""
        return Cell(self.margin, self.margin)

    @property
    def corner(self) -> Cell:
        """The maze's top right corner, which is always free."""
        last = self.margin + self.maze_dim - 1
        return Cell(last, last)


def maze_dim_of(seed: int, mode: str = "easy") -> int:
    """Return the side of a level's maze, without generating it.

    Raises:
        ValueError: the seed is not in 0..2**31 - 2, or the mode not one of maze's.
    """
    return _begin(seed, mode)[2]


def _begin(seed: int, mode: str) -> tuple[np.random.RandomState, int, int]:
    """Return a level's generator after its first draws, its background and its maze's side."""
    if mode not in WORLD_SIZE:
        raise ValueError(f"maze has no mode {mode!r}; choose one of {', '.join(WORLD_SIZE)}")
    random = np.random.RandomState(check_level_seed(seed))
    # The first is the background's horizontal offset, without effect for square pictures.
    _, background, size = random.randint(0, 2**32, size=3, dtype=np.uint32).tolist()
    sizes = (WORLD_SIZE[mode] - 1) // 2
    return random, background % BACKGROUNDS["maze"], size % sizes * 2 + 3


def generate_maze(seed: int, mode: str = "easy") -> Level:
    """Return the level that ProcGen's maze generates from a seed, bit for bit.

    Kruskal's algorithm in ProcGen's order of draws (mazegen.cpp), from the same Mersenne
    twister: `RandomState(seed)` gives the draws of C++'s `mt19937(seed)`.

    Raises:
        ValueError: the seed is not in 0..2**31 - 2, or the mode not one of maze's.
    """
    random, background, size = _begin(seed, mode)
    world = WORLD_SIZE[mode]
    margin = (world - size) // 2

    # Cells of the maze are x + size * y; rooms have even x and y, walls between them are listed.
    walls = [
        (x - 1 + size * y, x + size * y, x + 1 + size * y)
        for x in range(1, size, 2)
        for y in range(0, size, 2)
    ] + [
        (x + size * (y - 1), x + size * y, x + size * (y + 1))
        for x in range(0, size, 2)
        for y in range(1, size, 2)
    ]
    draws = random.randint(0, 2**32, size=len(walls), dtype=np.uint32).tolist()
    members = {room: [room] for x in range(0, size, 2) for room in range(x, size * size, 2 * size)}
    group = {room: room for room in members}
    free: dict[int, None] = {}  # an ordered set: the cheese is drawn by the order of freeing
    for number in draws:
        one, between, two = walls.pop(number % len(walls))
        if group[one] != group[two]:
            free.update({one: None, between: None, two: None})
            joined = members.pop(group[one])
            members[group[two]] += joined
            group.update(dict.fromkeys(joined, group[two]))
    cells = list(free)
    cheese = 0  # the start
    while cheese == 0:
        cheese = cells[int(random.randint(0, 2**32, dtype=np.uint32)) % len(cells)]

    maze = np.full(size * size, WALL, "<i4")
    maze[cells] = SPACE
    maze[cheese] = CHEESE
    grid = np.full((world, world), WALL, "<i4")
    inside = slice(margin, margin + size)
    grid[inside, inside] = maze.reshape(size, size)
    row, column = divmod(cheese, size)
    return Level(grid, margin, size, background, Cell(margin + row, margin + column))
