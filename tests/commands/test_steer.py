"""The command from a .pth file to a table, a figure and a folder that loads."""

import sys

import pandas as pd
import pytest
import torch

from rlbilinear.agents import Agent, agent_from_pth, load
from rlbilinear.agents.from_pth import LAYERS
from rlbilinear.commands.steer import FIGURE, TABLE, main
from rlbilinear.envs import Maze, observe
from rlbilinear.probes.page import read_folder


@pytest.fixture
def file(tmp_path):
    agent = Agent.new("impala", seed=1)
    state = {
        f"{theirs}.{part}": getattr(agent.layer(ours), part).detach().clone()
        for theirs, ours in LAYERS.items()
        for part in ("weight", "bias")
    }
    torch.save({"model_state_dict": state}, tmp_path / "policy.pth")
    return tmp_path / "policy.pth"


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["steer.py", *map(str, arguments)])
    main()


def test_a_published_file_is_asked_steered_and_saved(file, tmp_path, monkeypatch, capsys):
    out, saved = tmp_path / "out", tmp_path / "agent"
    command(
        monkeypatch, "--agent", file, "--levels", 4, "--mode", "hard", "--out", out, "--save", saved
    )
    said = capsys.readouterr().out
    assert "4 decision squares, vectors at block3" in said and "minus cheese vector" in said
    table = pd.read_csv(out / TABLE)
    assert table["level"].nunique() == 4 and (out / FIGURE).stat().st_size > 1000
    assert "decisions" in read_folder(out).tables  # `rlbilinear view` takes it
    observations = observe([Maze.from_seed(1, "hard")])
    assert torch.equal(
        load(saved, device="cpu").logits(observations), agent_from_pth(file).logits(observations)
    )


def test_bad_input_is_said_and_nothing_is_written(file, tmp_path, monkeypatch, capsys):
    for arguments, message in (
        (["--agent", tmp_path / "none.pth"], "no file"),
        (["--agent", "nobody"], "nobody"),
        (["--agent", file, "--mode", "extreme"], "choose from easy, hard, memory"),
        (["--agent", file, "--save", file.parent], "exists"),
        (["--agent", file, "--layer", "block9"], "choose from"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command(monkeypatch, "--levels", 2, *arguments)
        assert stopped.value.code in (1, 2) and message in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.pth"]
