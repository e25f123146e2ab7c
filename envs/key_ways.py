"""Ways to the gem of a heist from every cell, with every set of keys held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from rlbilinear.envs.grid import UNREACHABLE, Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_things import Item
from rlbilinear.envs.moves import STEP_OF_MOVE, Move
from rlbilinear.envs.state import WALL


class KeyWays(NamedTuple):
    """The shortest ways to the gem, on which keys are taken up and locks opened.

    A set of keys held is a number: 1 for blue, 2 for green, 4 for red, added up.
    """

    steps: Int32[np.ndarray, "held rows columns"]
    """Cells to go, -1 where there is no way. A key that lies on the cell counts as held: the way to
    it is shorter than a cell."""
    moves: Bool[np.ndarray, "held rows columns moves"]
    """Which of left, down, up and right (`Move`) begins a shortest way. None does where there is no
    way, on the gem, and on a key that is needed and not yet held."""


def key_ways(heist: Heist) -> KeyWays:
    """Return the ways to the gem from each cell, with each set of the keys that the level knows.

    Where the agent is and what it holds does not matter, so one search serves a whole episode: a
    key of a colour that is held is of no use. `key_route` finds one way, from the agent.

    Raises:
        ValueError: the heist has no gem.
    """
    if not heist.gem:
        raise ValueError("the heist has no gem")
    sets, size = 1 << len(heist.has_keys), heist.size
    width = size + 2
    padded = np.zeros((width, width), np.bool_)  # flat lists with a border of walls are fastest
    np.not_equal(heist.grid, WALL, out=padded[1:-1, 1:-1])
    keys, locks = _colours(heist.keys, width), _colours(heist.locks, width)
    gems = {_flat(cell, width) for cell in heist.gem}
    steps = np.full((sets, width, width), UNREACHABLE, np.int32)
    opened = np.zeros((sets, width, width), np.bool_)
    found: list[list[int]] = [[]] * sets
    for held in reversed(range(sets)):  # more keys first: taking one up leads there
        unseen = bytearray(padded)
        for cell, colours in locks.items():
            unseen[cell] = unseen[cell] and not colours & ~held
        opened[held] = np.frombuffer(bytes(unseen), np.bool_).reshape(width, width)
        known = [(0, cell) for cell in gems if unseen[cell]]
        for cell, colours in keys.items():
            if colours & ~held and unseen[cell] and cell not in gems:
                unseen[cell] = 0  # nobody comes by without taking the key
                if (there := found[held | colours][cell]) != UNREACHABLE:
                    known.append((there, cell))
        found[held] = _spread(sorted(known), unseen, width)
        steps[held] = np.reshape(found[held], (width, width))
    inner = (slice(None), slice(1, -1), slice(1, -1))
    moves = np.zeros((sets, size, size, 4), np.bool_)
    for move in (Move.LEFT, Move.DOWN, Move.UP, Move.RIGHT):
        back = tuple(-by for by in STEP_OF_MOVE[move])
        there = np.roll(steps, back, (1, 2))[inner]
        free = np.roll(opened, back, (1, 2))[inner]
        moves[..., move] = free & (there != UNREACHABLE) & (there == steps[inner] - 1)
    return KeyWays(steps[inner].copy(), moves)


def _colours(items: Iterable[Item], width: int) -> dict[int, int]:
    """Return the colours that lie on a cell, added up as sets of keys are."""
    colours: dict[int, int] = {}
    for colour, cell in items:
        place = _flat(cell, width)
        colours[place] = colours.get(place, 0) | 1 << colour
    return colours


def _flat(cell: Cell, width: int) -> int:
    return (cell.row + 1) * width + cell.column + 1


def _spread(known: list[tuple[int, int]], unseen: bytearray, width: int) -> list[int]:
    """Return the steps of every cell to the nearest of some whose own steps are known.

    Args:
        known: steps and cell, in order.
        unseen: cells that can be walked on; they are unset.
        width: from a row to the next.
    """
    steps = [UNREACHABLE] * len(unseen)
    for step, cell in known:
        unseen[cell], steps[cell] = 0, step
    reached: list[int] = []
    for cell in _nearest_first(known, reached, steps):
        for neighbour in (cell - 1, cell - width, cell + width, cell + 1):
            if unseen[neighbour]:
                unseen[neighbour], steps[neighbour] = 0, steps[cell] + 1
                reached.append(neighbour)
    return steps


def _nearest_first(
    known: list[tuple[int, int]], reached: list[int], steps: list[int]
) -> Iterator[int]:
    """Yield the known cells and those that are reached meanwhile, in the order of their steps."""
    place = 0
    for step, cell in known:
        while place < len(reached) and steps[reached[place]] < step:
            yield reached[place]
            place += 1
        yield cell
    while place < len(reached):
        yield reached[place]
        place += 1
