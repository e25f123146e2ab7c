"""Heists in play, each state labelled with the actions that begin a shortest way to the gem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32

from rlbilinear.agents.expert_levels import NEW_LEVEL, ExpertLevels
from rlbilinear.envs import ACTIONS_OF_MOVE, Heist, Move
from rlbilinear.envs.grid import UNREACHABLE, cells_of, search
from rlbilinear.envs.heist_guide import HeistGuide
from rlbilinear.envs.heist_motion import undecided
from rlbilinear.envs.heist_things import GEM, KEY, LOCK, things
from rlbilinear.envs.key_ways import KeyWays

STAY = ACTIONS_OF_MOVE[Move.STAY][0]


class ExpertHeists(ExpertLevels[tuple[Heist, KeyWays]]):
    """Heists, and all actions that begin a shortest way to the gem in each of their states.

    A level starts as the game has it or somewhere on the way: some keys are held, the locks that
    were opened are gone, and the agent is in any cell that it can get to. Where a step is the
    simulator's chance, its state is read. Arguments are those of `ExpertLevels`.
    """

    game = "heist"

    @property
    def right(self) -> Bool[np.ndarray, "envs 15"]:
        """The expert's actions in each environment's state: all that begin a shortest way."""
        return self._guide.right

    @property
    def steps_to_go(self) -> Float32[np.ndarray, "envs"]:
        """About how many steps the expert takes to the gem."""
        return self._guide.steps_to_go

    def _make_room(self, state: bytes) -> None:
        self._guide = HeistGuide(self.num_envs, Heist.from_bytes(state).size)
        self._chance = np.zeros(self.num_envs, bool)

    def _begin(self, index: int, state: bytes) -> tuple[Heist, KeyWays]:
        heist = Heist.from_bytes(state)
        return heist, self._guide.put(index, heist)

    def _elsewhere(self, index: int, level: tuple[Heist, KeyWays]) -> bytes:
        heist = on_the_way(*level, self._random)
        self._guide.put_agent(index, heist)
        return heist.to_bytes()

    def _follow(self) -> None:
        self._chance = undecided(self._guide.agents, self._actions)
        self._guide.step(np.where(self._actions == NEW_LEVEL, STAY, self._actions))

    def _correct(self, dones: Bool[np.ndarray, "envs"]) -> None:
        seen = np.flatnonzero(self._chance & ~dones)
        for index, state in zip(seen.tolist(), self._env.get_states(seen), strict=True):
            self._guide.put_agent(index, Heist.from_bytes(state))


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
