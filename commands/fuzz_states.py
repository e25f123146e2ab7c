"""Try mutated states on the simulator: each is refused with ValueError, or played without harm.

    python scripts/fuzz_states.py --states 1000000 --seed 0

States of all games and modes are changed: bits flipped, pieces cut, blocks of other states put in,
counts made huge, numbers made infinite, extreme or slightly different, things multiplied, worlds
resized. Each is given to `Simulator.set_states` in another process; those accepted are stepped,
drawn and read. When that process ends, hangs or takes more than 1 GB, the state is written to a
file, and another process takes the next one. The same seed gives the same states, so that --first
resumes a run that was stopped. Fails when a state did harm.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from rlbilinear.commands.outputs import check_writable, new_file, writing
from rlbilinear.commands.running import Command, Count, Failed, Seed
from rlbilinear.envs.games import GAMES, check_game
from rlbilinear.testing.fuzzing.mutations import KINDS, case
from rlbilinear.testing.fuzzing.worker import OUTCOMES, Tally, play_alone, work


@dataclass(frozen=True)
class FuzzOptions:
    """Try mutated states on the simulator."""

    states: Count = 1_000_000
    """number of states"""
    seed: Seed = 0
    """seed of the states"""
    games: tuple[str, ...] = tuple(GAMES)
    """games whose states are tried"""
    first: Seed = 0
    """number of the first state, to resume a run"""
    timeout: float = 60.0
    """seconds of processor time that one state may take"""
    out: Path = Path("fuzz")
    """folder for the table, and for states that did harm"""
    progress: bool = True
    """show a progress bar"""


class Harm(NamedTuple):
    """A state that ended the process, or hung it."""

    number: int
    game: str
    kind: str
    how: str
    alone: bool
    """Whether it did so again in a process of its own."""
    path: Path


def fuzz(options: FuzzOptions) -> tuple[pd.DataFrame, list[Harm]]:
    """Return the table of counts, and the states that did harm.

    Raises:
        ValueError: no games or an unknown one, or no states.
    """
    if not options.games:
        raise ValueError(f"no games were given; choose from {', '.join(GAMES)}")
    for game in options.games:
        check_game(game)
    if options.states < 1 or options.first < 0:
        raise ValueError(
            f"states must be at least 1 and first 0, got {options.states} and {options.first}"
        )
    harms = []
    with tempfile.TemporaryDirectory() as folder:
        tally_path, log_path = Path(folder, "tally"), Path(folder, "log")
        tally = Tally(tally_path, create=True)
        tally.at[:2] = options.first, options.first + options.states
        with tqdm(total=options.states, unit=" states", disable=not options.progress) as bar:
            while tally.at[0] < tally.at[1]:
                arguments = (options.games, options.seed, str(tally_path), str(log_path))
                tally.at[2] = 0
                how = _watch(work, arguments, options.timeout, tally.at, bar)
                if how is None and tally.at[0] == tally.at[1]:
                    break
                how = how or "ended before its last state"
                harms.append(_keep(options, int(tally.at[0]), how, log_path))
                print(f"\n{harms[-1]}", file=sys.stderr, flush=True)
                tally.at[0] += 1
        counts = np.array(tally.counts)
    return _table(counts, options.games), harms


def _watch(
    target: Callable[..., object],
    arguments: tuple,
    timeout: float,
    at: np.ndarray,
    bar: tqdm | None = None,
) -> str | None:
    """Run a process to its end; return how it failed, or None.

    It may take `timeout` seconds of processor time for each change of `at`, whose second number
    minus its first is how many states are left, and ten times as long until its third is 1. By the
    clock it may take twenty times that, for other processes may keep the processor busy.
    """
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    try:
        last, since, used = at.tolist(), time.monotonic(), 0.0
        while process.is_alive():
            process.join(0.2)
            now = at.tolist()
            if bar is not None:
                bar.update(bar.total - (now[1] - now[0]) - bar.n)
            limit = timeout if now[2] else 10 * timeout
            if now != last:
                last, since, used = now, time.monotonic(), _processor_time(process.pid)
            elif (
                _processor_time(process.pid) - used > limit or time.monotonic() - since > 20 * limit
            ):
                return f"no end after {limit:g} s"
        return None if process.exitcode == 0 else f"exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def _processor_time(pid: int | None) -> float:
    """Return the processor time of a process in seconds; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


def _keep(options: FuzzOptions, number: int, how: str, log: Path) -> Harm:
    """Write the state of this number to a file, with what the simulator said; try it alone."""
    harmful = case(options.games, options.seed, number)
    path = options.out / f"{harmful.game}-{harmful.mode}-{options.seed}-{number}.state"
    with new_file(path) as file:
        file.write_bytes(harmful.raw)
    said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    with writing(path.with_suffix(".txt")):
        path.with_suffix(".txt").write_text(f"{harmful.kind}: {how}\n{said}")
    arguments = (harmful.raw, harmful.game, harmful.mode, str(log))
    again = _watch(play_alone, arguments, options.timeout, np.zeros(3))
    return Harm(number, harmful.game, harmful.kind, how, again is not None, path)


def _table(counts: np.ndarray, games: tuple[str, ...]) -> pd.DataFrame:
    """Return refused and accepted by game and kind of mutation, with sums."""
    columns = pd.MultiIndex.from_product([KINDS, OUTCOMES])
    table = pd.DataFrame(counts.reshape(len(GAMES), -1), list(GAMES), columns).loc[list(games)]
    for outcome in OUTCOMES:
        table["all", outcome] = table.xs(outcome, axis=1, level=1).sum(axis=1)
    table.loc["all"] = table.sum()
    return table


def _fuzz(options: FuzzOptions) -> None:
    """Try the states, and print the counts."""
    counts = options.out / f"counts-{options.seed}-{options.first}.csv"
    check_writable(counts)
    start = time.monotonic()
    table, harms = fuzz(options)
    wide = {"display.width": 250, "display.max_columns": None}
    with pd.option_context(*[item for pair in wide.items() for item in pair]):
        print((table["all"].assign(share=lambda t: t["accepted"] / t.sum(axis=1))).round(3))
        by_kind = table.loc["all"].unstack()
        print(by_kind.assign(share=by_kind["accepted"] / by_kind.sum(axis=1)).round(3))
    with new_file(counts) as file:
        table.to_csv(file)
    total = int(table.loc["all", "all"].sum())
    print(f"{total} states in {time.monotonic() - start:.0f} s: {len(harms)} did harm")
    if harms:
        raise Failed("states that did harm:\n" + "\n".join(map(str, harms)))


main = Command(FuzzOptions, _fuzz, __doc__, lambda _: "--first resumes at a state's number")
