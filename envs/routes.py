"""Ways through a heist, on which keys are taken up and locks opened."""

from __future__ import annotations

from collections.abc import Iterable

from rlbilinear.envs.grid import Cell, cells_of, check_free
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_things import Colour, Item
from rlbilinear.envs.state import WALL

_Place = tuple[Cell, frozenset[Colour]]
"""Where the agent is, and the keys it holds by then."""


def key_route(heist: Heist, goal: Cell | None = None) -> list[Cell]:
    """Return a shortest way from the agent, taking up keys and opening locks as it goes.

    Shortest in cells, each next to the one before; the agent's own steps are continuous.

    Args:
        heist: the situation.
        goal: where to; None is the gem, the nearest of several.

    Returns:
        The cells, both ends included; a cell comes twice when the way leads back from a key.

    Raises:
        ValueError: there is no way, no gem, or the goal is outside or a wall.
    """
    if not isinstance(heist, Heist):
        raise TypeError(f"expected a Heist, got {type(heist).__name__}")
    cells = heist.gem if goal is None else (goal,)
    if not cells:
        raise ValueError("the heist has no gem; say where to go")
    for cell in cells:
        check_free(heist.grid, cell)
    goals = set(cells)
    keys, locks = _colours(heist.keys), _colours(heist.locks)
    floor = set(cells_of(heist.grid != WALL))
    start = (heist.agent, frozenset(heist.held_keys) | keys.get(heist.agent, set()))
    before: dict[_Place, _Place | None] = {start: None}
    reached = [start]  # breadth first over cells and keys held
    for here in reached:
        (row, column), held = here
        if here[0] in goals:
            return _back(here, before)
        for cell in (
            Cell(row, column - 1),
            Cell(row - 1, column),
            Cell(row + 1, column),
            Cell(row, column + 1),
        ):
            if cell in floor and locks.get(cell, set()) <= held:
                there = (cell, held | keys.get(cell, set()))
                if there not in before:
                    before[there] = here
                    reached.append(there)
    raise ValueError(f"there is no way from {heist.agent} to {sorted(goals)}")


def _back(end: _Place, before: dict[_Place, _Place | None]) -> list[Cell]:
    path: list[Cell] = []
    step: _Place | None = end
    while step is not None:
        path.append(step[0])
        step = before[step]
    return path[::-1]


def _colours(items: Iterable[Item]) -> dict[Cell, set[Colour]]:
    colours: dict[Cell, set[Colour]] = {}
    for colour, cell in items:
        colours.setdefault(cell, set()).add(colour)
    return colours
