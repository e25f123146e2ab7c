"""The things of a heist among a state's entities: agent, gem, keys, locks and icons."""

from __future__ import annotations

import functools
import struct
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from rlbilinear.envs.games import BACKGROUNDS
from rlbilinear.envs.grid import Cell
from rlbilinear.envs.level_states import level_state
from rlbilinear.envs.state import PLAYER, SPACE, WALL, State, parse
from rlbilinear.envs.tails import HeistTail

LOCK, KEY, GEM, ICON = 1, 2, 9, 11
"""Types of entities, beside the agent; an icon shows a held key in the picture's corner."""

MOTION_FORMAT = struct.Struct("<4f")
"""An entity's first fields: x, y, vx, vy."""

_PICTURES = {PLAYER: 0, LOCK: 1, KEY: 2, GEM: 9, ICON: 2}
"""What each is drawn as."""
_THING_FORMAT = struct.Struct("<2f16xi4xi88x")
"""An entity's x, y, type and image_theme, among its 124 bytes."""
_ALL_KEYS_LEVEL = 2
"""A level with keys, locks and icons of all colours, to make others like them."""


class Colour(IntEnum):
    """What lock a key opens; the number is the simulator's theme."""

    BLUE = 0
    GREEN = 1
    RED = 2


class Item(NamedTuple):
    """A key or a lock."""

    colour: Colour
    cell: Cell


class Thing(NamedTuple):
    """An entity: its type, its theme, and the cell that its middle is in."""

    kind: int
    theme: int
    cell: Cell


def things(entities: np.ndarray) -> list[Thing]:
    """Return what the entities are and where, many times faster than field by field."""
    return [
        Thing(kind, theme, Cell(int(y), int(x)))
        for x, y, kind, theme in _THING_FORMAT.iter_unpack(entities.tobytes())
    ]


@functools.cache
def pattern(kind: int, theme: int) -> bytes:
    """Return an entity like the simulator's own of this kind and theme."""
    entities = parse(level_state("heist", _ALL_KEYS_LEVEL)).entities
    place = [thing[:2] for thing in things(entities)].index((kind, theme))
    return entities[place : place + 1].tobytes()


def check_heist(state: State) -> HeistTail:
    """Return the heist's own fields of a state that can be read as a `Heist`, and drawn.

    This is not all that the simulator needs to play it: see `rlbilinear.envs.state_checks`.

    Raises:
        ValueError: the state is of another game, or says what is wrong with the heist.
    """
    tail = state.tail
    if not isinstance(tail, HeistTail):
        raise ValueError(f"a state of {state.game}, not of heist")
    size, known = tail.world_dim, len(tail.has_keys)
    if state.grid.shape != (size, size):
        raise ValueError(f"a grid of {state.grid.shape} in a world of {size}")
    if not ((state.grid == WALL) | (state.grid == SPACE)).all():
        raise ValueError("a cell that is not wall or space")
    if state.options.distribution_mode not in (0, 1, 10):
        raise ValueError(f"distribution mode {state.options.distribution_mode}")
    if known > len(Colour):
        raise ValueError(f"keys of {known} colours; there are {len(Colour)}")
    if not 0 <= state.view.background_index < BACKGROUNDS["heist"]:
        raise ValueError(f"background {state.view.background_index}")
    at = state.entities.view("<f4").reshape(len(state.entities), -1)[:, :2]
    if not ((at >= 0) & (at < size)).all():  # NaN is refused, too
        raise ValueError(f"something outside of the {size}x{size} world")
    there = things(state.entities)
    if [thing.kind for thing in there].count(PLAYER) != 1:
        raise ValueError("a heist has one agent")
    for (kind, theme, _), picture in zip(there, state.entities["image_type"].tolist(), strict=True):
        if kind not in _PICTURES:
            raise ValueError(f"an entity of type {kind} that is not agent, lock, key, gem or icon")
        if kind in (LOCK, KEY, ICON) and not 0 <= theme < known:
            raise ValueError(f"a key or lock of colour {theme}; the level has {known} colours")
        if picture != _PICTURES[kind] or (kind in (PLAYER, GEM) and theme != 0):
            raise ValueError(f"an entity of type {kind} with variant {theme} of picture {picture}")
    return tail
