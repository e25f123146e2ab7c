"""Levels that nobody can play, a fault of the simulator, found by trying every action."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool

from rlbilinear.envs.games import NUM_ACTIONS
from rlbilinear.envs.level_states import level_state
from rlbilinear.envs.simulator import Simulator


def unplayable(
    env_name: str, seeds: Iterable[int], mode: str = "easy", **options: bool
) -> Bool[np.ndarray, " seeds"]:
    """Return which levels are over at the first step, without a reward, whatever one does.

    Every action is tried in the simulator, from the level's first state. Nearly all such levels are
    jumper's: in about one of ten the bunny starts on a spike.

    Args:
        env_name: one of `GAMES`.
        seeds: seeds of the levels.
        mode: distribution mode, one of `GAMES[env_name]`.
        options: ProcGen's switches, see `Simulator.OPTIONS`.

    Raises:
        ValueError: an argument is not accepted; the message lists what is.
        ImportError: the simulator cannot be loaded.
    """
    if isinstance(seeds, str | bytes) or not isinstance(seeds, Iterable):
        raise ValueError(f"seeds are of levels, such as range(100); got {seeds!r}")
    simulator = Simulator(env_name, mode=mode, num_threads=0, **options)
    try:
        states = (level_state(env_name, seed, mode, **options) for seed in seeds)
        return np.array([_is_lost(simulator, state) for state in states], bool)
    finally:
        simulator.close()


def _is_lost(simulator: Simulator, state: bytes) -> bool:
    """Return whether every action ends the episode at once, without a reward."""
    for action in range(NUM_ACTIONS):
        simulator.set_unchecked(0, state)
        simulator.act(np.array([action], np.int32))
        frame = simulator.observe()
        if not frame.first[0] or frame.rewards[0] != 0:
            return False
    return True
