"""A ProcGen state's bytes: read safely in Python, before the simulator sees them.

The simulator ends the whole process on bytes it dislikes. `validate_state` finds in Python what
would do that and raises ValueError. The layout (version 0, little-endian fields of 4 bytes, no
padding) is that of the public ProcGen 0.10 sources; blocks are NamedTuples in the bytes' order.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

_PLAIN = ("easy", "hard")
GAMES: dict[str, tuple[str, ...]] = {
    "bigfish": _PLAIN,
    "bossfight": _PLAIN,
    "caveflyer": (*_PLAIN, "memory"),
    "chaser": (*_PLAIN, "extreme"),
    "climber": _PLAIN,
    "coinrun": _PLAIN,
    "dodgeball": (*_PLAIN, "extreme", "memory"),
    "fruitbot": _PLAIN,
    "heist": (*_PLAIN, "memory"),
    "jumper": (*_PLAIN, "memory"),
    "leaper": (*_PLAIN, "extreme"),
    "maze": (*_PLAIN, "memory"),
    "miner": (*_PLAIN, "memory"),
    "ninja": _PLAIN,
    "plunder": _PLAIN,
    "starpilot": (*_PLAIN, "extreme"),
}
"""The games, each with its distribution modes."""

MODE_CODES = {"easy": 0, "hard": 1, "extreme": 2, "memory": 10}
END_MARKER = b"\xfe\xca\xfe\xca"
LAST_LEVEL = 2**31 - 1
"""Level seeds are 0 <= seed < LAST_LEVEL."""
PLAYER, WALL, SPACE, CHEESE = 0, 51, 100, 2
_TOPDOWN, _PLATFORM, _SPACE = 9, 62, 13
_BACKGROUNDS = {
    "bigfish": 7,
    "bossfight": _SPACE,
    "caveflyer": _SPACE,
    "chaser": 1,
    "climber": _PLATFORM,
    "coinrun": _PLATFORM,
    "dodgeball": _TOPDOWN,
    "fruitbot": _TOPDOWN,
    "heist": _TOPDOWN,
    "jumper": _PLATFORM,
    "leaper": _TOPDOWN,
    "maze": _TOPDOWN,
    "miner": _PLATFORM,
    "ninja": _PLATFORM,
    "plunder": 4,
    "starpilot": _SPACE,
}
"""The number of background pictures of each game."""
MAZE_BACKGROUNDS = _BACKGROUNDS["maze"]
_CHASER_ORB = 1002


class Options(NamedTuple):
    """The game's switches and level range."""

    paint_vel_info: int
    use_generated_assets: int
    use_monochrome_assets: int
    restrict_themes: int
    use_backgrounds: int
    center_agent: int
    debug_mode: int
    distribution_mode: int
    use_sequential_levels: int
    use_easy_jump: int
    plain_assets: int
    physics_mode: int
    grid_step: int
    level_seed_low: int
    level_seed_high: int
    game_type: int
    game_n: int


class Episode(NamedTuple):
    """Reward, level and time of the running episode."""

    reward: float
    done: int
    level_complete: int
    action: int
    timeout: int
    current_level_seed: int
    prev_level_seed: int
    episodes_remaining: int
    episode_done: int
    last_reward_timer: int
    last_reward: float
    default_action: int
    fixed_asset_seed: int
    cur_time: int
    is_waiting_for_step: int
    grid_size: int


class View(NamedTuple):
    """Background, last action and motion constants."""

    use_procgen_background: int
    background_index: int
    bg_tile_ratio: float
    bg_pct_x: float
    char_dim: float
    last_move_action: int
    move_action: int
    special_action: int
    mixrate: float
    maxspeed: float
    max_jump: float
    action_vx: float
    action_vy: float
    action_vrot: float
    center_x: float
    center_y: float
    random_agent_start: int
    has_useful_vel_info: int
    step_rand_int: int


class World(NamedTuple):
    """Size of the world and of what is drawn of it."""

    main_width: int
    main_height: int
    out_of_bounds_object: int
    unit: float
    view_dim: float
    x_off: float
    y_off: float
    visibility: float
    min_visibility: float


OPTIONS_FORMAT = struct.Struct("<17i")
EPISODE_FORMAT = struct.Struct("<f9if5i")
VIEW_FORMAT = struct.Struct("<2i3f3i8f3i")
WORLD_FORMAT = struct.Struct("<3i6f")
_PAIR = struct.Struct("<2i")
_INT = struct.Struct("<i")

ENTITY = np.dtype(
    [(name, "<f4") for name in ("x", "y", "vx", "vy", "rx", "ry")]
    + [
        (name, "<i4")
        for name in (
            "type",
            "image_type",
            "image_theme",
            "render_z",
            "will_erase",
            "collides_with_entities",
        )
    ]
    + [(name, "<f4") for name in ("collision_margin", "rotation", "vrot")]
    + [
        (name, "<i4")
        for name in (
            "is_reflected",
            "fire_time",
            "spawn_time",
            "life_time",
            "expire_time",
            "use_abs_coords",
        )
    ]
    + [("friction", "<f4")]
    + [(name, "<i4") for name in ("smart_step", "avoids_collisions", "auto_erase")]
    + [
        (name, "<f4")
        for name in (
            "alpha",
            "health",
            "theta",
            "grow_rate",
            "alpha_decay",
            "climber_spawn_x",
        )
    ]
)
"""One entity: 124 bytes."""
_ENTITY_NAMES = ENTITY.names or ()


_ENTITY_LIMITS = {
    **dict.fromkeys(("x", "y", "rotation", "vrot", "collision_margin"), (-1e4, 1e4)),
    **dict.fromkeys(("climber_spawn_x", "theta"), (-1e4, 1e4)),
    **dict.fromkeys(("vx", "vy", "rx", "ry"), (-1e2, 1e2)),
    **dict.fromkeys(("friction", "grow_rate", "alpha_decay"), (-1e2, 1e2)),
    **dict.fromkeys(("alpha", "health"), (-1e6, 1e6)),
    "image_type": (0, 99),
    "image_theme": (0, 9),
}
"""Wider than any game's, narrow enough that no loop over an entity's extent is endless."""
_LIMITED = {
    kind: (
        [i for i, name in enumerate(_ENTITY_NAMES) if name in names],
        *np.array([_ENTITY_LIMITS[name] for name in _ENTITY_NAMES if name in names]).T,
    )
    for kind, names in {
        "<f4": _ENTITY_LIMITS.keys() - {"image_type", "image_theme"},
        "<i4": {"image_type", "image_theme"},
    }.items()
}


class Generator(NamedTuple):
    """A random generator: mt19937 as text, 624 words and a position."""

    is_seeded: int
    text: bytes


class State(NamedTuple):
    """A state, field by field; `to_bytes` gives back the bytes it was parsed from."""

    game: str
    options: Options
    level_generator: Generator
    generator: Generator
    episode: Episode
    entities: np.ndarray
    view: View
    asset_generator: Generator
    world: World
    grid: Int32[np.ndarray, "rows columns"]
    tail: bytes
    """The game's own fields, without the end marker."""

    def to_bytes(self) -> bytes:
        """Return the state as the simulator writes it."""
        rows, columns = self.grid.shape
        name = self.game.encode()
        return b"".join(
            (
                _PAIR.pack(0, len(name)),
                name,
                OPTIONS_FORMAT.pack(*self.options),
                _dump_generator(self.level_generator),
                _dump_generator(self.generator),
                EPISODE_FORMAT.pack(*self.episode),
                _INT.pack(len(self.entities)),
                self.entities.tobytes(),
                VIEW_FORMAT.pack(*self.view),
                _dump_generator(self.asset_generator),
                WORLD_FORMAT.pack(*self.world),
                struct.pack("<3i", columns, rows, rows * columns),
                self.grid.astype("<i4", copy=False).tobytes(),
                self.tail,
                END_MARKER,
            )
        )


def check_game(env_name: str) -> None:
    """Raise ValueError, listing the games, unless this is one."""
    if env_name not in GAMES:
        raise ValueError(f"unknown game {env_name!r}; choose one of {', '.join(GAMES)}")


def check_mode(env_name: str, mode: str) -> None:
    """Raise ValueError, listing the game's modes, unless this is one of them."""
    if mode not in GAMES[env_name]:
        raise ValueError(
            f"{env_name} has no mode {mode!r}; choose one of {', '.join(GAMES[env_name])}"
        )


def parse(raw: bytes) -> State:
    """Read a state field by field (about 30 microseconds); arrays are read-only views.

    Raises:
        ValueError: the bytes are cut short, of another version or game, or lengths disagree.
    """
    if not isinstance(raw, bytes):
        raise ValueError(f"a state is bytes, got {type(raw).__name__}")
    if raw[-4:] != END_MARKER:
        raise ValueError(f"{len(raw)} bytes that do not end with the end marker of a state")
    try:
        return _parse(raw)
    except struct.error:
        raise ValueError(
            f"the state is cut short, or a length in it is wrong ({len(raw)} bytes)"
        ) from None


def _parse(raw: bytes) -> State:
    version, length = _PAIR.unpack_from(raw, 0)
    if version != 0:
        raise ValueError(f"state version {version}; this simulator writes version 0")
    at = _end(raw, 8, length, 1)
    game = raw[8:at].decode("ascii", "replace")
    check_game(game)
    options = Options(*OPTIONS_FORMAT.unpack_from(raw, at))
    level_generator, at = _parse_generator(raw, at + OPTIONS_FORMAT.size)
    generator, at = _parse_generator(raw, at)
    episode = Episode(*EPISODE_FORMAT.unpack_from(raw, at))
    at += EPISODE_FORMAT.size
    (count,) = _INT.unpack_from(raw, at)
    end = _end(raw, at + 4, count, ENTITY.itemsize)
    entities = np.frombuffer(raw, ENTITY, count, at + 4) if count else np.zeros(0, ENTITY)
    view = View(*VIEW_FORMAT.unpack_from(raw, end))
    asset_generator, at = _parse_generator(raw, end + VIEW_FORMAT.size)
    world = World(*WORLD_FORMAT.unpack_from(raw, at))
    at += WORLD_FORMAT.size
    columns, rows, count = struct.unpack_from("<3i", raw, at)
    if columns < 1 or rows < 1 or count != rows * columns:
        raise ValueError(f"a grid of {columns} columns, {rows} rows and {count} cells")
    end = _end(raw, at + 12, count, 4)
    grid = np.frombuffer(raw, "<i4", count, at + 12).reshape(rows, columns)
    return State(
        game,
        options,
        level_generator,
        generator,
        episode,
        entities,
        view,
        asset_generator,
        world,
        grid,
        raw[end:-4],
    )


def _end(raw: bytes, start: int, count: int, size: int) -> int:
    """Return where `count` items of `size` bytes end, before the end marker."""
    end = start + count * size
    if count < 0 or end > len(raw) - 4:
        raise ValueError(f"a count of {count} at byte {start - 4} of a state of {len(raw)} bytes")
    return end


def _parse_generator(raw: bytes, at: int) -> tuple[Generator, int]:
    is_seeded, length = _PAIR.unpack_from(raw, at)
    end = _end(raw, at + 8, length, 1)
    return Generator(is_seeded, raw[at + 8 : end]), end


def _dump_generator(generator: Generator) -> bytes:
    return _PAIR.pack(generator.is_seeded, len(generator.text)) + generator.text


def episode_clock(raw: bytes) -> tuple[int, int]:
    """Return the steps taken in the running episode, and its step limit, of a valid state."""
    episode = parse(raw).episode
    return episode.cur_time, episode.timeout


def validate_state(raw: bytes, env_name: str) -> None:
    """Raise ValueError unless the simulator of this game can be put into this state.

    Of the fields that a game has for itself only maze's are checked: bytes of another game that
    were altered there pass.

    Raises:
        ValueError: says what is malformed, or that the state is of another game.
    """
    state = parse(raw)
    if state.game != env_name:
        raise ValueError(f"a state of {state.game}, but the environment plays {env_name}")
    options, episode, view, world = state.options, state.episode, state.view, state.world
    modes = [MODE_CODES[mode] for mode in GAMES[env_name]]
    rows, columns = state.grid.shape
    for accepted, what in (
        (options.distribution_mode in modes, f"distribution mode {options.distribution_mode}"),
        (options.use_generated_assets == 0, "generated assets"),
        (
            0 <= options.level_seed_low < options.level_seed_high,
            f"level range {options.level_seed_low}..{options.level_seed_high}",
        ),
        (episode.is_waiting_for_step == 0, "a step under way"),
        (0 <= episode.default_action < 15, f"default action {episode.default_action}"),
        (
            (columns, rows) == (world.main_width, world.main_height) and max(rows, columns) <= 256,
            f"world {world.main_width}x{world.main_height} with a grid of {columns}x{rows}",
        ),
        (episode.grid_size == rows * columns, f"grid size {episode.grid_size}"),
        (view.use_procgen_background == 0, "a generated background"),
        (
            0 <= view.background_index < _BACKGROUNDS[env_name],
            f"background {view.background_index}, accepted 0..{_BACKGROUNDS[env_name] - 1}",
        ),
        (_drawable(state), "a cell of unknown kind"),
        (0 < world.visibility <= 256 and 0 <= world.min_visibility <= 256, "visibility"),
        (_finite(episode) and _finite(view) and _finite(world), "a number that is not finite"),
    ):
        if not accepted:
            raise ValueError(f"the state has {what}, which the simulator does not accept")
    for generator in (state.level_generator, state.generator):
        if not generator.is_seeded:
            raise ValueError("the state has a random generator without a seed")
    for generator in (state.level_generator, state.generator, state.asset_generator):
        _validate_generator(generator)
    _validate_entities(state)
    if env_name == "maze":
        check_maze(state)


def _drawable(state: State) -> bool:
    grid = state.grid
    drawable = (grid >= -1) & (grid <= SPACE)
    if state.game == "chaser":
        drawable |= grid == _CHASER_ORB
    return bool(drawable.all())


def _finite(values: tuple) -> bool:
    return all(map(math.isfinite, values))


def _validate_generator(generator: Generator) -> None:
    text = generator.text
    if (
        text.translate(None, b"0123456789 ")
        or text.count(b" ") != 624
        or b"  " in text
        or not text[:1].isdigit()
        or not text[-1:].isdigit()
    ):
        raise ValueError("the state has a random generator that is not 625 words of text")


def _validate_entities(state: State) -> None:
    entities = state.entities
    if not (entities["type"] == PLAYER).any():
        raise ValueError("the state has no player")
    fields = entities.view("<i4").reshape(len(entities), -1)
    for kind, (columns, low, high) in _LIMITED.items():
        values = fields.view(kind)[:, columns]
        bad = ~((values >= low) & (values <= high))  # written so that NaN is bad
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ValueError(
                f"the state has an entity with {_ENTITY_NAMES[columns[column]]} "
                f"{values[row, column]:g}, accepted {low[column]:g}..{high[column]:g}"
            )


class MazeTail(NamedTuple):
    """Maze's own fields."""

    maze_dim: int
    world_dim: int

    def to_bytes(self) -> bytes:
        """Return the fields as the simulator writes them."""
        return _PAIR.pack(*self)


def check_maze(state: State) -> MazeTail:
    """Return the maze's own fields of a state that is a sound maze.

    Raises:
        ValueError: the state is of another game, or says what is wrong with the maze.
    """
    if state.game != "maze" or len(state.tail) != _PAIR.size:
        raise ValueError(f"a state of {state.game} with {len(state.tail)} bytes of its own fields")
    tail = MazeTail(*_PAIR.unpack(state.tail))
    if len(state.entities) != 1 or state.entities["type"][0] != PLAYER:
        raise ValueError(f"{len(state.entities)} entities; a maze has the mouse alone")
    size = tail.world_dim
    x, y = float(state.entities["x"][0]), float(state.entities["y"][0])
    background, border = state.view.background_index, state.world.out_of_bounds_object
    mode = state.options.distribution_mode
    for accepted, what in (
        (state.grid.shape == (size, size), f"a grid of {state.grid.shape} in a world of {size}"),
        (1 <= tail.maze_dim <= size, f"a maze of {tail.maze_dim} in a world of {size}"),
        (0 <= x < size and 0 <= y < size, f"a mouse at x {x:g}, y {y:g}, outside of the world"),
        (mode in (0, 1, 10), f"distribution mode {mode}, accepted 0, 1, 10"),
        (border == WALL, f"border object {border}, accepted {WALL}"),
        (0 <= background < MAZE_BACKGROUNDS, f"background {background}"),
        (is_maze_grid(state.grid), "a cell that is not wall, space or cheese"),
    ):
        if not accepted:
            raise ValueError(f"the maze state has {what}")
    return tail


def is_maze_grid(grid: Int32[np.ndarray, "rows columns"]) -> bool:
    """Return whether every cell is wall, space or cheese."""
    return bool(((grid == WALL) | (grid == SPACE) | (grid == CHEESE)).all())
