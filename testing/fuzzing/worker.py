"""The process that tries mutated states on the simulator, and what it shares with its watcher."""

import os
import resource
from pathlib import Path

import numpy as np

from rlbilinear.envs import Simulator
from rlbilinear.envs.games import GAMES, NUM_ACTIONS
from rlbilinear.testing.fuzzing.mutations import KINDS, Case, case, warm_up

OUTCOMES = ("refused", "accepted")
EXTRA_MEMORY = 2**30
"""Bytes that a worker may take beyond what it has at its start."""


class Tally:
    """Counts of outcomes and the number of the case at hand, in a file that outlives a crash.

    Attributes:
        counts: (games, kinds, outcomes).
        at: the number of the case at hand, that of the first not to be tried, and 1 once the worker
            is warm.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        shape = (len(GAMES) * len(KINDS) * len(OUTCOMES) + 3,)
        words = np.memmap(path, np.int64, "w+" if create else "r+", shape=shape)
        self.at = words[:3]
        self.counts = words[3:].reshape(len(GAMES), len(KINDS), len(OUTCOMES))


class Player:
    """Puts states into simulators, one for each game and mode, and plays on."""

    def __init__(self) -> None:
        self._simulators: dict[tuple[str, str, bool], Simulator] = {}

    def warm_up(self, games: tuple[str, ...]) -> None:
        """Make all simulators, which load their pictures, before memory is limited."""
        for game in games:
            for mode in GAMES[game]:
                for large in (False, True):
                    self._simulator(game, mode, large)

    def try_case(self, tried: Case) -> bool:
        """Return whether the state is accepted; then step, draw and read it.

        One in 16 is also drawn large, one in 64 is played for long, half play into another level,
        a quarter is given to a simulator of any of the game's modes.
        """
        random, modes = tried.random, GAMES[tried.game]
        mode = modes[random.integers(len(modes))] if random.random() < 0.25 else tried.mode
        simulator = self._simulator(tried.game, mode, large=random.random() < 1 / 16)
        try:
            simulator.set_states([tried.raw])
        except ValueError:
            return False
        simulator.observe()
        steps = 300 if random.random() < 1 / 64 else int(random.integers(2, 7))
        for _ in range(steps):
            simulator.act(random.integers(NUM_ACTIONS, size=1))
            simulator.observe()
        (reached,) = simulator.get_states()
        if random.random() < 0.5:
            for action in (-1, int(random.integers(NUM_ACTIONS))):
                simulator.act(np.array([action]))
                simulator.observe()
            simulator.get_states()
        if random.random() < 0.25:  # what is reached from a mutated state is refused or harmless
            try:
                simulator.set_states([reached])
            except ValueError:
                return True
            simulator.act(random.integers(NUM_ACTIONS, size=1))
            simulator.observe()
        return True

    def _simulator(self, game: str, mode: str, large: bool) -> Simulator:
        """Return the simulator, the same one every time."""
        key = (game, mode, large)
        if key not in self._simulators:
            self._simulators[key] = Simulator(
                game, mode=mode, num_threads=0, seed=1, human_view=large
            )
        return self._simulators[key]


def work(games: tuple[str, ...], seed: int, tally_path: str, log_path: str) -> None:
    """Try the cases from the one at hand on, and count.

    The simulator writes why it ends the process to the standard output, which goes to the log.
    """
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    tally = Tally(Path(tally_path))
    player = Player()
    player.warm_up(games)
    warm_up(games, seed)
    all_games = list(GAMES)
    limit_memory()
    tally.at[2] = 1
    watcher = os.getppid()
    while tally.at[0] < tally.at[1] and os.getppid() == watcher:
        tried = case(games, seed, int(tally.at[0]))
        accepted = player.try_case(tried)
        tally.counts[all_games.index(tried.game), KINDS.index(tried.kind), int(accepted)] += 1
        tally.at[0] += 1


def limit_memory() -> None:
    """Let this process take no more than `EXTRA_MEMORY` beyond what it has (on Linux)."""
    status = Path("/proc/self/statm")
    if status.exists():
        size = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA_MEMORY, size + EXTRA_MEMORY))


def play_alone(raw: bytes, game: str, mode: str, log_path: str) -> None:
    """Try one state a hundred times, with other actions."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    player = Player()
    player.warm_up((game,))
    limit_memory()
    for seed in range(100):
        player.try_case(Case(game, mode, "", raw, np.random.default_rng(seed)))
