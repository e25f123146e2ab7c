"""A ProcGen state, bytes to fields and back.

The layout (version 0, little-endian fields of 4 bytes, no padding) is that of the public ProcGen
0.10 sources; blocks of fields are NamedTuples in the order of the bytes. Reading never trusts a
length; whether the simulator takes the values is for `rlbilinear.envs.state_checks` to say.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from rlbilinear.envs.entity import ENTITY
from rlbilinear.envs.games import check_game
from rlbilinear.envs.tails import Tail, read_tail, write_tail

END_MARKER = b"\xfe\xca\xfe\xca"
PLAYER, WALL, SPACE, CHEESE = 0, 51, 100, 2


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
_FORK_OPTIONS_BYTES = 5 * 4
_PAIR = struct.Struct("<2i")
_INT = struct.Struct("<i")


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
    tail: Tail
    """The game's own fields: a `MazeTail`, `HeistTail` or `CoinrunTail`, bytes for other games."""

    @classmethod
    def from_bytes(cls, raw: bytes) -> State:
        """Read a state field by field, as `parse` does.

        Raises:
            ValueError: the bytes are cut short, of another version or game, or lengths disagree.
        """
        return parse(raw)

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
                write_tail(self.tail),
                END_MARKER,
            )
        )


def parse(raw: bytes) -> State:
    """Read a state field by field (about 7 microseconds); arrays are read-only.

    Raises:
        ValueError: the bytes are cut short, of another version, game or fork of ProcGen, or lengths
            disagree.
    """
    if not isinstance(raw, bytes):
        raise ValueError(f"a state is bytes, got {type(raw).__name__}")
    if raw[-4:] != END_MARKER:
        raise ValueError(f"{len(raw)} bytes that do not end with the end marker of a state")
    try:
        return _parse(raw)
    except (struct.error, ValueError) as error:
        if _is_forks(raw):
            raise ValueError(
                "a state of a fork of ProcGen: procgenAISC and its like write five more options "
                "(random_percent, key_penalty, step_penalty, rand_region, continue_after_coin) "
                "behind use_sequential_levels; read here are the states of ProcGen 0.10"
            ) from None
        if isinstance(error, ValueError):
            raise
        raise ValueError(
            f"the state is cut short, or a length in it is wrong ({len(raw)} bytes)"
        ) from None


def _is_forks(raw: bytes) -> bool:
    """Return whether the first random generator stands where the known forks write it."""
    at = 8 + int.from_bytes(raw[4:8], "little") + OPTIONS_FORMAT.size + _FORK_OPTIONS_BYTES
    length = int.from_bytes(raw[at + 4 : at + 8], "little")
    text = raw[at + 8 : at + 8 + length]
    return len(text) == length and text.count(b" ") == 624 and text[:1].isdigit()


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
    entities = np.frombuffer(raw[at + 4 : end], ENTITY)  # of a slice: a view would keep raw alive
    view = View(*VIEW_FORMAT.unpack_from(raw, end))
    asset_generator, at = _parse_generator(raw, end + VIEW_FORMAT.size)
    world = World(*WORLD_FORMAT.unpack_from(raw, at))
    at += WORLD_FORMAT.size
    columns, rows, count = struct.unpack_from("<3i", raw, at)
    if columns < 1 or rows < 1 or count != rows * columns:
        raise ValueError(f"a grid of {columns} columns, {rows} rows and {count} cells")
    end = _end(raw, at + 12, count, 4)
    grid = np.frombuffer(raw[at + 12 : end], "<i4").reshape(rows, columns)
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
        read_tail(game, raw[end:-4]),
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
