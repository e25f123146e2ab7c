"""The state in which the simulator begins a level, of any game and seed."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import numpy as np

from rlbilinear.envs.argument_names import check_switches
from rlbilinear.envs.games import check_game, check_level_seed, check_mode
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import State, parse

_NEW_LEVEL = np.array([-1], np.int32)
_KEPT = 1024
"""States that are kept, about 20 kB each: levels that come up again cost nothing."""
_SOURCES = 64
"""Simulators that are kept to ask, one for each game, mode and switches."""

_lock = threading.Lock()


def level_state(env_name: str, seed: int, mode: str = "easy", **options: bool) -> bytes:
    """Return the state of a level's first frame; its level range is that level alone.

    It is the state in which a new simulator with `num_levels=1` and `start_level=seed` begins, to
    the byte (with `seed=0`, on which only the generator that draws from that range depends). A
    later episode of the level can be another: some fields outlive a level. Where the exit is next
    to a miner's start, the first step there completes the level in a new simulator, which has not
    counted the diamonds yet, and not in one that has played before.

    Args:
        env_name: one of `GAMES`.
        seed: of the level.
        mode: distribution mode, one of `GAMES[env_name]`.
        options: ProcGen's switches, see `Simulator.OPTIONS`.

    Raises:
        ValueError: an argument is not accepted; the message lists what is.
        ImportError: the simulator cannot be loaded.
    """
    check_game(env_name)
    check_mode(env_name, mode)
    check_switches(options)
    if options.get("use_sequential_levels"):
        raise ValueError("use_sequential_levels adds levels of its own: no level is exact")
    return _level_state(env_name, check_level_seed(seed), mode, tuple(sorted(options.items())))


@functools.lru_cache(maxsize=_KEPT)
def _level_state(
    env_name: str, seed: int, mode: str, options: tuple[tuple[str, bool], ...]
) -> bytes:
    with _lock:
        simulator, fresh = _source(env_name, mode, options)
        alone = fresh.options._replace(level_seed_low=seed, level_seed_high=seed + 1)
        simulator.set_unchecked(0, fresh._replace(options=alone).to_bytes())
        simulator.act(_NEW_LEVEL)
        (raw,) = simulator.get_states()
    return _as_if_new(parse(raw), fresh).to_bytes()


@functools.lru_cache(maxsize=_SOURCES)
def _source(
    env_name: str, mode: str, options: tuple[tuple[str, bool], ...]
) -> tuple[Simulator, State]:
    """Return a simulator to ask for levels, and the state in which it was made.

    One that is made for each level would be simpler, but takes 3 to 5 times as long, and each
    leaves 10 kB behind in cffi's caches.
    """
    simulator = Simulator(env_name, mode=mode, num_threads=0, **dict(options))
    (raw,) = simulator.get_states()
    return simulator, parse(raw)


def _as_if_new(begun: State, fresh: State) -> State:
    """Put back what the step before a level has left, where the level itself sets nothing."""
    kept = _TAILS.get(begun.game, lambda tail: tail)
    return begun._replace(
        level_generator=fresh.level_generator,
        episode=fresh.episode._replace(
            current_level_seed=begun.episode.current_level_seed,
            timeout=begun.episode.timeout,
            grid_size=begun.episode.grid_size,
        ),
        view=begun.view._replace(
            move_action=fresh.view.move_action,
            special_action=fresh.view.special_action,
            action_vx=fresh.view.action_vx,
            action_vy=fresh.view.action_vy,
            action_vrot=fresh.view.action_vrot,
            step_rand_int=fresh.view.step_rand_int,
        ),
        tail=kept(begun.tail),
    )


_TAILS: dict[str, Callable[[bytes], bytes]] = {
    "bossfight": lambda tail: tail[:-16] + bytes(16),  # the last step's four random numbers
    "miner": lambda tail: bytes(4),  # diamonds_remaining, which the first step counts
}
"""Fields of a game's own that a new simulator has at 0 and a new level leaves as they were."""
