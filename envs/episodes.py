"""Copies of a game, their episodes counted: what every vector environment here is made of."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from rlbilinear.envs.schedule import Order, Playable, Schedule, check_order
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import episode_clock

Images = UInt8[np.ndarray, "envs 64 64 3"]
NEW_LEVEL = -1
"""The action that ends an episode."""


class Ended(NamedTuple):
    """The episodes that a step ended, one entry for each."""

    where: Int64[np.ndarray, " ended"]
    """in which environments"""
    returns: Float64[np.ndarray, " ended"]
    lengths: Int64[np.ndarray, " ended"]
    level_seeds: Int64[np.ndarray, " ended"]
    level_indices: Int64[np.ndarray, " ended"] | None
    """places in the list of given levels; None where none were given"""
    complete: Bool[np.ndarray, " ended"]
    """whether the simulator counts the level as completed"""
    truncated: Bool[np.ndarray, " ended"]
    """whether the step limit ended it"""


class Step(NamedTuple):
    """What a step gave; the arrays are the caller's to keep."""

    images: Images
    """where an episode ended, the next one's first"""
    rewards: Float32[np.ndarray, " envs"]
    dones: Bool[np.ndarray, " envs"]
    ended: Ended | None
    """None when no episode did"""


class Episodes:
    """Copies of a game, stepped together; each begins another level when its episode ends.

    Args:
        env_name: one of `GAMES`.
        num_envs: number of copies.
        levels: what to play, again at every reset and end of an episode: level seeds, values or
            states; see `Schedule`. None plays levels that the simulator draws.
        order: of the given levels, "in turn" or "random"; None is "in turn".
        mode: distribution mode of generated levels; None is "easy".
        num_levels: number of generated levels; 0 takes all from `start_level` on.
        start_level: seed of the first generated level.
        seed: seed of the sequence of levels.
        num_threads: the simulator's threads.
        human_view: also render the human view at each step (slow).
        options: the switches of generated levels, see `Simulator.OPTIONS`.

    Raises:
        ValueError: an argument is not accepted; the message lists what is.
        ImportError: the simulator cannot be loaded; the message says what it needs.
    """

    def __init__(
        self,
        env_name: str,
        num_envs: int,
        *,
        levels: Sequence[Playable] | None = None,
        order: Order | None = None,
        mode: str | None = None,
        num_levels: int = 0,
        start_level: int = 0,
        seed: int = 0,
        num_threads: int = 4,
        human_view: bool = False,
        **options: bool,
    ) -> None:
        check_order(order)
        if levels is None and order is not None:
            raise ValueError(
                f"order={order!r} is of given levels=: without these, the simulator draws each "
                "level at random from num_levels and start_level"
            )
        if levels is not None and (num_levels or start_level):
            raise ValueError("levels= says which there are: leave out num_levels and start_level")
        self.schedule: Schedule | None = None
        if levels is not None:
            self.schedule = Schedule(levels, env_name, num_envs, order, mode=mode, options=options)
            mode = self.schedule.mode
        self.env_name, self.num_envs, self.options = env_name, num_envs, options
        self.mode = "easy" if mode is None else mode
        self._make = functools.partial(
            Simulator,
            env_name,
            num_envs,
            mode=self.mode,
            num_levels=num_levels,
            start_level=start_level,
            num_threads=num_threads,
            human_view=human_view,
            **options,
        )
        self._simulator = self._make(seed=seed)
        self._untouched = True
        """Nothing was played, set or begun since this was made."""
        if self.schedule is not None:
            self.schedule.restart(seed)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self._clocks = np.zeros(num_envs, np.int64)
        self._limits = np.zeros(num_envs, np.int64)
        self._seeds = np.zeros(num_envs, np.int64)
        self._begin_all()

    def begin(self, seed: int | None = None) -> None:
        """Begin the first episode everywhere, at first, and then another each time.

        Args:
            seed: to begin the sequence of levels again.
        """
        if seed is not None or not self._untouched:
            self.restart(seed)
        self._untouched = False

    def restart(self, seed: int | None = None) -> None:
        """Begin another episode everywhere; with a seed, the sequence of levels starts again."""
        self._untouched = False
        if seed is not None:
            if self.schedule is None:
                another = self._make(seed=seed)
                self._simulator.close()
                self._simulator = another
            else:
                self.schedule.restart(seed)
        elif self.schedule is None:
            self._simulator.act(np.full(self.num_envs, NEW_LEVEL, np.int32))
        self._begin_all()

    def act(self, actions: np.ndarray) -> None:
        """Start a step; the simulator's threads run it while the caller does other things.

        Action -1 stands still and then ends the episode.

        Raises:
            ValueError: the actions are not `num_envs` integers in -1..14.
        """
        self._simulator.act(actions)
        self._untouched = False
        self._lengths += 1
        self._clocks += 1

    def wait(self) -> Step:
        """Finish the step."""
        frame = self._simulator.observe()
        # Given levels are put in below, which overwrites what the frame shows.
        rewards, dones = frame.rewards.copy(), frame.first.copy()
        self._returns += rewards
        ended = None
        if dones.any():
            where = np.flatnonzero(dones)
            ended = self._ended(where)
            self._begin(where)
        return Step(frame.images.copy(), rewards, dones, ended)

    def images(self) -> Images:
        """Return what is seen now, for instance after `set_states`."""
        return self._simulator.observe().images.copy()

    def human_views(self) -> UInt8[np.ndarray, "envs 512 512 3"]:
        """Return what a human player would see now (needs `human_view`)."""
        self._simulator.observe()
        return self._simulator.info("rgb").copy()

    def level_seeds(self) -> list[int]:
        """Return the seed of the level that each environment shows; while a step runs, showed."""
        return self._seeds.tolist()

    def level_indices(self) -> list[int] | None:
        """Return the place of each environment's level among those given; None without these."""
        return self.schedule.playing.tolist() if self.schedule is not None else None

    def get_states(self, indices: Iterable[int] | None = None) -> list[bytes]:
        """Return the simulator's states of these environments (default all)."""
        return self._simulator.get_states(indices)

    def set_states(self, states: Sequence[bytes], indices: Iterable[int] | None = None) -> None:
        """Put these environments (default all) into these states, as the start of an episode.

        Raises:
            ValueError: a state is malformed or of another game; nothing was set.
        """
        where = list(range(self.num_envs) if indices is None else indices)
        self._simulator.set_states(states, where)
        self._untouched = False
        self._reset_counts(where)
        self._note_seeds(where)
        for index, state in zip(where, states, strict=True):
            self._clocks[index], self._limits[index] = episode_clock(state)

    def close(self) -> None:
        """Free the simulator."""
        self._simulator.close()

    def _begin_all(self) -> None:
        if self.schedule is None:
            (state,) = self._simulator.get_states([0])
            _, self._limits[:] = episode_clock(state)
        self._begin(np.arange(self.num_envs))

    def _begin(self, where: Int64[np.ndarray, " some"]) -> None:
        """Count new episodes, and put in the given levels: the simulator has generated its own."""
        self._reset_counts(where)
        if self.schedule is not None:
            indices = where.tolist()
            for index, state in zip(indices, self.schedule.next(indices), strict=True):
                self._simulator.set_unchecked(index, state)  # the schedule has checked it
            self._clocks[where], self._limits[where] = self.schedule.clocks(where).T
        self._note_seeds(where)

    def _note_seeds(self, where: Any) -> None:
        self._seeds[where] = self._simulator.info("level_seed")[where]

    def _reset_counts(self, where: Any) -> None:
        self._returns[where] = 0.0
        self._lengths[where] = 0
        self._clocks[where] = 0

    def _ended(self, where: Int64[np.ndarray, " ended"]) -> Ended:
        complete = self._simulator.info("prev_level_complete")[where].astype(bool)
        return Ended(
            where,
            self._returns[where],
            self._lengths[where],
            self._simulator.info("prev_level_seed")[where].astype(np.int64),
            self.schedule.playing[where] if self.schedule is not None else None,
            complete,
            (self._clocks[where] >= self._limits[where]) & ~complete,
        )
