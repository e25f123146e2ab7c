"""The ProcGen simulator: games and modes, a quiet import, and a thin handle on the C library.

`Simulator` is everything the rest of the package needs of gym3: act, observe, and states in and
out. It adds what the C++ side lacks: arguments and states are checked in Python, because there a
bad value ends the whole process.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from rlbilinear.envs.argument_names import OPTIONS, check_switches, takes_procgen_names
from rlbilinear.envs.games import (
    LARGEST_SEED,
    NUM_ACTIONS,
    NUM_LEVELS,
    check_game,
    check_mode,
    is_whole,
)
from rlbilinear.envs.state_checks import validate_state

_STATE_BUFFER_BYTES = 2**24
"""Of the longest state: the simulator ends the process when a state does not fit."""


def silence_gym_notice() -> None:
    """Drop the maintenance notice that old gym prints when imported, and nothing else.

    procgen imports gym, and so does stable_baselines3 when it finds it installed.
    """
    try:
        from gym_notices.notices import notices  # type: ignore[import-untyped]

        notices.pop(importlib.metadata.version("gym"), None)
    except ImportError:  # PackageNotFoundError is one too: no gym, no notice
        return


def import_procgen() -> ModuleType:
    """Import the module `procgen`, quietly.

    Raises:
        ImportError: procgen is not installed, or a system library it needs is missing.
    """
    silence_gym_notice()
    try:
        import procgen
    except ImportError as error:
        raise ImportError(_missing(error)) from error
    return procgen


def _missing(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "procgen":
        return (
            "the ProcGen simulator is not installed: pip install 'rlbilinear[procgen]', on Python "
            "3.10 to 3.12 (from 3.11 on, on Linux with x86_64); elsewhere everything but the games "
            "works"
        )
    return (
        f"the ProcGen simulator cannot be loaded: {error}. It needs the system libraries "
        "libGL.so.1 and libglib-2.0.so.0 (Debian and Ubuntu: apt-get install libgl1 libglib2.0-0)"
    )


class Frame(NamedTuple):
    """What the simulator shows now. Views of its buffers: the next act overwrites them."""

    rewards: Float32[np.ndarray, " envs"]
    images: UInt8[np.ndarray, "envs 64 64 3"]
    first: Bool[np.ndarray, " envs"]


class Simulator:
    """Copies of one game, stepped together.

    Its threads do not come along when the process is forked: a child that uses what its parent made
    waits for ever, or dies. Make simulators in the process that uses them, and start processes by
    "spawn" or "forkserver", or make the parent's with `num_threads=0`.

    Args:
        env_name: one of `GAMES`.
        num_envs: number of copies.
        mode: distribution mode, one of `GAMES[env_name]`.
        num_levels: number of levels; 0 takes all from `start_level` on.
        start_level: seed of the first level.
        seed: seed of the sequence of levels.
        num_threads: the simulator's threads; 0 steps in the caller's.
        human_view: also render the 512x512 human view at each observe (slow).
        options: ProcGen's own switches, see `OPTIONS`.

    Raises:
        ValueError: an argument is not accepted; the message lists what is.
        ImportError: the simulator cannot be loaded.
    """

    OPTIONS = OPTIONS

    @takes_procgen_names
    def __init__(
        self,
        env_name: str,
        num_envs: int = 1,
        *,
        mode: str = "easy",
        num_levels: int = 0,
        start_level: int = 0,
        seed: int = 0,
        num_threads: int = 4,
        human_view: bool = False,
        **options: bool,
    ) -> None:
        check_game(env_name)
        check_mode(env_name, mode)
        num_envs = _checked("num_envs", num_envs, 1, 2**20)
        num_threads = _checked("num_threads", num_threads, 0, 1024)
        seed = check_seed(seed)
        start_level = _checked("start_level", start_level, 0, NUM_LEVELS - 1)
        num_levels = _checked("num_levels", num_levels, 0, NUM_LEVELS - start_level)
        check_switches(options)
        self.env_name, self.num_envs, self.mode = env_name, num_envs, mode
        procgen = import_procgen()
        try:
            self._env: Any = procgen.ProcgenGym3Env(
                num=num_envs,
                env_name=env_name,
                distribution_mode=mode,
                # The simulator ignores start_level when num_levels is 0.
                num_levels=num_levels or (NUM_LEVELS - start_level),
                start_level=start_level,
                rand_seed=seed,
                num_threads=num_threads,
                render_mode="rgb_array" if human_view else None,
                **options,
            )
        except OSError as error:  # dlopen's error names the missing library
            raise ImportError(_missing(error)) from error
        # Looked up now: cffi's look-up holds a lock that is not reentrant, and an environment that
        # is collected as garbage while another looks a function up would wait for ever to close.
        _ = self._env._c_lib.libenv_close
        self._env._reuse_arrays = True  # observe() then returns its buffers, not copies
        # Not cleared: what no state has reached costs no memory.
        allocate = self._env._ffi.new_allocator(should_clear_after_alloc=False)
        self._buffer = allocate(f"char[{_STATE_BUFFER_BYTES}]")

    def __reduce__(self) -> NoReturn:
        """Refuse copies and pickles: what the simulator's library holds has neither."""
        raise TypeError(
            "a simulator cannot be copied or pickled; make another one there, and give it the "
            "states (get_states, set_states)"
        )

    def act(self, actions: Int32[np.ndarray, " envs"]) -> None:
        """Start a step. Action -1 stands still and then starts a new level.

        Raises:
            ValueError: the actions are not `num_envs` integers in -1..14.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be {self.num_envs} integers, "
                f"got shape {actions.shape} of {actions.dtype}"
            )
        if actions.min() < -1 or actions.max() >= NUM_ACTIONS:
            raise ValueError(
                f"actions must be in 0..{NUM_ACTIONS - 1} (-1: a new level), "
                f"got {actions.min()}..{actions.max()}"
            )
        self._env.act(actions)

    def observe(self) -> Frame:
        """Wait for the step that runs, if any, and return what it gave."""
        rewards, observation, first = self._env.observe()
        return Frame(rewards, observation["rgb"], first)

    def info(self, name: str) -> np.ndarray:
        """Return a field for all copies, as of the last observe (a view).

        Fields: level_seed, prev_level_seed, prev_level_complete; rgb with `human_view`.
        """
        return self._env._info[name]

    def get_states(self, indices: Iterable[int] | None = None) -> list[bytes]:
        """Return the states of these copies (default all), about 20 kB and 0.1 ms each."""
        env, buffer = self._env, self._buffer
        view = env._ffi.buffer(buffer)
        return [
            view[: env.call_c_func("get_state", index, buffer, _STATE_BUFFER_BYTES)]
            for index in self._indices(indices)
        ]

    def set_states(self, states: Sequence[bytes], indices: Iterable[int] | None = None) -> None:
        """Put these copies (default all) into these states; `observe` then shows them.

        A state carries its level range and random generators: the levels that follow are its
        source's. Nothing is set unless every state is valid.

        Args:
            states: one for each copy; see `validate_state` for what they may hold.
            indices: of the copies.

        Raises:
            ValueError: a state is malformed, of another game, or one that would end the process, or
                the numbers do not match.
        """
        where = self._indices(indices)
        if len(states) != len(where):
            raise ValueError(f"got {len(states)} states for {len(where)} environments")
        for position, state in enumerate(states):
            try:
                validate_state(state, self.env_name, self.mode)
            except ValueError as error:
                raise ValueError(f"state {position} of {len(states)}: {error}") from error
        for index, state in zip(where, states, strict=True):
            self.set_unchecked(index, state)

    def set_unchecked(self, index: int, state: bytes) -> None:
        """Put a copy into a state that the caller vouches for: a bad one ends the process."""
        self._env.call_c_func("set_state", index, state, len(state))

    def close(self) -> None:
        """Free the simulator. Closing twice is harmless; to do anything else raises ValueError."""
        self._env.close()
        self._env = _Closed()

    def _indices(self, indices: Iterable[int] | None) -> Sequence[int]:
        if indices is None:
            return range(self.num_envs)
        chosen = list(indices)
        if wrong := [index for index in chosen if not is_whole(index)]:
            raise ValueError(f"environments are given by their numbers, got {wrong[0]!r}")
        if outside := [index for index in chosen if not 0 <= index < self.num_envs]:
            raise ValueError(f"no environments {outside}; there are 0..{self.num_envs - 1}")
        return chosen


class _Closed:
    """What stands in the place of a simulator that was freed."""

    def close(self) -> None:
        """Do nothing."""

    def __getattr__(self, _: str) -> NoReturn:
        raise ValueError("the environments are closed; make others")


@functools.lru_cache(maxsize=64)
def template_state(env_name: str, mode: str) -> bytes:
    """Return a fixed fresh state of a game and mode, to be edited into others."""
    simulator = Simulator(env_name, mode=mode, num_threads=0)
    (state,) = simulator.get_states()
    simulator.close()
    return state


def check_seed(seed: int) -> int:
    """Return the seed of a sequence of levels as Python's int, or raise ValueError."""
    return _checked("seed", seed, 0, LARGEST_SEED)


def _checked(name: str, value: int, low: int, high: int) -> int:
    if not is_whole(value):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, got {value}")
    return int(value)  # the simulator's binding takes no integers of numpy
