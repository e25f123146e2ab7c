"""Checks, in Python, of everything in a state for which the simulator would end the process.

On bytes it dislikes the simulator ends the whole process, or never returns. `validate_state`
raises ValueError instead. Limits of numbers are wider than any game's own, so that states may be
edited, and narrow enough that no step takes seconds; `scripts/fuzz_states.py` tries them.

What is looked at depends on what a state is for:

- to be *played*, by an environment: `validate_state` looks at every byte;
- to be *read* as a `Maze` or `Heist`, which happens tens of thousands of times a second:
  `check_maze` and `envs.heist_things.check_heist` look at what such a value names, and no more.
  It can be drawn safely whatever else the bytes say, since it is drawn with the rest of another
  state, and that picture is never played on (`rlbilinear.envs.observation.drawable`).

So a maze that was read may be refused where it would be played. Every maze that can be played can
be read; a heist cannot when a thing in it is outside of the world, where no cell is.
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from rlbilinear.envs.contents import CONTENTS, PICTURES, THEMES, Contents
from rlbilinear.envs.entity import ENTITY
from rlbilinear.envs.games import (
    BACKGROUNDS,
    GAMES,
    MODE_CODES,
    NUM_ACTIONS,
    check_game,
    check_mode,
)
from rlbilinear.envs.rules import MAZE_SIDES, RULES, refuse
from rlbilinear.envs.state import CHEESE, PLAYER, SPACE, WALL, Generator, State, parse
from rlbilinear.envs.tails import FIELDS, MazeTail, read_fields

LARGEST_GRID = 256
_MOST_ENTITIES, _MOST_WALKING = 700, 100
_MOST_BLOCKING = 8
"""How many things that others cannot pass may be within reach of one of these: those in the way
push it back and forth, and the time of a step grows with the fifth power of their number. The most
that the game itself makes is 6, crates in coinrun."""
_MOST_WORK = 3e8
"""Collisions that one step may look for: some seconds. The game's own states come to 1e8."""
_LARGEST_RADIUS = 1000.0
_CHASER_ORB = 1002
_COLOURS = 64
"""Kinds of things that monochrome assets have a colour for."""
_GENERATOR_WORDS, _GENERATOR_BYTES = 625, 624 * 11 + 3

_NAMES = ENTITY.names or ()
ENTITY_LIMITS = {
    **dict.fromkeys(["x", "y"], (-1e3, 1e3)),
    **dict.fromkeys(["rotation", "climber_spawn_x", "theta", "alpha", "health"], (-1e6, 1e6)),
    **dict.fromkeys(["vx", "vy", "collision_margin"], (-1e2, 1e2)),
    "vrot": (-1e3, 1e3),
    **dict.fromkeys(["rx", "ry"], (0, 1e2)),
    **dict.fromkeys(["friction", "alpha_decay"], (0, 1)),
    "grow_rate": (0, 2),
    "image_type": (0, PICTURES - 1),
    "image_theme": (0, THEMES - 1),
    "auto_erase": (1, 2**31 - 1),
}
"""A thing that is not erased when it leaves the world would fly on for ever."""
_SMART_SPEED = 10.0
"""Of things that collide with the grid, which move by quarters of a cell."""


class _Limited(NamedTuple):
    """The limited fields of one type: their columns among an entity's 31, and their limits."""

    kind: str
    columns: list[int]
    low: np.ndarray
    high: np.ndarray


def _limited(kind: str) -> _Limited:
    names = [name for name in _NAMES if name in ENTITY_LIMITS and ENTITY[name] == np.dtype(kind)]
    low, high = np.array([ENTITY_LIMITS[name] for name in names]).T
    return _Limited(kind, [_NAMES.index(name) for name in names], low, high)


_LIMITED = (_limited("<f4"), _limited("<i4"))


class _Tables(NamedTuple):
    """What `rlbilinear.envs.contents` says of one game, as arrays."""

    known: np.ndarray
    """For each type, whether the game has it."""
    themes: np.ndarray
    """For each picture, the number of its variants."""
    repainted: np.ndarray
    """For each type, the number of variants of the picture that the game will give it."""


def _tables(contents: Contents) -> _Tables:
    known = np.zeros(PICTURES, bool)
    known[list(contents.things)] = True
    themes, repainted = np.full((2, PICTURES), THEMES)
    themes[54:60] = 1  # explosions and trails
    for table, numbers in ((themes, contents.themes), (repainted, contents.repainted)):
        table[list(numbers)] = list(numbers.values())
    repainted[54] = 1  # an explosion goes through pictures up to its last
    return _Tables(known, themes, repainted)


_TABLES = {game: _tables(contents) for game, contents in CONTENTS.items()}
_TILED = {"dodgeball": (1,), "fruitbot": (1, 10), "leaper": (5,)}
"""Types that are drawn with as many tiles as they are longer than high."""
_MOST_TILES = 300

_MOUSE_FIELDS = itemgetter(
    *map(_NAMES.index, ("type", "x", "y", "image_type", "image_theme", "grow_rate"))
)


def validate_state(raw: bytes, env_name: str, mode: str | None = None) -> None:
    """Raise ValueError unless the simulator of this game can be put into this state, and play on.

    Args:
        raw: the state.
        env_name: the simulator's game.
        mode: the simulator's distribution mode. Only chaser's limits the states it takes: it keeps
            the maze generator of the mode it was made with, which has no room for larger mazes and
            cuts smaller ones off, so that enemies get into dead ends and the process dies.

    Raises:
        ValueError: says what is malformed, or that the state is of another game.
    """
    check_game(env_name)
    state = parse(raw)
    if state.game != env_name:
        raise ValueError(f"a state of {state.game}, but the environment plays {env_name}")
    _check_common(state)
    for generator in (state.level_generator, state.generator, state.asset_generator):
        _check_generator(generator)
    contents = CONTENTS[env_name]
    fields = read_fields(env_name, state.tail)
    _check_fields(env_name, fields)
    _check_entities(state.entities, state, "entities")
    if isinstance(spawners := fields.get("spawners"), np.ndarray):
        _check_entities(spawners, state, "spawners")
    if (players := int((state.entities["type"] == PLAYER).sum())) != 1:
        raise ValueError(f"the state has {players} of type 0 ({contents.things[PLAYER]}), not one")
    _check_work(state, contents)
    _check_grid(state)
    if env_name in RULES:
        RULES[env_name](state, fields)
    if env_name == "maze":
        check_maze(state)
    if mode is not None:
        check_mode(env_name, mode)
        own, of_state = MODE_CODES[mode], state.options.distribution_mode
        if env_name == "chaser" and of_state != own:
            raise ValueError(
                f"a state of a chaser of {MAZE_SIDES[of_state]} cells a side, but the environment "
                f"was made for {MAZE_SIDES[own]} and would make the levels after it wrong"
            )


def _check_common(state: State) -> None:
    """Check what is common to all games, save entities and cells."""
    options, episode, view, world = state.options, state.episode, state.view, state.world
    low, high = options.level_seed_low, options.level_seed_high
    rows, columns = state.grid.shape
    contents = CONTENTS[state.game]
    mode, background, tile = options.distribution_mode, view.background_index, view.bg_tile_ratio
    size = (world.main_width, world.main_height)
    refuse(
        (
            mode not in [MODE_CODES[name] for name in GAMES[state.game]],
            "distribution mode {}",
            mode,
        ),
        (options.use_generated_assets, "generated assets"),
        (not 0 <= low < high, "the level range {} to {}", low, high),
        (episode.is_waiting_for_step, "a step under way"),
        (
            not 0 <= episode.default_action < NUM_ACTIONS,
            "the default action {}",
            episode.default_action,
        ),
        ((columns, rows) != size, "a {}x{} grid in a {}x{} world", columns, rows, *size),
        (max(rows, columns) > LARGEST_GRID, "a {}x{} grid", columns, rows),
        (
            contents.size and size != (contents.size, contents.size),
            "a {}x{} world, where {} needs {}x{}",
            *size,
            state.game,
            contents.size,
            contents.size,
        ),
        (episode.grid_size != rows * columns, "{} cells in a wrong place", episode.grid_size),
        (
            world.out_of_bounds_object != contents.border,
            "{} outside the world, where {} has {}",
            world.out_of_bounds_object,
            state.game,
            contents.border,
        ),
        (view.use_procgen_background, "a generated background"),
        (not 0 <= background < BACKGROUNDS[state.game], "background {}", background),
        (not all(map(math.isfinite, (*episode, *view, *world))), "a number that is not finite"),
        (not (tile == 0 or 0.05 <= abs(tile) <= 20), "background tiles of {:g}", tile),
        (not 0 <= view.bg_pct_x <= 1, "a background offset of {:g}", view.bg_pct_x),
        (not 0 <= view.last_move_action < 9, "the last move {}", view.last_move_action),
        (not 0 <= view.mixrate <= 1, "a mixing rate of {:g}", view.mixrate),
        (not 0 <= view.maxspeed <= 4, "a top speed of {:g}", view.maxspeed),
        (not 0 <= view.max_jump <= 4, "jumps of {:g}", view.max_jump),
        (not 1 <= world.visibility <= LARGEST_GRID, "a view of {:g} cells", world.visibility),
        (not 0 <= world.min_visibility <= LARGEST_GRID, "a wrong least view"),
        (
            not (state.level_generator.is_seeded and state.generator.is_seeded),
            "an unseeded generator",
        ),
    )


def check_maze(state: State) -> MazeTail:
    """Return the maze's own fields of a state that can be read as a `Maze`, and drawn.

    This is not all that the simulator needs to play it: see the module.

    Raises:
        ValueError: the state is of another game, or says what is wrong with the maze.
    """
    if state.game != "maze":
        raise ValueError(f"a state of {state.game}, not of maze")
    tail = state.tail
    if not isinstance(tail, MazeTail):
        raise ValueError("maze's own fields must be a MazeTail")
    if len(state.entities) != 1:
        raise ValueError(f"a maze state has the mouse alone, not {len(state.entities)} entities")
    size = tail.world_dim
    kind, x, y, *image, grow_rate = _MOUSE_FIELDS(state.entities.item(0))
    mode, background = state.options.distribution_mode, state.view.background_index
    border = state.world.out_of_bounds_object
    refuse(
        (state.grid.shape != (size, size), "a grid of {} in a world of {}", state.grid.shape, size),
        (not 1 <= tail.maze_dim <= size, "a maze of {} in a world of {}", tail.maze_dim, size),
        (not (0 <= x < size and 0 <= y < size), "a mouse outside, at x {:g}, y {:g}", x, y),
        (
            x % 1 != 0.5 or y % 1 != 0.5,  # it moves by cells; a `Maze` knows its cell alone
            "a mouse off the middle of its cell, at x {:g}, y {:g}",
            x,
            y,
        ),
        (kind != PLAYER, "a thing of type {} for the mouse", kind),
        (image != [PLAYER, 0], "a mouse with picture {}", image),
        (grow_rate != 1, "a mouse that grows by {:g}", grow_rate),
        (mode not in (0, 1, 10), "distribution mode {}", mode),
        (border != WALL, "border object {}", border),
        (not 0 <= background < BACKGROUNDS["maze"], "background {}", background),
        (not is_maze_grid(state.grid), "a cell that is not wall, space or cheese"),
    )
    return tail


def is_maze_grid(grid: Int32[np.ndarray, "rows columns"]) -> bool:
    """Return whether every cell is wall, space or cheese.

    The codes fit in a byte: each cell's lowest byte is one of them, and the others are zero (this
    takes a fifth of the time of comparing arrays, and every state read is checked).
    """
    raw = grid.astype("<i4", copy=False).tobytes()
    lowest = raw[::4]
    return not lowest.translate(None, _MAZE_CODES) and raw.count(0) == 3 * len(lowest)


_MAZE_CODES = bytes((WALL, SPACE, CHEESE))


def _check_generator(generator: Generator) -> None:
    text = generator.text
    if (
        len(text) > _GENERATOR_BYTES
        or text.translate(None, b"0123456789 ")
        or text.count(b" ") != _GENERATOR_WORDS - 1
        or b"  " in text
        or not text[:1].isdigit()
        or not text[-1:].isdigit()
    ):
        raise ValueError("the state has a random generator that is not 625 words of text")


def _check_fields(game: str, fields: dict[str, int | float | np.ndarray]) -> None:
    """Check each of the game's own fields against its limits."""
    for field in FIELDS[game]:
        value, low, high = fields[field.name], field.low, field.high
        if isinstance(value, np.ndarray):
            if not field.shortest <= len(value) <= field.longest:
                raise ValueError(
                    f"the state has {len(value)} {field.name}, "
                    f"accepted {field.shortest} to {field.longest}"
                )
            if field.kind == "entities" or ((value >= low) & (value <= high)).all():
                continue
            value = value[~((value >= low) & (value <= high))][0]
        elif low <= value <= high:  # NaN is not
            continue
        raise ValueError(
            f"the state has {field.name} {value:g}, accepted {low:g} to {high:g}: "
            "the simulator does not take that"
        )


def _check_entities(entities: np.ndarray, state: State, where: str) -> None:
    """Check each thing alone: its type, picture, size and speed."""
    game = state.game
    if len(entities) > _MOST_ENTITIES:
        raise ValueError(f"the state has {len(entities)} {where}, accepted {_MOST_ENTITIES}")
    words = entities.view("<i4").reshape(len(entities), len(_NAMES))
    for kind, columns, low, high in _LIMITED:
        values = words.view(kind)[:, columns]
        bad = ~((values >= low) & (values <= high))  # written so that NaN is bad
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ValueError(
                f"the state has an entity with {_NAMES[columns[column]]} "
                f"{values[row, column]:g}, accepted {low[column]:g} to {high[column]:g}"
            )
    tables, types, pictures = _TABLES[game], entities["type"], entities["image_type"]
    known = (types >= 0) & (types < PICTURES)
    known &= tables.known[types * known]
    if not known.all():
        things = ", ".join(f"{kind} {name}" for kind, name in CONTENTS[game].things.items())
        raise ValueError(f"the state has an entity of type {types[~known][0]}; {game} has {things}")
    variants = np.minimum(tables.themes[pictures], tables.repainted[types])
    if (bad := entities["image_theme"] >= variants).any():
        raise ValueError(
            f"the state has an entity with variant {entities['image_theme'][bad][0]} of picture "
            f"{pictures[bad][0]}, of which there are {variants[bad][0]}"
        )
    if state.options.use_monochrome_assets and (pictures >= _COLOURS).any():
        raise ValueError(f"the state has picture {pictures.max()} in a game without pictures")
    if (growing := entities["grow_rate"] > 1).any():
        _check_growth(entities[growing])
    if game in _TILED:
        tiled = entities[np.isin(types, _TILED[game])]
        if (tiled["rx"] > _MOST_TILES * tiled["ry"]).any() or (
            game == "dodgeball" and (tiled["ry"] > _MOST_TILES * tiled["rx"]).any()
        ):
            raise ValueError(f"the state has a wall more than {_MOST_TILES} times as long as wide")


def _check_growth(growing: np.ndarray) -> None:
    """Check that things that grow go before they are big: the game tests each cell under them."""
    steps = growing["expire_time"].astype(float) - growing["life_time"] + 1
    steps[growing["expire_time"] <= 0] = np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.maximum(growing["rx"], growing["ry"]) * growing["grow_rate"] ** steps.clip(0)
    if growing["smart_step"].any() or not (size <= _LARGEST_RADIUS).all():
        raise ValueError(
            "the state has an entity that grows, and does not expire in time or collides with the "
            "grid"
        )


def _check_work(state: State, contents: Contents) -> None:
    """Check that a step ends: all things that collide are tried against all, some repeatedly."""
    entities = state.entities
    smart = entities[entities["smart_step"] != 0]
    speed = np.hypot(smart["vx"], smart["vy"])
    types = smart["type"]
    if (wrong := (types != PLAYER) & ~np.isin(types, contents.walking)).any():
        raise ValueError(
            f"the state has an entity of type {types[wrong][0]} that collides with the grid; of "
            f"those in {state.game} types {[PLAYER, *contents.walking]} do"
        )
    if (speed > _SMART_SPEED).any():
        raise ValueError(
            f"the state has an entity that collides with the grid at a speed of {speed.max():g}, "
            f"accepted up to {_SMART_SPEED:g}"
        )
    near = 1
    if contents.blocking is not None and len(smart):
        blocking = entities[entities["type"] == contents.blocking]
        if len(blocking) > 1:
            within = np.ones((len(blocking), len(blocking)), bool)
            for at, radius in (("x", "rx"), ("y", "ry")):
                reach = blocking[radius] + smart[radius].max()
                within &= abs(blocking[at] - blocking[at][:, None]) < reach + reach[:, None]
            near = int(within.sum(1).max())
    work = near**5 * np.maximum(4, 4 * speed).sum() * len(entities)
    if len(smart) > _MOST_WALKING or near > _MOST_BLOCKING or work > _MOST_WORK:
        raise ValueError(
            f"the state has {len(smart)} entities that collide with {len(entities)}, {near} of "
            "them in the way at one place: a step would take too long"
        )


def _check_grid(state: State) -> None:
    grid = state.grid
    drawable = (grid >= -1) & (grid <= SPACE)
    if state.game == "chaser":
        drawable |= grid == _CHASER_ORB
    if state.options.use_monochrome_assets:
        drawable &= (grid < _COLOURS) | (grid >= SPACE)
    if not drawable.all():
        raise ValueError(f"the state has a cell {grid[~drawable][0]} that {state.game} cannot draw")
