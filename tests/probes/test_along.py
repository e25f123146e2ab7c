import numpy as np
import pandas as pd
import pytest
import torch

from rlbilinear.agents import Agent, CheckpointError
from rlbilinear.agents.distill_options import DistillOptions
from rlbilinear.agents.distillation import distill
from rlbilinear.commands.main import main
from rlbilinear.probes.along import along_training, trajectory
from rlbilinear.probes.along_figure import along_figure
from rlbilinear.probes.causal.games import game_data
from rlbilinear.probes.causal.protocol import answer
from rlbilinear.probes.subject import as_subject


@pytest.fixture(scope="module")
def data():
    return game_data(
        "maze", "cheese", fit_levels=8, levels=6, states_per_level=2, pairs_per_level=2
    )


def test_of_a_bilinear_agent(data):
    """Against the protocol's own answer, and against the dense matrix of the form."""
    agents = {frames: Agent.new("bimpala-small", seed=frames) for frames in (0, 8)}
    found = along_training(agents, data, "block1", progress=False)
    assert [*found["frames"]] == [0, 8]
    assert found["alike"].iloc[-1] == pytest.approx(1) and 0 <= found["alike"].iloc[0] < 0.5
    for agent, row in zip(agents.values(), found.itertuples(), strict=True):
        full = answer(as_subject(agent), data, "block1", 1, controls=1)
        readable = full.readable.set_index("name").loc["probe"]
        assert row.readable == pytest.approx(readable.score)
        effects = full.effects.set_index(["direction", "claim"])
        assert row.used == pytest.approx(effects.loc["difference", "sufficient"].effect)
        assert 1 <= row.rank <= 9 * 32 + 1
        assert row.base_rate == pytest.approx(full.readable.set_index("name").score["base rate"])


def test_of_a_relu_agent(data):
    agents = {0: Agent.new("impala-small", seed=0)}
    (row,) = along_training(agents, data, "block1", progress=False).itertuples()
    assert row.linear_r2 < row.quadratic_r2 <= 1
    assert not hasattr(row, "rank")


def test_bad_input(data, tmp_path):
    with pytest.raises(ValueError, match="agents: expected at least one"):
        along_training({}, data, "block1")
    for layer in ("blok1", "dense"):
        with pytest.raises(ValueError, match=f"unknown layer '{layer}'; choose from .*block1"):
            along_training({0: Agent.new("impala-small")}, data, layer)
    with pytest.raises(CheckpointError, match="has no agents along training"):
        trajectory(tmp_path)
    with pytest.raises(ValueError, match="at least one run of each"):
        along_figure({})
    one, other = (pd.DataFrame({"frames": frames}) for frames in ([0, 1], [0, 2]))
    with pytest.raises(ValueError, match="impala: the runs were kept at other frames"):
        along_figure({"impala": [one, other]})


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("rlbilinear.agents.distillation.KEPT_STEPS", 1)
    for seed in (0, 1):
        small = {"batch": 8, "groups": 1, "warmup": 1, "evaluation_levels": 0, "progress": False}
        distill(
            DistillOptions(
                tmp_path / str(seed), "impala-small", frames=16, seed=seed, device="cpu", **small
            )
        )
    kept = trajectory(tmp_path / "0")
    assert [*kept] == [0, 8, 16]
    runs = [str(tmp_path / str(seed)) for seed in (0, 1)]
    few = ["--fit-levels", "6", "--levels", "5", "--no-progress"]
    main(["along", *runs, *few, "--out", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out" / "along.csv")
    assert len(table) == 6 and set(table.architecture) == {"impala-small"}
    assert np.isfinite(table[["readable", "used", "linear_r2"]]).all(axis=None)
    assert (tmp_path / "out" / "along.png").stat().st_size > 10_000
    assert not torch.equal(kept[0].policy.action_net.weight, kept[16].policy.action_net.weight)
