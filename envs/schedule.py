"""Given levels, and which of them each environment plays next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, get_args

import numpy as np
from jaxtyping import Int64

from rlbilinear.envs.games import MODE_CODES
from rlbilinear.envs.state import episode_clock, parse
from rlbilinear.envs.state_checks import validate_state

Order = Literal["in turn", "random"]


class Situation(Protocol):
    """A state as a value: `Maze` and `Heist` are ones."""

    def to_bytes(self) -> bytes:
        """Return the state as the simulator reads it."""


class Schedule:
    """Which of the given levels each environment plays, episode after episode.

    An environment's levels depend on its number and on how many episodes it has begun, never on
    when the others end theirs; so a run repeats whatever the timing, and whatever is played.

    - "in turn": the k-th episode of environment i plays level `(i + k * num_envs) % len(levels)`.
      The environments share the list: together their first episodes play the first `num_envs`
      levels, their second ones the next, and so on, from the front again at the end. With as many
      environments as levels, each plays its own level for ever.
    - "random": each level is drawn with replacement from a generator seeded by (seed, i).

    Args:
        levels: values, such as `Maze`, or states as bytes; sizes and modes may be mixed.
        env_name: the game that all of them must be states of.
        num_envs: number of environments.
        order: "in turn" or "random".

    Raises:
        ValueError: there are no levels, one is no sound state of the game (its place in the list is
            given), or the order is not one of the two.
    """

    def __init__(
        self,
        levels: Sequence[Situation | bytes],
        env_name: str,
        num_envs: int,
        order: Order = "in turn",
    ) -> None:
        if order not in get_args(Order):
            raise ValueError(f"order must be one of {list(get_args(Order))}, got {order!r}")
        self.levels = tuple(levels)
        """What was given."""
        if not self.levels:
            raise ValueError("levels= is empty; give at least one level")
        self.mode = "easy"
        """Distribution mode of the first, for the simulator to be made with."""
        self._clocks = np.empty((len(self.levels), 2), np.int64)
        for index in range(len(self.levels)):
            try:
                raw = self.state(index)
                if index == 0:
                    self.mode = _mode(raw)
                self._clocks[index] = _check(raw, env_name, self.mode)
            except ValueError as error:
                raise ValueError(f"levels[{index}]: {error}") from error
        self._order, self._num_envs = order, num_envs

    def __len__(self) -> int:
        return len(self.levels)

    def restart(self, seed: int) -> None:
        """Go to before every environment's first episode; this comes before all else.

        Args:
            seed: of the random order.
        """
        self._episodes = np.zeros(self._num_envs, np.int64)
        self._random = [np.random.default_rng([seed, i]) for i in range(self._num_envs)]
        self.playing: Int64[np.ndarray, " envs"] = np.zeros(self._num_envs, np.int64)
        """The place in the list of the level that each environment plays."""

    def next(self, where: Iterable[int]) -> list[bytes]:
        """Begin another episode in these environments, and return the states to start from."""
        states = []
        for index in where:
            if self._order == "random":
                level = int(self._random[index].integers(len(self)))
            else:
                level = (index + int(self._episodes[index]) * self._num_envs) % len(self)
            self._episodes[index] += 1
            self.playing[index] = level
            states.append(self.state(level))
        return states

    def clocks(self, where: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, "some 2"]:
        """Return the time at which these environments' levels begin, and their step limits."""
        return self._clocks[self.playing[where]]

    def state(self, level: int) -> bytes:
        """Return a level's state. A value's bytes are made when asked for: it takes less memory."""
        given = self.levels[level]
        if isinstance(given, bytes):
            return given
        if not hasattr(given, "to_bytes") or isinstance(given, int):  # an int has one, too
            raise ValueError(f"expected a Maze, a Heist or bytes, got {type(given).__name__}")
        return given.to_bytes()


def _mode(raw: bytes) -> str:
    code = parse(raw).options.distribution_mode
    for name, number in MODE_CODES.items():
        if number == code:
            return name
    raise ValueError(f"distribution mode {code}; accepted are {sorted(MODE_CODES.values())}")


def _check(raw: bytes, env_name: str, mode: str) -> tuple[int, int]:
    """Return time and step limit of a sound state that can be played again and again."""
    validate_state(raw, env_name, mode)
    if parse(raw).options.use_sequential_levels:
        raise ValueError(
            "its use_sequential_levels is on: such a game goes on to levels of its own "
            "without an end of the episode"
        )
    return episode_clock(raw)
