"""Which levels `rlbilinear evaluate` plays how often, and what it says of them."""

import re
import sys

import pandas as pd
import pytest

from rlbilinear.agents import Agent
from rlbilinear.commands import evaluate as command


@pytest.fixture(scope="module")
def jumper(tmp_path_factory):
    place = tmp_path_factory.mktemp("agents") / "jumper"
    Agent.new("impala-small", game="jumper", channels=(2, 2), features=8).save(place)
    return str(place)


def call(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--no-progress", "--device=cpu", *options])
    command.main()


def test_given_levels_are_played_so_often_and_unplayable_ones_counted(
    jumper, monkeypatch, capsys, tmp_path
):
    out = tmp_path / "episodes.csv"
    levels = ("--level-seeds", "9", "5", "11")
    call(monkeypatch, jumper, *levels, "--episodes=2", "--out", str(out))
    said = capsys.readouterr().out
    assert "Levels 9, 5, 11, played 2 times each, greedy once: mean [95 % interval by" in said
    assert "jumper: 2 of 3 levels are unplayable (over at the first step without a rew" in said
    assert "and count like others" in said
    table = pd.read_csv(out)
    assert (table["game"] == "jumper").all()
    counts = table.groupby(["policy", "actions", "level"]).size()
    assert set(counts.xs("sampled", level="actions")) == {2}
    assert set(counts.xs("greedy", level="actions")) == {1}
    sampled = table[(table["policy"] == jumper) & (table["actions"] == "sampled")]
    assert sampled["level"].tolist() == [9, 9, 5, 5, 11, 11]
    assert sampled["unplayable"].tolist() == [False, False, True, True, True, True]
    call(monkeypatch, jumper, *levels, "--skip-unplayable", "--no-baselines")
    said = capsys.readouterr().out
    assert "played once: mean" in said
    assert "2 of 3 levels are unplayable" in said and "and left out" in said


def test_held_out_levels_are_the_first(jumper, monkeypatch, capsys):
    episodes, _ = command.score(
        command.EvaluateOptions((jumper,), levels=2, baselines=False, device="cpu", progress=False)
    )
    assert set(episodes["level"]) == {0, 1}
    options = command.EvaluateOptions((jumper,), levels=2)
    assert command.heading(episodes, options) == [
        "2 held-out levels (0 to 1), played once: mean [95 % interval by level]"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--levels=0",), "--levels: expected 1 or more, got 0"),
        (("--levels=100001",), "--levels: expected 1 to 100000, got 100001"),
        (("--episodes=0",), "--episodes: expected 1 or more, got 0"),
        (("--seed=-1",), "--seed: expected 0 or more, got -1"),
        (("--level-seeds", "3", "2147483647"), r"level seeds are 0\.\.2147483646, got 2147483647"),
        (("--level-seeds", "3", "3"), "different levels, at least one; got 3 twice"),
        (("--level-seeds", "5", "--skip-unplayable"), r"all levels are unplayable .*\[5\]"),
    ],
)
def test_options_that_are_not_accepted_are_named(jumper, monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, jumper, *options)
    assert re.search(message, capsys.readouterr().err)


def test_an_agent_given_twice_is_refused(jumper, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, jumper, jumper + "/")
    assert "jumper is given twice" in capsys.readouterr().err
