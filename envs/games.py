"""The 16 games of ProcGen, their modes, and what else is fixed about them."""

from __future__ import annotations

import numpy as np

NUM_ACTIONS = 15
FRAMES_PER_SECOND = 15
"""At which the games are played by people, and videos of them are shown."""
NUM_LEVELS = 2**31 - 1
"""How many levels a game can generate: their seeds are 0 to `NUM_LEVELS - 1`."""
LARGEST_SEED = 2**31 - 1
"""Of a sequence of levels."""

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
"""Modes as numbers in a state."""

_TOPDOWN, _PLATFORM, _SPACE = 9, 62, 13
BACKGROUNDS = {
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


def is_whole(value: object) -> bool:
    """Return whether this is an integer, Python's or numpy's; a bool is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_level_seed(seed: int) -> int:
    """Return the seed as Python's int; raise ValueError unless it is one of a level."""
    if not is_whole(seed) or not 0 <= seed < NUM_LEVELS:
        raise ValueError(f"level seeds are 0..{NUM_LEVELS - 1}, got {seed!r}")
    return int(seed)


def check_background(env_name: str, index: int) -> int:
    """Return a picture's index as Python's int; raise ValueError unless the game has it."""
    if not is_whole(index) or not 0 <= index < BACKGROUNDS[env_name]:
        raise ValueError(f"backgrounds are 0..{BACKGROUNDS[env_name] - 1}, got {index!r}")
    return int(index)


def check_game(env_name: str) -> None:
    """Raise ValueError, listing the games, unless this is one."""
    if not isinstance(env_name, str) or env_name not in GAMES:
        raise ValueError(f"unknown game {env_name!r}; choose one of {', '.join(GAMES)}")


def check_mode(env_name: str, mode: str) -> None:
    """Raise ValueError, listing the game's modes, unless this is one of them."""
    if not isinstance(mode, str) or mode not in GAMES[env_name]:
        raise ValueError(
            f"{env_name} has no mode {mode!r}; choose one of {', '.join(GAMES[env_name])}"
        )
