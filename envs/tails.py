"""The fields that a game writes behind those common to all games, at the end of its state.

Maze, heist and coinrun have them typed; those of the other games are carried as bytes. `FIELDS`
names them all, with the values that the simulator takes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from rlbilinear.envs.entity import ENTITY

_MAZE_FORMAT = struct.Struct("<2i")
_HEIST_FORMAT = struct.Struct("<3i")
_COINRUN_FORMAT = struct.Struct("<f4i2f")


class MazeTail(NamedTuple):
    """Maze's own fields."""

    maze_dim: int
    """Side of the maze proper, centred in the world."""
    world_dim: int
    """Side of the world."""

    @classmethod
    def from_bytes(cls, raw: bytes) -> MazeTail:
        """Read the fields; struct.error if they are cut short or too many."""
        return cls(*_MAZE_FORMAT.unpack(raw))

    def to_bytes(self) -> bytes:
        """Return the fields as the simulator writes them."""
        return _MAZE_FORMAT.pack(*self)


class HeistTail(NamedTuple):
    """Heist's own fields."""

    num_keys: int
    """The number of keys that the level was made with, 0 to 3."""
    world_dim: int
    """Side of the world."""
    has_keys: tuple[int, ...]
    """For each theme (0 blue, 1 green, 2 red) that the level has: 1 when the key is held."""

    @classmethod
    def from_bytes(cls, raw: bytes) -> HeistTail:
        """Read the fields; struct.error if they are cut short or too many."""
        num_keys, world_dim, count = _HEIST_FORMAT.unpack_from(raw)
        if count < 0 or len(raw) != _HEIST_FORMAT.size + 4 * count:
            raise struct.error(f"a count of {count}")
        return cls(num_keys, world_dim, struct.unpack_from(f"<{count}i", raw, _HEIST_FORMAT.size))

    def to_bytes(self) -> bytes:
        """Return the fields as the simulator writes them."""
        count = len(self.has_keys)
        return struct.pack(f"<{3 + count}i", self.num_keys, self.world_dim, count, *self.has_keys)


class CoinrunTail(NamedTuple):
    """Coinrun's own fields."""

    last_agent_y: float
    """Where the player was after the previous step: who was above a crate can land on it."""
    wall_theme: int
    """The ground's picture, 0 to 5."""
    has_support: int
    """1 when the player stands on something."""
    facing_right: int
    is_on_crate: int
    gravity: float
    air_control: float
    """How much of the control over its speed the player has in the air."""

    @classmethod
    def from_bytes(cls, raw: bytes) -> CoinrunTail:
        """Read the fields; struct.error if they are cut short or too many."""
        return cls(*_COINRUN_FORMAT.unpack(raw))

    def to_bytes(self) -> bytes:
        """Return the fields as the simulator writes them."""
        return _COINRUN_FORMAT.pack(*self)


Tail = MazeTail | HeistTail | CoinrunTail | bytes
"""A game's own fields: typed for maze, heist and coinrun, as the simulator's bytes for others."""

_READERS: dict[str, Callable[[bytes], Tail]] = {
    "maze": MazeTail.from_bytes,
    "heist": HeistTail.from_bytes,
    "coinrun": CoinrunTail.from_bytes,
}


def read_tail(game: str, raw: bytes) -> Tail:
    """Return a game's own fields, typed if the game's are.

    Raises:
        ValueError: the bytes are not as long as the game's fields.
    """
    reader = _READERS.get(game)
    if reader is None:
        return raw
    try:
        return reader(raw)
    except struct.error:
        raise ValueError(f"{game}'s own fields cannot be {len(raw)} bytes") from None


def write_tail(tail: Tail) -> bytes:
    """Return a game's own fields as the simulator writes them."""
    return tail if isinstance(tail, bytes) else tail.to_bytes()


class Field(NamedTuple):
    """A field of a tail: an int, a float, or a vector of ints, floats or entities."""

    name: str
    kind: Literal["int", "float", "ints", "floats", "entities"]
    low: float
    high: float
    """The values accepted, of each item of a vector."""
    shortest: int = 0
    longest: int = 0
    """The number of items accepted."""


_INT_LOW, _INT_HIGH = -(2**31), 2**31 - 1


def _int(name: str, low: int = _INT_LOW, high: int = _INT_HIGH) -> Field:
    return Field(name, "int", low, high)


def _float(name: str, low: float = -1e6, high: float = 1e6) -> Field:
    return Field(name, "float", low, high)


def _ints(
    name: str, shortest: int, longest: int, low: int = _INT_LOW, high: int = _INT_HIGH
) -> Field:
    return Field(name, "ints", low, high, shortest, longest)


def _floats(name: str, shortest: int, longest: int, low: float, high: float) -> Field:
    return Field(name, "floats", low, high, shortest, longest)


_MANY = 2**16
FIELDS: dict[str, tuple[Field, ...]] = {
    "bigfish": (_int("fish_eaten", -1000, 1000), _float("r_inc", 0, 1)),
    "bossfight": (
        _ints("attack_modes", 1, 1000),  # the round's number is divided by their number
        _int("last_fire_time"),
        _int("time_to_swap"),
        _int("invulnerable_duration"),
        _int("vulnerable_duration"),
        _int("num_rounds"),
        _int("round_num"),
        _int("round_health", 1),  # the boss's health is divided by it
        _int("boss_vel_timeout", 1),  # so are distances, by this
        _int("curr_vel_timeout"),
        _int("attack_mode"),
        _int("player_laser_theme", 0, 2),
        _int("boss_laser_theme", 0, 2),
        _int("damaged_until_time"),
        _int("shields_are_up"),
        _int("barriers_moves_right"),
        _float("base_fire_prob"),
        _float("boss_bullet_vel", -10, 10),
        _float("barrier_vel"),
        _float("barrier_spawn_prob"),
        *(_float(name, 0, 1) for name in ("rand_pct", "rand_fire_pct", "rand_pct_x", "rand_pct_y")),
    ),
    "caveflyer": (),
    "chaser": (
        _ints("free_cells", 1, _MANY),
        _ints("is_space_vec", 1, _MANY),
        _int("eat_timeout"),
        _int("egg_timeout", -(10**6), 10**6),
        _int("eat_time"),
        _int("total_enemies", 0, 100),  # one more is hatched at each step while they are fewer
        _int("total_orbs"),
        _int("orbs_collected"),
        _int("maze_dim", 1, 256),
    ),
    "climber": (
        _int("has_support"),
        _int("facing_right"),
        _int("coin_quota"),
        _int("coins_collected"),
        _int("wall_theme", 0, 3),
        _float("gravity", 0, 2),
        _float("air_control", 0, 1),
    ),
    "coinrun": (
        _float("last_agent_y"),
        _int("wall_theme", 0, 5),
        _int("has_support"),
        _int("facing_right"),
        _int("is_on_crate"),
        _float("gravity", 0, 2),
        _float("air_control", 0, 1),
    ),
    "dodgeball": (
        _float("min_dim"),
        _float("hard_min_dim"),
        _float("ball_vscale", -10, 10),
        _float("ball_r", 0, 100),
        _int("last_fire_time"),
        _int("num_enemies"),
        _int("enemy_fire_delay"),
    ),
    "fruitbot": (_float("min_dim"), _float("bullet_vscale", -10, 10), _int("last_fire_time")),
    "heist": (_int("num_keys", 0, 3), _int("world_dim", 1, 256), _ints("has_keys", 0, 3)),
    "jumper": (
        _int("jump_count"),
        _int("jump_delta"),
        _int("jump_time"),
        _int("has_support"),
        _int("facing_right"),
        _int("wall_theme", 0, 3),
        _float("compass_dim", 0, 100),
    ),
    "leaper": (
        _int("bottom_road_y", -1000, 1000),
        _floats("road_lane_speeds", 0, 32, -10, 10),
        _int("bottom_water_y", -1000, 1000),
        _floats("water_lane_speeds", 0, 32, -10, 10),
        _int("goal_y"),
    ),
    "maze": (_int("maze_dim", 1, 256), _int("world_dim", 1, 256)),
    "miner": (_int("diamonds_remaining"),),
    "ninja": (
        _int("has_support"),
        _int("facing_right"),
        _int("last_fire_time"),
        _int("wall_theme", 0, 2),
        _float("gravity", 0, 2),
        _float("air_control", 0, 1),
        _float("jump_charge", 0, 1),
        _float("jump_charge_inc", 0, 10),
    ),
    "plunder": (
        _int("last_fire_time"),
        _ints("lane_directions", 1, 1000),
        _ints("target_bools", 1, 1000),
        _ints("image_permutation", 1, 1000, 0, 5),
        _floats("lane_vels", 1, 1000, -10, 10),
        _int("num_lanes", 1, 1000),
        _int("num_current_ship_types", 1, 1000),
        _int("targets_hit", -1000, 1000),
        _int("target_quota", 1, 1000),  # the bar's length is divided by it
        _float("juice_left", -1000, 1000),
        _float("r_scale", 0.1, 100),
        _float("spawn_prob"),
        _float("legend_r"),
        _float("min_agent_x", -1000, 1000),
    ),
    "starpilot": (Field("spawners", "entities", 0, 0, 0, 700),),
}
"""Each game's own fields, in the order of the bytes.

Where a comment does not say otherwise, limits are wider than any of the game's own values, and
narrow enough that nothing is read beyond its array, and no thing gets so big, fast or many that
a step takes seconds.
"""

_TYPES = {"ints": np.dtype("<i4"), "floats": np.dtype("<f4"), "entities": ENTITY}
_FORMATS = {"int": struct.Struct("<i"), "float": struct.Struct("<f")}


def read_fields(game: str, tail: Tail) -> dict[str, int | float | np.ndarray]:
    """Return a game's own fields by name; vectors are arrays.

    Raises:
        ValueError: the bytes are not as long as the fields.
    """
    if not isinstance(tail, bytes):
        return {
            name: np.array(value, np.int32) if isinstance(value, tuple) else value
            for name, value in tail._asdict().items()
        }
    values: dict[str, int | float | np.ndarray] = {}
    at = 0
    try:
        for field in FIELDS[game]:
            if field.kind in _FORMATS:
                (values[field.name],) = _FORMATS[field.kind].unpack_from(tail, at)
                at += 4
            else:
                (count,) = _FORMATS["int"].unpack_from(tail, at)
                dtype = _TYPES[field.kind]
                end = at + 4 + count * dtype.itemsize
                if count < 0 or end > len(tail):
                    raise struct.error
                values[field.name] = np.frombuffer(tail[at + 4 : end], dtype)
                at = end
    except struct.error:
        at = -1
    if at != len(tail):
        raise ValueError(f"{game}'s own fields, or their counts, do not fill {len(tail)} bytes")
    return values
