"""Contents of the states of each game: types of things, pictures, what is outside the world."""

from __future__ import annotations

from typing import NamedTuple

PICTURES = 100
"""Pictures are numbered 0..99, each with up to `THEMES` variants."""
THEMES = 10

_EXPLOSION = {54: "explosion"}
_TRAIL = {59: "trail"}


class Contents(NamedTuple):
    """What the states of one game hold.

    Types and pictures are the constants of the game's public source; `tests/envs/test_rules.py`
    tries them on the simulator.
    """

    things: dict[int, str]
    """The types of its entities. Others are refused: walls, for instance, are cells, and several
    walls among the entities can make one step last for ever."""
    themes: dict[int, int]
    """For each picture that is loaded from files, the number of its variants (of those it may
    stand for, the fewest): a variant beyond them is read beyond an array. The pictures not listed
    are drawn by a program, in any variant."""
    border: int
    """What is outside the world. The game may write to a cell that holds what the player
    collects; so it must not be outside."""
    repainted: dict[int, int] = {}  # noqa: RUF012
    """Types whose picture the game changes as it goes, with the number of variants of the next."""
    walking: tuple[int, ...] = ()
    """The types of its things, beside the player, that collide with the grid."""
    blocking: int | None = None
    """The type of its things that others cannot pass."""
    size: int | None = None
    """The world's side, where levels are generated for one size only."""
    player_picture: int = 0


CONTENTS = {
    "bigfish": Contents({0: "player", 2: "fish"}, {0: 1, 2: 3}, -1),
    "bossfight": Contents(
        {
            0: "player",
            1: "player's bullet",
            2: "boss",
            3: "shields",
            4: "boss's bullet",
            5: "laser trail",
            6: "reflected bullet",
            7: "barrier",
            **_EXPLOSION,
        },
        {0: 4, 1: 3, 2: 4, 3: 1, 4: 3, 7: 8},
        -1,
    ),
    "caveflyer": Contents(
        {
            0: "player",
            1: "goal",
            2: "obstacle",
            3: "target",
            4: "bullet",
            5: "enemy",
            9: "exhaust",
            **_EXPLOSION,
        },
        {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 8: 1, 9: 1},
        8,
        walking=(5,),
    ),
    "chaser": Contents(
        {0: "player", 2: "large orb", 4: "egg", 6: "enemy"},
        {0: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1},
        -1,
        walking=(6,),
    ),
    "climber": Contents(
        {0: "player", 1: "coin", 5: "enemy"},
        {0: 4, 1: 1, 6: 1, 7: 1, 9: 4, 12: 4, 13: 4, 15: 4, 16: 4},
        15,
        repainted={5: 1},
        walking=(5,),
    ),
    "coinrun": Contents(
        {0: "player", 2: "saw", 5: "enemy", 20: "crate", **_TRAIL},
        {0: 5, 1: 1, 2: 1, 3: 1, 6: 9, 7: 9, 9: 5, 12: 5, 13: 5, 15: 6, 16: 6, 17: 1, 18: 1, 20: 4},
        15,
        repainted={2: 1, 5: 9},
        blocking=20,
        size=64,
        walking=(5,),
    ),
    "dodgeball": Contents(
        {
            0: "player",
            1: "wall of lava",
            3: "player's ball",
            4: "enemy",
            5: "door",
            6: "enemy's ball",
            8: "cloud of dust",
        },
        {0: 1, 1: 1, 3: 1, 4: 11, 5: 1, 6: 1, 7: 1, 8: 9, 10: 1},
        10,
        walking=(4,),
    ),
    "fruitbot": Contents(
        {
            0: "player",
            1: "barrier",
            3: "key",
            4: "bad food",
            7: "fruit",
            10: "locked door",
            11: "lock",
            12: "present",
        },
        {0: 1, 1: 1, 2: 1, 3: 1, 4: 6, 7: 6, 10: 1, 11: 1, 12: 3},
        2,
    ),
    "heist": Contents(
        {0: "player", 1: "lock", 2: "key", 9: "gem", 11: "key on the ring"},
        {0: 1, 1: 3, 2: 3, 9: 1, 51: 1},
        51,
        blocking=1,
    ),
    "jumper": Contents(
        {0: "player", 1: "goal", 2: "spike", **_TRAIL},
        {0: 1, 1: 1, 2: 1, 6: 4, 7: 4, 9: 1, 10: 1, 11: 1, 12: 1, 13: 1},
        6,
    ),
    "leaper": Contents(
        {0: "player", 1: "log", 4: "car", 5: "finish line"},
        {0: 5, 1: 1, 2: 1, 3: 1, 4: 5, 5: 1},
        -1,
    ),
    "maze": Contents({0: "mouse"}, {0: 1, 2: 1, 51: 1}, 51),
    "miner": Contents(
        {0: "player", 5: "enemy", 6: "exit"},
        {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 6: 1, 9: 1, 10: 1},
        10,
        walking=(5,),
    ),
    "ninja": Contents(
        {0: "player", 1: "goal", 7: "throwing star", **_EXPLOSION},
        {0: 1, 1: 6, 6: 1, 7: 1, 9: 1, 12: 1, 13: 1, 14: 1, 20: 3},
        20,
        size=64,
        walking=(7,),
    ),
    "plunder": Contents(
        {
            0: "player",
            1: "cannonball",
            2: "picture of the target",
            3: "target's background",
            6: "panel",
            7: "ship",
            **_EXPLOSION,
        },
        {1: 1, 3: 1, 6: 1, 7: 6},
        -1,
        player_picture=7,
    ),
    "starpilot": Contents(
        {
            0: "player",
            1: "player's bullet",
            2: "bullet",
            3: "turret's bullet",
            4: "flyer",
            5: "meteor",
            6: "cloud",
            7: "turret",
            8: "fast flyer",
            9: "finish line",
            **_EXPLOSION,
        },
        {0: 1, 1: 1, 2: 1, 3: 1, 4: 7, 5: 8, 6: 9, 7: 2, 8: 7, 9: 4},
        -1,
    ),
}
"""The contents of each game's states."""
