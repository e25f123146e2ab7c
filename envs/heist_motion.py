"""How the agents of heists move: the simulator's own step, to the bit, for many at once.

A state costs 80 microseconds to ask for, four times the step itself; this costs 7. Sources: the
public `basic-abstract-game.cpp` and `heist.cpp` of ProcGen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

HALF = np.float32(0.375)
"""Half width and height of an agent."""
_CORNER = HALF * np.float32(0.98)
_SLACK = -0.001
_PUSH = np.float32(0.5 * 0.75)
"""The simulator's mixrate times maxspeed."""
_SUB_STEPS = 4
"""More would be taken at speeds above 1.25; the highest is 0.87."""


class Boxes(NamedTuple):
    """Things in each environment, up to so many; they are boxes."""

    middle: Float32[np.ndarray, "envs things 2"]
    half: Float32[np.ndarray, "envs things 2"]
    """Half width and height; minus infinity where there is no such thing."""


class Agents(NamedTuple):
    """Where agents are, and how fast."""

    place: Float32[np.ndarray, "envs 2"]
    speed: Float32[np.ndarray, "envs 2"]


def touched(
    place: Float32[np.ndarray, "envs 2"], boxes: Boxes, slack: float = 0.0
) -> Bool[np.ndarray, "envs things"]:
    """Return which things the agents overlap."""
    apart = np.abs(place[:, None] - boxes.middle)
    return (apart < (boxes.half + HALF) + np.float32(slack)).all(2)


def move_agents(
    agents: Agents,
    actions: Int64[np.ndarray, " envs"],
    walls: Bool[np.ndarray, "envs rows columns"],
    closed: Boxes,
) -> Agents:
    """Return the agents after one step.

    Args:
        agents: before it.
        actions: 0 to 14.
        walls: with a border of walls around the world.
        closed: the locks whose keys are not held.
    """
    actions = np.where(actions < 9, actions, 4)
    push = np.stack((actions // 3 - 1, actions % 3 - 1), 1).astype(np.float32)
    speed = np.float32(0.5) * agents.speed + _PUSH * push
    speed = (0.9 * speed.astype(np.float64)).astype(np.float32)  # as C++ does: 0.9 is a double
    place = agents.place
    sideways = np.where(push.any(1), push[:, 1] == 0, np.abs(speed[:, 0]) > np.abs(speed[:, 1]))
    axes = np.stack((sideways, ~sideways), 1)  # of the first half of each sub-step
    moves = _Moves(walls, closed)
    free = np.zeros_like(speed)
    going = np.ones(len(actions), np.bool_)
    for _ in range(_SUB_STEPS):
        blocked = np.zeros_like(axes)
        for along in (axes, ~axes):
            by = np.where(along & going[:, None], speed / _SUB_STEPS, np.float32(0))
            there, stopped, lost = moves.sub_step(place, by)
            place = np.where(going[:, None], there, place)
            speed = np.where(lost & going[:, None], np.float32(0), speed)
            blocked |= along & stopped[:, None]
        free += ~blocked & going[:, None]
        going = going & ~blocked.all(1)
    return Agents(place, speed * (free / np.float32(_SUB_STEPS)))


def undecided(agents: Agents, actions: Int64[np.ndarray, " envs"]) -> Bool[np.ndarray, " envs"]:
    """Return where the simulator draws at random which axis it moves along first.

    It does when nothing is pushed and both speeds are the same, but for zero.
    """
    still = (actions >= 9) | (actions == 4)
    across, up = np.abs(agents.speed).T
    return still & (across == up) & (across > 0)


class _Moves:
    """What blocks the way."""

    def __init__(self, walls: Bool[np.ndarray, "envs rows columns"], closed: Boxes) -> None:
        self.walls, self.closed = walls, closed
        self.envs = np.arange(len(walls))

    def sub_step(
        self, place: Float32[np.ndarray, "envs 2"], by: Float32[np.ndarray, "envs 2"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where a sub-step leads, whether it was blocked, and which speeds are lost."""
        sideways = by[:, 0] != 0
        place, blocked = self._past_walls(place, by, sideways)
        lost = np.zeros(by.shape, np.bool_)
        hits = touched(place, self.closed, _SLACK)
        for lock in np.flatnonzero(hits.any(0))[::-1]:
            hit = hits[:, lock]
            middle, half = self.closed.middle[:, lock], self.closed.half[:, lock]
            axis = np.stack((sideways, ~sideways), 1) & hit[:, None]
            reach = np.where(axis, half + HALF, np.float32(0))  # infinite where there is no lock
            out = middle + np.sign(place - middle) * reach - place
            back = np.where(axis, out, np.float32(0))
            pushed, _ = self._past_walls(place, back, back[:, 0] != 0)
            place = np.where(hit[:, None], pushed, place)
            lost |= axis
        return place, blocked | hits.any(1), lost

    def _past_walls(
        self,
        place: Float32[np.ndarray, "envs 2"],
        by: Float32[np.ndarray, "envs 2"],
        sideways: Bool[np.ndarray, " envs"],
    ) -> tuple[np.ndarray, np.ndarray]:
        there = place + by
        low = np.floor(there - _CORNER).astype(np.int64) + 1
        high = np.floor(there + _CORNER).astype(np.int64) + 1
        (left, bottom), (right, top) = low.T, high.T
        walls, envs = self.walls, self.envs
        blocked = (
            walls[envs, bottom, left]
            | walls[envs, bottom, right]
            | walls[envs, top, left]
            | walls[envs, top, right]
        )
        beside = np.where(by > 0, np.floor(there + HALF) - HALF, np.ceil(there - HALF) + HALF)
        axis = np.stack((sideways, ~sideways), 1)
        return np.where(axis & blocked[:, None], beside, there), blocked
