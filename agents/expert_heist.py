"""Heists in play, each state labelled with the actions that begin a shortest way to the gem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from rlbilinear.agents.expert import NEW_LEVEL
from rlbilinear.envs import ACTIONS_OF_MOVE, Heist, Levels, Move, ProcgenVecEnv
from rlbilinear.envs.grid import UNREACHABLE, cells_of, search
from rlbilinear.envs.heist_guide import HeistGuide
from rlbilinear.envs.heist_motion import undecided
from rlbilinear.envs.heist_things import GEM, KEY, LOCK, things
from rlbilinear.envs.key_ways import KeyWays

STAY = ACTIONS_OF_MOVE[Move.STAY][0]


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
        self._guide = HeistGuide(num_envs, size)
        self._actions = np.zeros(num_envs, np.int64)
        self._start(np.arange(num_envs))
        self.observations: UInt8[np.ndarray, "envs 3 64 64"] = self._env.observe()

    @property
    def right(self) -> Bool[np.ndarray, "envs 15"]:
        """The expert's actions in each environment's state: all that begin a shortest way."""
        return self._guide.right

    @property
    def steps_to_go(self) -> Float32[np.ndarray, "envs"]:
        """About how many steps the expert takes to the gem."""
        return self._guide.steps_to_go

    def step_async(self, actions: Int64[np.ndarray, "envs"]) -> None:
        """Start a step; the simulator runs while the caller does other things."""
        ends = self._random.random(self.num_envs) < self._new_level
        self._actions = np.where(ends, NEW_LEVEL, actions)
        self._env.step_async(self._actions.astype(np.int32))

    def step_wait(self) -> None:
        """Finish the step: `observations`, `right` and `steps_to_go` are those of the new states.

        The agents are followed without reading the simulator's states, which are read once a level,
        and where a step is the simulator's chance.
        """
        chance = undecided(self._guide.agents, self._actions)
        self._guide.step(np.where(self._actions == NEW_LEVEL, STAY, self._actions))
        observations, _, dones, _ = self._env.step_wait()
        self.observations = np.asarray(observations)
        seen = np.flatnonzero(chance & ~dones)
        for index, state in zip(seen.tolist(), self._env.get_states(seen), strict=True):
            self._guide.put_agent(index, Heist.from_bytes(state))
        if dones.any() and self._start(np.flatnonzero(dones)):
            self.observations = self._env.observe()

    def _start(self, which: np.ndarray) -> bool:
        """Search the new levels of these environments and move some on; return whether any was."""
        moved: dict[int, bytes] = {}
        for index, state in zip(which.tolist(), self._env.get_states(which), strict=True):
            heist = Heist.from_bytes(state)
            ways = self._guide.put(index, heist)
            if self._random.random() < self._anywhere:
                heist = on_the_way(heist, ways, self._random)
                self._guide.put_agent(index, heist)
                moved[index] = heist.to_bytes()
        if moved:
            self._env.set_states(list(moved.values()), list(moved))
        return bool(moved)

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()


def on_the_way(heist: Heist, ways: KeyWays, random: np.random.Generator) -> Heist:
    """Return a state of a level in which a part of the way to the gem has been gone.

    As likely with one number of keys held as with another: the keys on the part are held, its locks
    are gone, and the agent is in any empty cell that it can get to then.

    Args:
        heist: the level as it begins.
        ways: those in it.
        random: chooses the part and the cell.
    """
    way, keys = ways.way(heist), {key.cell for key in heist.keys}
    gone = [0, *(index + 1 for index, cell in enumerate(way) if cell in keys)]
    passed = set(way[: gone[random.integers(len(gone))]])
    there = things(heist.entities)
    stays = [each.kind not in (KEY, LOCK) or each.cell not in passed for each in there]
    taken = {each.theme for each in there if each.kind == KEY and each.cell in passed}
    has_keys = tuple(has or colour in taken for colour, has in enumerate(heist.has_keys))
    heist = replace(heist, entities=heist.entities[stays], has_keys=has_keys)
    occupied = {each.cell for each in there if each.kind in (KEY, LOCK, GEM)}
    near = search(heist.walls(), heist.agent).steps != UNREACHABLE
    cells = [cell for cell in cells_of(near) if cell not in occupied or cell in passed]
    return heist.with_agent(cells[random.integers(len(cells))])
