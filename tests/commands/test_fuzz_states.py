"""Mutated states: the same from a seed, told apart, and none does harm in a short run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rlbilinear.commands import fuzz_states
from rlbilinear.envs.games import GAMES
from rlbilinear.testing.fuzzing import mutations, worker
from rlbilinear.testing.fuzzing.mutations import BLOCK, KINDS, case

ROOT = Path(__file__).parents[2]
GAME = ("heist",)


def test_cases_are_the_same_from_the_same_seed():
    first = [case(GAME, 3, number) for number in range(20)]
    mutations.pool.cache_clear()
    again = [case(GAME, 3, number) for number in range(20)]
    assert [one.raw for one in first] == [one.raw for one in again]
    assert [one.kind for one in first] == [one.kind for one in again]
    assert first[0].random.random() == again[0].random.random()
    assert {one.raw for one in first}.isdisjoint(case(GAME, 4, number).raw for number in range(20))


def test_cases_go_through_all_games_and_modes():
    pairs = [(game, mode) for game, modes in GAMES.items() for mode in modes]
    games = ("chaser", "leaper")
    found = {(c.game, c.mode) for c in (case(games, 0, BLOCK * i) for i in range(6))}
    assert found == {pair for pair in pairs if pair[0] in games}


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_change_the_state(kind):
    states = mutations.pool("coinrun", "easy", 0)
    random = np.random.default_rng(0)
    changed = 0
    for number in range(30):
        raw = states[number]
        if kind == "spliced":
            mutated = mutations.spliced(raw, random, states[-1 - number])
        else:
            mutated = getattr(mutations, kind)(raw, random)
        changed += mutated != raw
    assert changed >= 20


def test_runs_cover_all_words_but_the_generators_texts():
    for game in ("coinrun", "plunder", "starpilot"):
        raw = mutations.pool(game, "hard", 0)[3]
        words = [
            run.word(i).at
            for block in mutations.runs(raw).values()
            for run in block
            for i in range(len(run.kinds) * run.repeats)
        ]
        assert len(set(words)) == len(words)
        texts = sum(
            len(generator.text)
            for generator in mutations.parse(raw)
            if isinstance(generator, mutations.Generator)
        )
        assert 4 * len(words) == len(raw) - len(game) - texts - 4  # the name, the end marker


def test_a_short_run_does_no_harm():
    """In this process: a state that did harm would end it."""
    player = worker.Player()
    outcomes = {True: 0, False: 0}
    for number in range(0, BLOCK * 42, 9):
        tried = case(tuple(GAMES), 7, number)
        outcomes[player.try_case(tried)] += 1
    assert min(outcomes.values()) > 100


def test_the_watcher_sees_ends_and_hangs():
    at = np.array([0, 1, 1])
    assert fuzz_states._watch(os._exit, (0,), 60, at) is None
    assert fuzz_states._watch(os._exit, (3,), 60, at) == "exit code 3"
    assert fuzz_states._watch(os.abort, (), 60, at) == "exit code -6"
    assert fuzz_states._watch(time.sleep, (60,), 0.1, at) == "no end after 0.1 s"
    forever = "while True: pass"
    assert fuzz_states._watch(exec, (forever,), 0.3, at) == "no end after 0.3 s"


def test_the_script_counts_and_says_so(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "fuzz_states.py"), "--no-progress"]
    run = ["--states", "40", "--games", "bigfish", "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *run], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "40 states in" in done.stdout and "0 did harm" in done.stdout
    (table,) = (tmp_path / "out").iterdir()
    assert table.name == "counts-0-0.csv"


def test_bad_options_are_refused():
    for options, message in (
        ({"games": ("bigfis",)}, "unknown game 'bigfis'"),
        ({"states": 0}, "states must be at least 1"),
        ({"first": -1}, "first 0, got"),
        ({"games": ()}, "no games were given; choose from bigfish"),
    ):
        with pytest.raises(ValueError, match=message):
            fuzz_states.fuzz(fuzz_states.FuzzOptions(**options))


def test_a_state_that_does_harm_is_kept(tmp_path, monkeypatch):
    options = fuzz_states.FuzzOptions(states=3, games=GAME, out=tmp_path, progress=False)
    ends = iter(["exit code -11", "exit code -11", None])

    def watch(target, arguments, timeout, at, bar=None):
        end = next(ends)
        if end is None:
            at[0] = at[1]
        return end

    monkeypatch.setattr(fuzz_states, "_watch", watch)
    table, (harm,) = fuzz_states.fuzz(options)
    assert harm.path.read_bytes() == case(GAME, 0, 0).raw
    assert (harm.number, harm.game, harm.how, harm.alone) == (0, "heist", "exit code -11", True)
    assert "exit code -11" in harm.path.with_suffix(".txt").read_text()
    assert table.to_numpy().sum() == 0


def test_a_worker_that_stops_early_is_no_success(tmp_path, monkeypatch):
    options = fuzz_states.FuzzOptions(states=1, games=GAME, out=tmp_path, progress=False)
    monkeypatch.setattr(fuzz_states, "_watch", lambda *_: None)
    _, (harm,) = fuzz_states.fuzz(options)
    assert (harm.how, harm.alone) == ("ended before its last state", False)
