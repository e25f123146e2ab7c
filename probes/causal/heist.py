"""Concepts of heists (easy mode). What is right is the first step of a shortest way to the gem.

The way takes up keys as it goes (`rlbilinear.envs.routes.key_route`). In a drawn state some of the
way has been gone: the keys on it are held, its locks are gone. The agent is anywhere it can get to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain, islice

import numpy as np

from rlbilinear.envs.games import NUM_ACTIONS
from rlbilinear.envs.grid import UNREACHABLE, Cell, cells_of
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_things import Colour, Item
from rlbilinear.envs.moves import STEP_OF_MOVE, Move
from rlbilinear.envs.render import cell_centre, observe
from rlbilinear.envs.routes import key_route
from rlbilinear.envs.solver import distances
from rlbilinear.envs.state import WALL
from rlbilinear.probes.causal.concepts import CausalConcept
from rlbilinear.probes.causal.world import World, presence, shuffled

DIAGONAL = 5
"""A behaviour beside the five of `Move`: unlike in mazes, a diagonal action moves diagonally."""
BEHAVIOURS = np.array(
    [DIAGONAL, Move.LEFT, DIAGONAL, Move.DOWN, Move.STAY, Move.UP, DIAGONAL, Move.RIGHT, DIAGONAL]
    + [Move.STAY] * (NUM_ACTIONS - 9)
)

TRIED = 8
"""Counterparts of a state looked at before another state is drawn."""

_MOVES = {step: move for move, step in STEP_OF_MOVE.items()}


@lru_cache(maxsize=4096)
def level_of(level: int) -> Heist:
    """Return a level as the simulator generates it."""
    return Heist.from_seed(level)


def sample(level: int, rng: np.random.Generator) -> Heist:
    """Draw a state of a level; it is as likely with one number of keys held as with another."""
    return _sampled(level, rng, None)


def sample_before(colour: Colour, level: int, rng: np.random.Generator) -> Heist:
    """Draw a state in which the key of a colour still lies there, if the level has it."""
    return _sampled(level, rng, colour)


def _sampled(level: int, rng: np.random.Generator, before: Colour | None) -> Heist:
    heist = level_of(level)
    way, lying = key_route(heist), {cell: colour for colour, cell in heist.keys}
    gone = [0]  # how far it has gone: nowhere, or to a key
    for index, cell in enumerate(way):
        if cell in lying:
            colour = lying.pop(cell)
            if colour == before:
                break
            gone.append(index + 1)
    passed = {*way[: gone[rng.integers(len(gone))]]}
    for colour, cell in heist.keys:
        if cell in passed:
            heist = heist.with_keys(colour).with_held_key(colour)
    for colour, cell in heist.locks:
        if cell in passed:
            heist = heist.with_locks(colour)
    cells = _walkable(heist)
    return heist.with_agent(cells[rng.integers(len(cells))]) if cells else heist


def right_move(heist: Heist) -> int | None:
    """Return the `Move` that begins the shortest way to the gem; None where there is no way."""
    way = _way(heist)
    if way is None or len(way) < 2:
        return None
    (row, column), (next_row, next_column) = way[:2]
    return int(_MOVES[next_row - row, next_column - column])


def held(heist: Heist) -> int:
    """Return which keys are held: the sum of 1 for blue, 2 for green, 4 for red."""
    return sum(1 << colour for colour in heist.held_keys)


def next_thing(heist: Heist) -> int:
    """Return what is fetched next on the shortest way: 0 the gem, 1 + `Colour` a key."""
    lying = {cell: colour for colour, cell in heist.keys if colour not in heist.held_keys}
    return next((1 + lying[cell] for cell in _way(heist) or () if cell in lying), 0)


def _way(heist: Heist) -> list[Cell] | None:
    try:
        return key_route(heist)
    except ValueError:  # there is none
        return None


def _taken(heist: Heist) -> set[Cell]:
    """Return where something is."""
    things = [each.cell for each in (*heist.keys, *heist.locks)]
    return {heist.agent, *heist.gem, *things}


def _walkable(heist: Heist) -> list[Cell]:
    """Return the empty cells that the agent can get to as it is."""
    steps, there = distances(heist.walls(), heist.agent), _taken(heist)
    return [cell for cell in cells_of(steps != UNREACHABLE) if cell not in there]


def _empty(heist: Heist) -> list[Cell]:
    there = _taken(heist)
    return [cell for cell in cells_of(heist.grid != WALL) if cell not in there]


def _first(
    choices: Iterable[Heist], base: Heist, differs: Callable[[Heist], object] = right_move
) -> Heist | None:
    """Return the first of some in which another step is right, and another value true."""
    step, value = right_move(base), differs(base)
    for other in islice(choices, TRIED):
        if right_move(other) not in (None, step) and differs(other) != value:
            return other
    return None


def _gems(heist: Heist, rng: np.random.Generator) -> Iterator[Heist]:
    return (heist.with_gem(cell) for cell in shuffled(_empty(heist), rng))


def _move_gem(heist: Heist, rng: np.random.Generator) -> Heist | None:
    return _first(_gems(heist, rng), heist)


def _of(items: Sequence[Item], colour: Colour) -> list[Cell]:
    return [each.cell for each in items if each.colour == colour]


def _move_key(colour: Colour, heist: Heist, rng: np.random.Generator) -> Heist | None:
    if not _of(heist.keys, colour):
        return None
    cells = shuffled(_empty(heist), rng)
    return _first((heist.with_keys(colour, cell) for cell in cells), heist)


def _move_lock(colour: Colour, heist: Heist, rng: np.random.Generator) -> Heist | None:
    if not _of(heist.locks, colour):
        return None
    cells = shuffled(_empty(heist), rng)
    return _first((heist.with_locks(colour, cell) for cell in cells), heist)


def _toggle_held(heist: Heist, rng: np.random.Generator) -> list[Heist]:
    colours = [Colour(index) for index in range(len(heist.has_keys))]
    return [
        heist.with_held_key(colour, colour not in heist.held_keys)
        for colour in shuffled(colours, rng)
    ]


def _change_held(heist: Heist, rng: np.random.Generator) -> Heist | None:
    return _first(_toggle_held(heist, rng), heist)


def _change_next(heist: Heist, rng: np.random.Generator) -> Heist | None:
    """Change what is to be fetched, by the keys held or by where the gem is."""
    ways = shuffled([_toggle_held(heist, rng), _gems(heist, rng)], rng)
    return _first(chain.from_iterable(ways), heist, next_thing)


def _without_gem(heist: Heist) -> Heist:
    """Take the gem away: then there is nothing to go for."""
    return heist.with_gem()


def _key(colour: Colour) -> CausalConcept[Heist]:
    return CausalConcept(
        f"{colour.name.lower()} key",
        "map",
        lambda heist: presence(heist.grid.shape, _of(heist.keys, colour)),
        partial(_move_key, colour),
        right_move,
        lambda heist: cell_centre(_of(heist.keys, colour)[0], heist, pixels=1),
        lambda heist: heist.with_keys(colour),
    )


def _lock(colour: Colour) -> CausalConcept[Heist]:
    return CausalConcept(
        f"{colour.name.lower()} lock",
        "map",
        lambda heist: presence(heist.grid.shape, _of(heist.locks, colour)),
        partial(_move_lock, colour),
        right_move,
        lambda heist: cell_centre(_of(heist.locks, colour)[0], heist, pixels=1),
        lambda heist: heist.with_locks(colour),
    )


_CONCEPTS: tuple[CausalConcept[Heist], ...] = (
    CausalConcept(
        "gem",
        "map",
        lambda heist: presence(heist.grid.shape, heist.gem),
        _move_gem,
        right_move,
        lambda heist: cell_centre(heist.gem[0], heist, pixels=1),
        _without_gem,
    ),
    *map(_key, Colour),
    *map(_lock, Colour),
    CausalConcept("keys held", "class", held, _change_held, right_move),
    CausalConcept(
        "next thing", "class", next_thing, _change_next, right_move, without=_without_gem
    ),
)


HEIST = World(
    "heist",
    sample,
    observe,
    BEHAVIOURS,
    {each.name: each for each in _CONCEPTS},
    samples={
        f"{colour.name.lower()} {what}": partial(sample_before, colour)
        for colour in Colour
        for what in ("key", "lock")
    },
)
