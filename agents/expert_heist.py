"""Heists in play, each state labelled with the actions that begin a shortest way to the gem."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from rlbilinear.agents.expert import NEW_LEVEL
from rlbilinear.envs import NUM_ACTIONS, STEP_OF_MOVE, Heist, Levels, Move, ProcgenVecEnv, key_route
from rlbilinear.envs.grid import UNREACHABLE, cells_of
from rlbilinear.envs.heist_things import GEM, KEY, Colour, agent_now
from rlbilinear.envs.key_ways import key_ways
from rlbilinear.envs.solver import distances

STEPS_PER_CELL = 1.83
"""The expert's steps for a cell of its way."""
SETS = 1 << len(Colour)

NEAR = 0.04
"""How far the agent's middle may be beside a cell's without need to go back, in cells."""
FITS = 0.12
"""How far at most: its half width is 0.375, a corridor's 0.5."""

_SIDES = np.array([(action // 3 - 1, action % 3 - 1) for action in range(9)])
"""(right, up) of the actions that move; -1, 0 or 1 each."""
_TOWARDS = np.array([STEP_OF_MOVE[Move(move)][::-1] for move in range(4)])
"""(right, up) of each move."""


def right_actions(
    moves: Bool[np.ndarray, "envs 4"],
    away: Float64[np.ndarray, "envs 2"],
    fetch: Float64[np.ndarray, "envs 2"],
) -> Bool[np.ndarray, "envs 15"]:
    """Return the actions that begin one of the given moves, or lead to a thing in the cell.

    A move is begun by pushing its way. Beside the middle of the cell the agent may push back there
    at the same time, and must where it would not fit into the next cell.

    Args:
        moves: the moves (left, down, up, right) that are right; none to fetch what is in the cell.
        away: (x, y) of the agent, from the middle of its cell.
        fetch: (x, y) of the thing that is fetched, from the agent.
    """
    back = -np.sign(away) * (np.abs(away) > NEAR)
    free = np.abs(away) <= FITS
    actions = np.zeros((len(moves), NUM_ACTIONS), np.bool_)
    for move, (right, up) in enumerate(_TOWARDS):
        along, across = (0, 1) if right else (1, 0)
        pushed = _SIDES[:, along] == (right or up)
        side = _SIDES[:, across]
        fits = (side == back[:, across, None]) | (free[:, across, None] & (side == 0))
        actions[:, :9] |= moves[:, move, None] & pushed & fits
    sides = np.sign(fetch) * (np.abs(fetch) > NEAR)
    towards = ((_SIDES == sides[:, None]) | (_SIDES == 0)).all(2) & (_SIDES != 0).any(1)
    longer = np.abs(fetch).argmax(1)
    towards &= np.take_along_axis(_SIDES[None] != 0, longer[:, None, None], 2)[..., 0]
    actions[:, :9] |= ~moves.any(1, keepdims=True) & towards
    return actions


class ExpertHeists:
    """Heist environments whose levels change all the time, and the expert's actions in them.

    A level starts as the game has it or, more often, somewhere on the way: some keys are held, the
    locks that were opened are gone, and the agent is in any cell that it can get to. It ends at the
    gem or at random. Whoever steps the environments chooses the actions, so that the states are
    those the student itself gets into.

    Args:
        num_envs: number of heists played at once.
        levels: seeds to draw levels from, with replacement.
        seed: of levels, starts and ends; the same seed gives the same states.
        mode: distribution mode.
        new_level: probability at each step that an environment goes on to another level.
        anywhere: share of levels that start somewhere on the way.
    """

    def __init__(
        self,
        num_envs: int,
        levels: Levels,
        seed: int,
        *,
        mode: str = "easy",
        new_level: float = 1 / 24,
        anywhere: float = 0.6,
    ) -> None:
        self.num_envs = num_envs
        self._env = ProcgenVecEnv(
            "heist",
            num_envs,
            num_levels=levels.count,
            start_level=levels.start,
            mode=mode,
            seed=seed,
            num_threads=1,
        )
        self._random = np.random.default_rng(seed)
        self._new_level, self._anywhere = new_level, anywhere
        size = Heist.from_bytes(self._env.get_states([0])[0]).size
        self._known = np.zeros(num_envs, np.int64)
        self._steps = np.zeros((num_envs, SETS, size, size), np.int64)
        self._moves = np.zeros((num_envs, SETS, size, size, 4), np.bool_)
        self._things = np.zeros((num_envs, SETS, size, size, 2))
        self._agent = np.zeros((num_envs, 2))
        self._held = np.zeros(num_envs, np.int64)
        self._start(np.arange(num_envs))
        self._look()
        self.observations: UInt8[np.ndarray, "envs 3 64 64"] = self._env.observe()

    @property
    def right(self) -> Bool[np.ndarray, "envs 15"]:
        """The expert's actions in each environment's state: all that begin a shortest way."""
        middle = self._agent // 1 + 0.5
        fetch = self._things[self._here] - self._agent
        return right_actions(self._moves[self._here], self._agent - middle, fetch)

    @property
    def steps_to_go(self) -> Float32[np.ndarray, "envs"]:
        """About how many steps the expert takes to the gem: `STEPS_PER_CELL` for each cell."""
        return np.maximum(1, STEPS_PER_CELL * self._steps[self._here]).astype(np.float32)

    @property
    def _here(self) -> tuple[np.ndarray, ...]:
        columns, rows = self._agent.astype(np.int64).T
        return np.arange(self.num_envs), self._held, rows, columns

    def step_async(self, actions: Int64[np.ndarray, "envs"]) -> None:
        """Start a step; the simulator runs while the caller does other things."""
        ends = self._random.random(self.num_envs) < self._new_level
        self._env.step_async(np.where(ends, NEW_LEVEL, actions).astype(np.int32))

    def step_wait(self) -> None:
        """Finish the step: `observations`, `right` and `steps_to_go` are those of the new states."""
        observations, _, dones, _ = self._env.step_wait()
        self.observations = np.asarray(observations)
        if dones.any() and self._start(np.flatnonzero(dones)):
            self.observations = self._env.observe()
        self._look()

    def _look(self) -> None:
        """See where the agents are and what they hold."""
        for index, state in enumerate(self._env.get_states()):
            x, y, self._held[index] = agent_now(state, self._known[index])
            self._agent[index] = x, y

    def _start(self, which: np.ndarray) -> bool:
        """Search the new levels of these environments and move some on; return whether any was."""
        moved: dict[int, bytes] = {}
        for index, state in zip(which.tolist(), self._env.get_states(which), strict=True):
            heist = Heist.from_bytes(state)
            ways, sets = key_ways(heist), 1 << len(heist.has_keys)
            self._known[index] = len(heist.has_keys)
            self._steps[index, :sets] = ways.steps
            self._moves[index, :sets] = ways.moves
            self._things[index, :sets] = things_to_fetch(heist)
            if self._random.random() < self._anywhere:
                moved[index] = on_the_way(heist, self._random).to_bytes()
        if moved:
            self._env.set_states(list(moved.values()), list(moved))
        return bool(moved)

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()


def things_to_fetch(heist: Heist) -> Float64[np.ndarray, "held rows columns 2"]:
    """Return (x, y) of the gem or key in each cell; of a key only for sets without it, else 0."""
    there = np.zeros((1 << len(heist.has_keys), heist.size, heist.size, 2))
    entities = heist.entities
    for kind in (KEY, GEM):  # in this order: the gem ends all
        for thing in entities[entities["type"] == kind]:
            x, y, colour = float(thing["x"]), float(thing["y"]), int(thing["image_theme"])
            for held in range(len(there)):
                if kind == GEM or not held >> colour & 1:
                    there[held, int(y), int(x)] = x, y
    return there


def on_the_way(heist: Heist, random: np.random.Generator) -> Heist:
    """Return a state of a level in which a part of the way to the gem has been gone.

    As likely with one number of keys held as with another: the keys on the part are held, its locks
    are gone, and the agent is in any empty cell that it can get to then.
    """
    way, lying = key_route(heist), {key.cell for key in heist.keys}
    gone = [0, *(index + 1 for index, cell in enumerate(way) if cell in lying)]
    passed = set(way[: gone[random.integers(len(gone))]])
    for colour, cell in heist.keys:
        if cell in passed:
            heist = heist.with_keys(colour).with_held_key(colour)
    for colour, cell in heist.locks:
        if cell in passed:
            heist = heist.with_locks(colour)
    things = {*heist.gem, *(item.cell for item in (*heist.keys, *heist.locks))}
    near = distances(heist.walls(), heist.agent) != UNREACHABLE
    cells = [cell for cell in cells_of(near) if cell not in things]
    return heist.with_agent(cells[random.integers(len(cells))])
