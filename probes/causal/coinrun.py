"""Concepts of coinrun (easy mode), on states field by field.

No solver says what is right there: what the policy itself does in the counterpart is what should
follow. The picture shows 13 cells around the player. In a drawn state the player stands on any
ground of a level, at rest, and the coin is on any empty cell in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from rlbilinear.envs.games import NUM_ACTIONS
from rlbilinear.envs.grid import Cell, cells_of
from rlbilinear.envs.render import agent_view, cell_centre, window
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import PLAYER, SPACE, State, parse
from rlbilinear.envs.tails import CoinrunTail
from rlbilinear.probes.causal.concepts import CausalConcept
from rlbilinear.probes.causal.data import Images
from rlbilinear.probes.causal.world import World, pick

COIN, GROUND = 1, (15, 16)
"""Codes in the grid."""
SHOWN = 13
"""Cells a side of what the picture shows."""
BEHAVIOURS = np.array([*range(9)] + [4] * (NUM_ACTIONS - 9))
"""The nine directions; the other actions do what the middle one does: nothing."""


@lru_cache(maxsize=1024)
def level_of(level: int) -> State:
    """Return the state in which the simulator begins a level."""
    simulator = Simulator("coinrun", num_levels=1, start_level=level, num_threads=0)
    (raw,) = simulator.get_states()
    simulator.close()
    return parse(raw)


def sample(level: int, rng: np.random.Generator) -> State:
    """Draw a state of a level."""
    state = level_of(level)
    free = state.grid == SPACE
    free[1:] &= np.isin(state.grid[:-1], GROUND)
    free[0] = False
    things = _things(state)
    stand = pick([cell for cell in cells_of(free) if cell not in things], rng)
    assert stand is not None  # a level has ground
    entities = state.entities.copy()
    player = entities[_player(state)]
    height = float(player["y"]) % 1  # as it stands at the level's beginning
    entities["x"][_player(state)] = stand.column + 0.5
    entities["y"][_player(state)] = stand.row + height
    tail = _tail(state)._replace(last_agent_y=float(entities["y"][_player(state)]))
    moved = state._replace(entities=entities, tail=tail)
    cell = pick(_in_view(moved), rng)
    assert cell is not None  # the cell above the player, at least
    return _with_facing(_with_coin(moved, cell), int(rng.integers(2)))


def observe(states: Sequence[State]) -> Images:
    """Draw the states, channels first."""
    return np.stack([agent_view(state.to_bytes()).transpose(2, 0, 1) for state in states])


def coin(state: State) -> tuple[Cell, ...]:
    """Return where the coins are."""
    return cells_of(state.grid == COIN)


def facing(state: State) -> int:
    """Return 1 when the player faces right, else 0."""
    return _tail(state).facing_right


def _tail(state: State) -> CoinrunTail:
    assert isinstance(state.tail, CoinrunTail)
    return state.tail


def _things(state: State) -> set[Cell]:
    """Return the cells in which the middle of the player or another thing is."""
    return {Cell(int(y), int(x)) for x, y in state.entities[["x", "y"]].tolist()}


def _player(state: State) -> int:
    return int(np.flatnonzero(state.entities["type"] == PLAYER)[0])


def _place(state: State) -> tuple[float, float]:
    return cell_centre(coin(state)[0], window(state), pixels=1)


def _map(state: State) -> Float[np.ndarray, "rows columns"]:
    label = np.zeros((SHOWN, SHOWN), np.float32)
    for cell in coin(state):
        y, x = cell_centre(cell, window(state), pixels=1)
        if 0 <= y < 1 and 0 <= x < 1:
            label[int(y * SHOWN), int(x * SHOWN)] = 1
    return label


def _in_view(state: State) -> list[Cell]:
    """Return the empty cells that the picture shows whole, without any thing in them."""
    shown, things = window(state), _things(state)
    return [
        cell
        for cell in cells_of(state.grid == SPACE)
        if shown.left <= cell.column <= shown.left + shown.side - 1
        and shown.bottom <= cell.row <= shown.bottom + shown.side - 1
        and cell not in things
    ]


def _with_coin(state: State, *cells: Cell) -> State:
    grid = np.where(state.grid == COIN, SPACE, state.grid).astype("<i4")
    for cell in cells:
        grid[cell] = COIN
    return state._replace(grid=grid)


def _with_facing(state: State, right: int) -> State:
    entities = state.entities.copy()
    entities["is_reflected"][_player(state)] = 1 - right
    return state._replace(entities=entities, tail=_tail(state)._replace(facing_right=right))


def _move_coin(state: State, rng: np.random.Generator) -> State | None:
    cell = pick(_in_view(state), rng)
    return None if cell is None else _with_coin(state, cell)


def _turn(state: State, _: np.random.Generator) -> State:
    return _with_facing(state, 1 - facing(state))


_CONCEPTS: tuple[CausalConcept[State], ...] = (
    CausalConcept("coin", "map", _map, _move_coin, place=_place, without=_with_coin),
    CausalConcept("facing", "class", facing, _turn),
)

COINRUN = World(
    "coinrun",
    sample,
    observe,
    BEHAVIOURS,
    {each.name: each for each in _CONCEPTS},
    left_out={
        "speed": "the picture does not show it (paint_vel_info is off), so no policy can know it",
        "standing or not": "it goes with where the player is: in the air, the ground is elsewhere",
        "enemies, saws and crates": "they stand and walk on ground of their own; elsewhere they "
        "would be in the air, which no level has",
        "the right move": "no solver of the platforms is at hand",
    },
)
