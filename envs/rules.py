"""Rules of single games for their states, beyond the limits of each number.

Each rule is given a state whose numbers are within their limits, and the game's own fields by name
(`envs.tails.read_fields`); it raises ValueError. The numbers stand for the constants of the game's
public source; `rlbilinear.envs.contents` names the types.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import Bool

from rlbilinear.envs.entity import ENTITY
from rlbilinear.envs.state import State

Fields = dict[str, Any]
MAZE_SIDES = {0: 11, 1: 13, 2: 19}
"""Chaser's worlds, by distribution mode."""

_EGG, _ENEMY, _WALL, _SPACE, _ORB = 4, 6, 5, 100, 1002  # of chaser


def refuse(*faults: tuple) -> None:
    """Raise, listing the faults found, each (whether it is one, what it is, what to fill in)."""
    found = [fault[1].format(*fault[2:]) for fault in faults if fault[0]]
    if found:
        raise ValueError(f"the state has {', '.join(found)}: the simulator does not take that")


def _bossfight(state: State, _: Fields) -> None:
    types = state.entities["type"]
    refuse((not (types == 2).any(), "no boss"), (not (types == 3).any(), "no shields"))


def _chaser(state: State, fields: Fields) -> None:
    """Refuse enemies that would stand where there is no way on: the game divides by their number.

    Enemies start from eggs at the centres of cells, and move half or a quarter of a cell a step
    from centre to centre, exactly; at each they choose among the free neighbours, save the one they
    come from. So no cell may be a dead end, and those under way must arrive at a centre.
    """
    grid, side = state.grid, fields["maze_dim"]
    free = grid != _WALL
    cells = fields["free_cells"]
    refuse(
        (grid.shape != (side, side), "a maze of {} in a grid of {}", side, grid.shape),
        (
            not ((grid == _WALL) | (grid == _SPACE) | (grid == _ORB)).all(),
            "a cell that is not wall, space or orb",
        ),
        (
            not np.array_equal(fields["is_space_vec"] > 0, free.ravel()),
            "another list of spaces than its grid's",
        ),
        (
            cells.min() < 0 or cells.max() >= free.size or not free.ravel()[cells].all(),
            "a free cell that is a wall",
        ),
    )
    padded = np.pad(free, 1).astype(np.int8)
    exits = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    refuse(((exits[free] < 2).any(), "a dead end"))
    types = state.entities["type"]
    for thing in state.entities[(types == _EGG) | (types == _ENEMY)].tolist():
        if not _walks(thing, free):
            raise ValueError(
                f"the state has an enemy, or its egg, at x {thing[0]:g}, y {thing[1]:g} that would "
                "leave the corridors: put it in the centre of a free cell, without speed"
            )


_WALKER = itemgetter(
    *map(
        (ENTITY.names or ()).index,
        ("type", "x", "y", "vx", "vy", "smart_step", "friction", "grow_rate", "rx", "ry"),
    )
)


def _walks(thing: tuple, free: Bool[np.ndarray, "rows columns"]) -> bool:
    """Return whether an egg or enemy of chaser is, and stays, in the middle of the corridors."""
    kind, x, y, vx, vy, collides, *shape = _WALKER(thing)
    if vx and vy:
        return False
    if vy:  # as if it moved in x
        free, x, y, vx = free.T, y, x, vy
    size = len(free)
    x, y = x - 0.5, y - 0.5
    if not (0 <= x < size and 0 <= y < size) or y % 1:
        return False
    if not vx:
        return x % 1 == 0 and bool(free[int(y), int(x)])
    goal = int(x + 1) if vx > 0 else math.ceil(x - 1)
    return (
        kind == _ENEMY
        and bool(collides)
        and shape == [1, 1, 0.5, 0.5]
        and abs(vx) in (0.25, 0.5)
        and (goal - x) / vx % 1 == 0
        and 0 <= goal < size
        and bool(free[int(y), goal] and free[int(y), goal + (-1 if vx > 0 else 1)])
    )


def _heist(state: State, fields: Fields) -> None:
    entities, side = state.entities, fields["world_dim"]
    themes = entities["image_theme"][np.isin(entities["type"], (1, 2, 11))]
    rings = len(fields["has_keys"])
    refuse(
        (state.grid.shape != (side, side), "a grid of {} in a world of {}", state.grid.shape, side),
        (
            (themes >= rings).any(),
            "a lock or key of theme {} with keys of {} themes",
            themes.max(initial=0),
            rings,
        ),
    )


def _jumper(state: State, _: Fields) -> None:
    refuse((not (state.entities["type"] == 1).any(), "no goal"))


def _leaper(state: State, _: Fields) -> None:
    players = state.entities[state.entities["type"] == 0]
    refuse(((players["image_type"] != 0).any(), "a player with another picture than a frog's"))


def _plunder(state: State, fields: Fields) -> None:
    lanes = min(len(fields["lane_directions"]), len(fields["lane_vels"]))
    order, targets = fields["image_permutation"], len(fields["target_bools"])
    ships = state.entities["image_theme"][state.entities["type"] == 7]
    num_lanes, kinds = fields["num_lanes"], fields["num_current_ship_types"]
    refuse(
        (num_lanes > lanes, "{} lanes, but directions and speeds of {}", num_lanes, lanes),
        (kinds > len(order), "{} kinds of ships out of {}", kinds, len(order)),
        (
            max(order.max(), ships.max(initial=0)) >= targets,
            "a ship of a kind beyond the {} that may be targets",
            targets,
        ),
    )


def _starpilot(state: State, fields: Fields) -> None:
    for entities in (state.entities, fields["spawners"]):
        fires = entities["type"][entities["fire_time"] > 0]
        refuse(((fires > 8).any(), "a thing of type {} that fires", fires.max(initial=0)))


RULES: dict[str, Callable[[State, Fields], None]] = {
    "bossfight": _bossfight,
    "chaser": _chaser,
    "heist": _heist,
    "jumper": _jumper,
    "leaper": _leaper,
    "plunder": _plunder,
    "starpilot": _starpilot,
}
"""The games that have such rules; maze's are `rlbilinear.envs.state_checks.check_maze`."""
