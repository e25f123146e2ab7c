import importlib

import pandas as pd
import pytest
import torch

from rlbilinear.agents import Agent


@pytest.fixture
def exactness():
    return importlib.import_module("rlbilinear.commands.exactness")


@pytest.fixture
def small(tmp_path):
    """The folder of an agent with all kinds of layers that identities are about."""
    agent = Agent.new("bimpala-compact", seed=1, channels=6, blocks=(2, 1), features=8)
    head = agent.layer("action_net")
    torch.nn.init.normal_(head.weight, std=1.0)
    agent.save(tmp_path / "small")
    return str(tmp_path / "small")


def check(exactness, agent, out):
    exactness.main(["--agent", agent, "--layers", "2", "--observations", "2", "--out", str(out)])
    table = pd.read_csv(out / "exactness.csv")
    assert set(table["of"]) == {"dense", "convolution", "agent"}
    assert len(table) > 60 and not table.duplicated(["identity", "of"]).any()
    assert table["agent"].max() < 1e-10
    assert table["random layers"].isna().tolist() == (table["of"] == "agent").tolist()
    return table


def test_every_identity_holds_on_random_layers_and_on_an_agent(exactness, small, tmp_path, capsys):
    table = check(exactness, small, tmp_path)
    assert all(name in capsys.readouterr().out for name in table["identity"].tail(1))


@pytest.mark.slow
def test_every_identity_holds_on_the_shipped_agent(exactness, tmp_path):
    check(exactness, "maze-bimpala-compact", tmp_path)


def test_errors_above_the_bound_and_those_that_are_no_number_are_named(exactness):
    nan = float("nan")
    table = pd.DataFrame(
        [
            ("right", "dense", 1e-12, 1e-12),
            ("random wrong", "dense", 1e-3, 1e-12),
            ("agent wrong", "dense", 1e-12, 1e-3),
            ("no number", "convolution", nan, 1e-12),
            ("whole agent", "agent", nan, 1e-12),
            ("whole agent wrong", "agent", nan, nan),
        ],
        columns=["identity", "of", "random layers", "agent"],
    )
    expected = ["random wrong", "agent wrong", "no number", "whole agent wrong"]
    assert exactness.above(table, 1e-10) == expected


def test_an_error_is_a_share_of_the_largest_entry(exactness):
    worst = importlib.import_module("rlbilinear.testing.identities.identity").worst
    assert worst(torch.tensor([4.0, 0.5]), torch.tensor([4.0, 0.0])) == 0.125
    assert worst(torch.ones(1), torch.zeros(1)) > 1e300
    with pytest.raises(ValueError, match=r"compare \(2,\) with \(1,\)"):
        worst(torch.ones(2), torch.ones(1))
