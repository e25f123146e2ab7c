"""The four moves of a maze, and how ProcGen's 15 actions map to them."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from jaxtyping import Int8


class Move(IntEnum):
    """What an action does in a maze; the order is that of ProcGen's single-key actions."""

    LEFT = 0
    DOWN = 1
    UP = 2
    RIGHT = 3
    STAY = 4


ACTIONS_OF_MOVE: dict[Move, tuple[int, ...]] = {
    Move.LEFT: (0, 1, 2),
    Move.DOWN: (3,),
    Move.UP: (5,),
    Move.RIGHT: (6, 7, 8),
    Move.STAY: (4, 9, 10, 11, 12, 13, 14),
}
"""The actions with each effect. A diagonal action moves sideways: the simulator drops its y."""

MOVE_OF_ACTION: Int8[np.ndarray, " 15"] = np.array(
    [move for _, move in sorted((a, m) for m, actions in ACTIONS_OF_MOVE.items() for a in actions)],
    np.int8,
)
MOVE_OF_ACTION.flags.writeable = False

STEP_OF_MOVE: dict[Move, tuple[int, int]] = {
    Move.LEFT: (0, -1),
    Move.DOWN: (-1, 0),
    Move.UP: (1, 0),
    Move.RIGHT: (0, 1),
    Move.STAY: (0, 0),
}
"""Change of (row, column); row 0 is at the bottom."""
