"""Given levels, and which of them each environment plays next."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol, get_args

import numpy as np
from jaxtyping import Int64

from rlbilinear.envs.games import MODE_CODES, check_game, check_level_seed, check_mode, is_whole
from rlbilinear.envs.level_states import level_state
from rlbilinear.envs.state import episode_clock, parse
from rlbilinear.envs.state_checks import validate_state

Order = Literal["in turn", "random"]


class Situation(Protocol):
    """A state as a value: `Maze` and `Heist` are ones."""

    def to_bytes(self) -> bytes:
        """Return the state as the simulator reads it."""


Playable = Situation | bytes | int
"""A level to play: a value, a state as bytes, or a level's seed."""


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
        levels: level seeds; or values, such as `Maze`, and states as bytes, of any sizes and modes.
            Seeds stand for the very levels that the simulator begins with `num_levels=1` and
            `start_level=seed`, see `level_state`.
        env_name: the game that all of them must be levels of.
        num_envs: number of environments.
        order: "in turn" or "random"; None is "in turn".
        mode: distribution mode of seeds' levels; None is "easy". States have their own.
        options: ProcGen's switches of seeds' levels. States have their own.

    Raises:
        ValueError: there are no levels, one is not a level seed or not a sound state of the game
            (its place in the list is given), seeds and states are mixed, or the order is not
            one of the two.
    """

    def __init__(
        self,
        levels: Sequence[Playable],
        env_name: str,
        num_envs: int,
        order: Order | None = None,
        *,
        mode: str | None = None,
        options: Mapping[str, bool] | None = None,
    ) -> None:
        check_game(env_name)
        self.levels = _listed(levels)
        """What was given."""
        self._env_name, self._num_envs = env_name, num_envs
        self._order = check_order(order)
        self._options = dict(options or {})
        if is_whole(self.levels[0]):
            self.mode = "easy" if mode is None else mode
            """Distribution mode of the first, for the simulator to be made with."""
            check_mode(env_name, self.mode)
            self._check_seeds()
        else:
            if mode is not None or self._options:
                raise ValueError(
                    "given states carry their own mode and switches: leave out "
                    f"{', '.join(['mode'] * (mode is not None) + list(self._options))}"
                )
            self._check_states()

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
        """Return a level's state. It is made when asked for: that takes less memory."""
        given = self.levels[level]
        if isinstance(given, bytes):
            return given
        if isinstance(given, int | np.integer):
            return level_state(self._env_name, int(given), self.mode, **self._options)
        return given.to_bytes()

    def _check_seeds(self) -> None:
        """Check that all are level seeds, and note their clocks, which all levels share."""
        for index, given in enumerate(self.levels):
            if not is_whole(given):
                raise ValueError(
                    f"levels[{index}]: expected a level seed, as levels[0] is one, "
                    f"got {reprlib.repr(given)}"
                )
            try:
                check_level_seed(given)  # type: ignore[arg-type]  # an int
            except ValueError as error:
                raise ValueError(f"levels[{index}]: {error}") from error
        self._clocks = np.tile(episode_clock(self.state(0)), (len(self), 1))

    def _check_states(self) -> None:
        """Check that all are sound states of the game, and note their clocks."""
        self._clocks = np.empty((len(self), 2), np.int64)
        for index, given in enumerate(self.levels):
            try:
                if isinstance(given, int | np.integer) or not (
                    isinstance(given, bytes) or hasattr(given, "to_bytes")
                ):
                    raise ValueError(
                        "expected a Maze, a Heist or bytes (or level seeds alone), "
                        f"got {reprlib.repr(given)}"
                    )
                raw = self.state(index)
                if index == 0:
                    self.mode = _mode(raw)
                self._clocks[index] = _check(raw, self._env_name, self.mode)
            except ValueError as error:
                raise ValueError(f"levels[{index}]: {error}") from error


def check_order(order: str | None) -> Order:
    """Return the order in which given levels are played; raise ValueError for an unknown one."""
    if order is None:
        return "in turn"
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {list(get_args(Order))}, got {order!r}")
    return order  # type: ignore[return-value]  # just checked


def _listed(levels: Iterable[Playable]) -> tuple[Playable, ...]:
    if isinstance(levels, str | bytes) or not isinstance(levels, Iterable):
        raise ValueError(
            "levels= is a sequence of level seeds, values or states, such as [3, 5]; "
            f"got one {type(levels).__name__}"
        )
    listed = tuple(levels)
    if not listed:
        raise ValueError("levels= is empty; give at least one level")
    return listed


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
