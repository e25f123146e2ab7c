"""Levels in play that change all the time, each state labelled with an expert's actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from rlbilinear.envs import Levels, ProcgenVecEnv

NEW_LEVEL = -1
"""The simulator's action that ends an episode."""

Level = TypeVar("Level")


class ExpertLevels(ABC, Generic[Level]):
    """Environments of one game whose levels change all the time, and the expert's actions in them.

    A level starts as the game has it or, more often, elsewhere on the way; it ends where the game
    ends it, or at random. Whoever steps the environments chooses the actions, so that the states
    are those the student itself gets into, loops included.

    A subclass follows its levels in arrays of its own, without reading the simulator's states:
    these are read once a level.

    Args:
        num_envs: number of levels played at once.
        levels: seeds to draw levels from, with replacement.
        seed: seed of levels, starts and ends; the same seed gives the same states.
        mode: distribution mode.
        new_level: probability at each step that an environment goes on to another level.
        anywhere: share of levels that start elsewhere.
    """

    game: ClassVar[str]

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
            self.game,
            num_envs,
            num_levels=levels.count,
            start_level=levels.start,
            mode=mode,
            seed=seed,
            num_threads=1,
        )
        self._random = np.random.default_rng(seed)
        self._new_level, self._anywhere = new_level, anywhere
        self._actions = np.zeros(num_envs, np.int64)
        self._make_room(self._env.get_states([0])[0])
        self._start(np.arange(num_envs))
        self.observations: UInt8[np.ndarray, "envs 3 64 64"] = self._env.observe()

    @property
    @abstractmethod
    def right(self) -> Bool[np.ndarray, "envs 15"]:
        """Which actions are the expert's in each environment's state: one or more."""

    @property
    @abstractmethod
    def steps_to_go(self) -> Shaped[np.ndarray, " envs"]:
        """The expert's steps to the end of the level."""

    @abstractmethod
    def _make_room(self, state: bytes) -> None:
        """Make the arrays that levels are followed in, for levels of this one's size."""

    @abstractmethod
    def _begin(self, index: int, state: bytes) -> Level:
        """Search an environment's new level, follow it from its start, and return it."""

    @abstractmethod
    def _elsewhere(self, index: int, level: Level) -> bytes:
        """Follow a level that has just begun from elsewhere, and return the state there."""

    @abstractmethod
    def _follow(self) -> None:
        """Make the step that `_actions` are in what is followed, while the simulator makes it."""

    def _correct(self, dones: Bool[np.ndarray, "envs"]) -> None:
        """Read from the simulator what could not be known of its step, but for levels that end."""

    def step_async(self, actions: Int64[np.ndarray, "envs"]) -> None:
        """Start a step; the simulator runs while the caller does other things."""
        ends = self._random.random(self.num_envs) < self._new_level
        self._actions = np.where(ends, NEW_LEVEL, actions)
        self._env.step_async(self._actions.astype(np.int32))

    def step_wait(self) -> None:
        """Finish the step: observations, right actions and steps to go are of the new states."""
        self._follow()
        observations, _, dones, _ = self._env.step_wait()
        self.observations = np.asarray(observations)
        self._correct(dones)
        if dones.any() and self._start(np.flatnonzero(dones)):
            self.observations = self._env.observe()

    def _start(self, which: np.ndarray) -> bool:
        """Begin the new levels of these environments, some elsewhere; return whether any was."""
        moved: dict[int, bytes] = {}
        for index, state in zip(which.tolist(), self._env.get_states(which), strict=True):
            level = self._begin(index, state)
            if self._random.random() < self._anywhere:
                moved[index] = self._elsewhere(index, level)
        if moved:
            self._env.set_states(list(moved.values()), list(moved))
        return bool(moved)

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()
