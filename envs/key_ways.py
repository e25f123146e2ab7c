"""Ways to the gem of a heist from every cell, with every set of keys held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from rlbilinear.envs.grid import UNREACHABLE, Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_things import GEM, KEY, LOCK, things
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

    def way(self, heist: Heist) -> list[Cell]:
        """Return the cells of a shortest way from the agent, both ends included, as `key_route`.

        Args:
            heist: the one that the ways are of, or a later state of it.

        Raises:
            ValueError: there is no way.
        """
        held = sum(1 << colour for colour in heist.held_keys)
        keys, way = heist.keys, [heist.agent]
        if self.steps[held][heist.agent] == UNREACHABLE:
            raise ValueError(f"there is no way from {heist.agent}")
        while True:
            here = way[-1]
            for colour, cell in keys:
                held |= (cell == here) << colour
            if self.steps[held][here] == 0:
                return way
            row, column = STEP_OF_MOVE[Move(int(self.moves[held][here].argmax()))]
            way.append(Cell(here.row + row, here.column + column))


def key_ways(heist: Heist) -> KeyWays:
    """Return the ways to the gem from each cell, with each set of the keys that the level knows.

    Where the agent is and what it holds does not matter, so one search serves a whole episode: a
    key of a colour that is held is of no use. `key_route` finds one way, from the agent.

    Raises:
        ValueError: the heist has no gem.
    """
    size, width = heist.size, heist.size + 2
    keys, locks, gems = _by_place(heist, width)
    if not gems:
        raise ValueError("the heist has no gem")
    padded = np.zeros((width, width), np.bool_)  # flat lists with a border of walls are fastest
    np.not_equal(heist.grid, WALL, out=padded[1:-1, 1:-1])
    sets = 1 << len(heist.has_keys)
    opened = bytearray()
    found: list[list[int]] = [[]] * sets
    for held in reversed(range(sets)):  # more keys first: taking one up leads there
        unseen = bytearray(padded)
        for place, colours in locks.items():
            unseen[place] = unseen[place] and not colours & ~held
        opened[:0] = unseen  # where one can be; before those with more keys
        known = [(0, place) for place in gems if unseen[place]]
        for place, colours in keys.items():
            if colours & ~held and unseen[place] and place not in gems:
                unseen[place] = 0  # nobody comes by without taking the key
                if (there := found[held | colours][place]) != UNREACHABLE:
                    known.append((there, place))
        found[held] = _spread(sorted(known), unseen, width)
    steps = np.array(found, np.int32).reshape(sets, width, width)
    free = np.frombuffer(opened, np.bool_).reshape(steps.shape)
    inside = steps[:, 1:-1, 1:-1]
    moves = np.empty((sets, size, size, 4), np.bool_)
    for move in (Move.LEFT, Move.DOWN, Move.UP, Move.RIGHT):
        row, column = STEP_OF_MOVE[move]
        beside = np.s_[:, 1 + row : 1 + row + size, 1 + column : 1 + column + size]
        moves[..., move] = free[beside] & (steps[beside] == inside - 1) & (inside > 0)
    return KeyWays(inside, moves)


def _by_place(heist: Heist, width: int) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Return keys, locks and gems by their place in a flat list: their colours, as sets are."""
    found: dict[int, dict[int, int]] = {KEY: {}, LOCK: {}, GEM: {}}
    for kind, colour, cell in things(heist.entities):
        if kind in found:
            place = (cell.row + 1) * width + cell.column + 1
            found[kind][place] = found[kind].get(place, 0) | 1 << colour
    return found[KEY], found[LOCK], found[GEM]


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
