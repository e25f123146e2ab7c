"""The expert of heists: which actions begin a shortest way to the gem, in many heists at once.

The way is over cells and keys held (`rlbilinear.envs.key_ways`). The agent moves continuously, so
an action is right when it pushes towards the way's next cell and not away from its middle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int64

from rlbilinear.envs.games import NUM_ACTIONS
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_motion import Agents, Boxes, move_agents, touched
from rlbilinear.envs.heist_things import GEM, KEY, LOCK, Colour, things
from rlbilinear.envs.key_ways import KeyWays, key_ways
from rlbilinear.envs.moves import STEP_OF_MOVE, Move
from rlbilinear.envs.state import PLAYER, WALL

STEPS_PER_CELL = 1.83
"""The expert's steps for each cell of its way, on average over levels (all modes)."""
NEAR = 0.04
"""From the middle of a cell up to here, the agent need not go back there, in cells."""
FITS = 0.12
"""And up to here it fits into the next cell: its half width is 0.375, a corridor's 0.5."""
TIME_LIMIT = 1000
"""Steps after which an episode ends."""

_COLOURS = len(Colour)
_SIDES = np.array([(action // 3 - 1, action % 3 - 1) for action in range(9)])
"""(right, up) of the actions that move; -1, 0 or 1 each."""
_TOWARDS = np.array([STEP_OF_MOVE[Move(move)][::-1] for move in range(4)])
"""(right, up) of each move."""
_STRAIGHT_FIRST = np.array([1, 3, 5, 7, 0, 2, 6, 8])
_NOTHING = np.float32(-np.inf)
"""Half width of what is not there."""


class HeistGuide:
    """Heists in play: it follows their agents, without asking the simulator, and guides them.

    Args:
        num_envs: how many heists.
        size: side of their worlds, in cells.
    """

    def __init__(self, num_envs: int, size: int) -> None:
        sets, padded = 1 << _COLOURS, size + 2
        self._envs = np.arange(num_envs)
        self._steps = np.zeros((num_envs, sets, size, size), np.int32)
        self._moves = np.zeros((num_envs, sets, size, size, 4), np.bool_)
        self._walls = np.ones((num_envs, padded, padded), np.bool_)
        # Keys and locks by colour, and the gem behind the keys.
        self._things = _boxes(num_envs, _COLOURS + 1)
        self._locks = _boxes(num_envs, _COLOURS)
        self._held = np.zeros((num_envs, _COLOURS), np.bool_)
        self.agents = Agents(*np.zeros((2, num_envs, 2), np.float32))

    def put(self, index: int, heist: Heist) -> KeyWays:
        """Let this environment show another heist, and return the ways in it.

        Raises:
            ValueError: it is unlike the game's levels: not one gem, or several keys or locks of a
                colour.
        """
        there = [thing[:2] for thing in things(heist.entities) if thing.kind in (KEY, LOCK, GEM)]
        if len(set(there)) < len(there):
            raise ValueError("the guide takes one gem, and one key and lock of each colour")
        ways, known = key_ways(heist), len(heist.has_keys)
        self._steps[index, : 1 << known] = ways.steps
        self._moves[index, : 1 << known] = ways.moves
        self._walls[index, 1:-1, 1:-1] = heist.grid == WALL
        for boxes in (self._things, self._locks):
            boxes.half[index] = _NOTHING
        for thing, entity in zip(things(heist.entities), heist.entities, strict=True):
            if thing.kind in (KEY, LOCK, GEM):
                boxes = self._locks if thing.kind == LOCK else self._things
                place = _COLOURS if thing.kind == GEM else thing.theme
                boxes.middle[index, place] = entity["x"], entity["y"]
                boxes.half[index, place] = entity["rx"], entity["ry"]
        self.put_agent(index, heist)
        return ways

    def put_agent(self, index: int, heist: Heist) -> None:
        """Put the agent where it is in this state of the same heist, with the keys it holds."""
        (agent,) = heist.entities[heist.entities["type"] == PLAYER]
        self.agents.place[index] = agent["x"], agent["y"]
        self.agents.speed[index] = agent["vx"], agent["vy"]
        self._held[index] = False
        self._held[index, : len(heist.has_keys)] = heist.has_keys

    def step(self, actions: Int64[np.ndarray, " envs"]) -> Bool[np.ndarray, " envs"]:
        """Move the agents, let them take the keys they touch, and return who touches the gem."""
        closed = np.where(self._held[..., None], _NOTHING, self._locks.half)
        self.agents = move_agents(
            self.agents, actions, self._walls, Boxes(self._locks.middle, closed)
        )
        taken = touched(self.agents.place, self._things)
        self._held |= taken[:, :_COLOURS]
        return taken[:, _COLOURS]

    @property
    def right(self) -> Bool[np.ndarray, "envs 15"]:
        """The actions that begin a shortest way, one or more for each environment."""
        place = self.agents.place
        middles = self._things.middle
        wanted = (np.floor(middles) == np.floor(place)[:, None]).all(2)
        wanted &= self._things.half[..., 0] > 0
        wanted[:, :_COLOURS] &= ~self._held
        thing = _COLOURS - wanted[:, ::-1].argmax(1)  # the gem before keys
        fetch = middles[self._envs, thing] - place
        return right_actions(self._moves[self._here], place - np.floor(place) - 0.5, fetch)

    @property
    def steps_to_go(self) -> Float32[np.ndarray, " envs"]:
        """About how many steps the expert takes to the gem."""
        cells = self._steps[self._here].astype(np.float32)
        return np.maximum(np.float32(STEPS_PER_CELL) * cells, np.float32(1))

    @property
    def _here(self) -> tuple[np.ndarray, ...]:
        columns, rows = self.agents.place.astype(np.int64).T
        return self._envs, self._held @ (1 << np.arange(_COLOURS)), rows, columns


def right_actions(
    moves: Bool[np.ndarray, "envs 4"],
    away: Float32[np.ndarray, "envs 2"],
    fetch: Float32[np.ndarray, "envs 2"],
) -> Bool[np.ndarray, "envs 15"]:
    """Return the actions that begin one of the given moves, or lead to a thing in the cell.

    A move is begun by pushing its way. Beside the middle of the cell the agent may push back there
    at the same time, and must where it would not fit into the next cell.

    Args:
        moves: the moves (left, down, up, right) that are right; none to fetch what is in the cell.
        away: (x, y) of the agent, from the middle of its cell.
        fetch: (x, y) of the thing to fetch, from the agent.
    """
    back = -np.sign(away) * (np.abs(away) > NEAR)
    fits = np.abs(away) <= FITS
    actions = np.zeros((len(moves), NUM_ACTIONS), np.bool_)
    for move, towards in enumerate(_TOWARDS):
        along, across = (0, 1) if towards[0] else (1, 0)
        pushed = _SIDES[:, along] == towards[along]
        side = _SIDES[:, across]
        beside = (side == back[:, across, None]) | (fits[:, across, None] & (side == 0))
        actions[:, :9] |= moves[:, move, None] & pushed & beside
    wanted = np.sign(fetch) * (np.abs(fetch) > NEAR)
    towards = ((wanted[:, None] == _SIDES) | (_SIDES == 0)).all(2)
    longer = np.abs(fetch).argmax(1)
    towards &= _SIDES[:, longer].T != 0
    actions[:, :9] |= ~moves.any(1, keepdims=True) & towards
    return actions


def expert_actions(right: Bool[np.ndarray, "envs 15"]) -> Int64[np.ndarray, " envs"]:
    """Return one right action for each environment: straight on where that is right."""
    return _STRAIGHT_FIRST[right[:, _STRAIGHT_FIRST].argmax(1)]


def expert_steps(heists: Sequence[Heist]) -> Int64[np.ndarray, " heists"]:
    """Return in how many steps the expert gets to the gem; 0 where it does not in a thousand.

    Args:
        heists: worlds of one size, each like the game's levels.

    Raises:
        ValueError: the sizes differ, or one is unlike the game's levels.
    """
    if len(sizes := {heist.size for heist in heists}) != 1:
        raise ValueError(f"expected heists of one size, got {sorted(sizes)}")
    guide = HeistGuide(len(heists), sizes.pop())
    for index, heist in enumerate(heists):
        guide.put(index, heist)
    steps = np.zeros(len(heists), np.int64)
    for step in range(1, TIME_LIMIT + 1):
        arrived = guide.step(expert_actions(guide.right))
        steps[arrived & (steps == 0)] = step
        if steps.all():
            break
    return steps


def _boxes(num_envs: int, number: int) -> Boxes:
    shape = (num_envs, number, 2)
    return Boxes(np.zeros(shape, np.float32), np.full(shape, _NOTHING))
