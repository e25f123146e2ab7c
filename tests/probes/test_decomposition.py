"""Directions by name, and the folder that a decomposition leaves."""

import io
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlbilinear import channel_spatial_svd
from rlbilinear.agents import load
from rlbilinear.agents.heads import policy_form
from rlbilinear.commands.main import main
from rlbilinear.envs import ACTIONS_OF_MOVE, FITTING, Maze, Move, observe
from rlbilinear.probes.chains import with_depth
from rlbilinear.probes.dataset import counterfactual_pairs
from rlbilinear.probes.decomposition import Decomposition, check_output, decompose
from rlbilinear.probes.directions import find_direction
from rlbilinear.probes.truncation import with_sweep


@pytest.fixture(scope="module")
def agent():
    return load("maze-bimpala-compact", device="cpu")


def test_directions_by_name(agent, tmp_path):
    assert find_direction(agent, "block2", "3").vector.nonzero().tolist() == [[3]]
    right = find_direction(agent, "dense", "right")
    form = policy_form(agent, ACTIONS_OF_MOVE[Move.RIGHT], against="others")
    dense = agent.layer("dense").quadratic_form(right.vector)
    torch.testing.assert_close(dense.weight, form.weight)
    pattern = find_direction(agent, "block7", "right")
    vector = form.eigh(1).vectors[0].reshape(32, 8, 8)
    torch.testing.assert_close(pattern.vector, channel_spatial_svd(vector).channels[0])
    torch.testing.assert_close(pattern.interest, vector)
    np.save(tmp_path / "vector.npy", np.arange(32.0))
    named = find_direction(agent, "block2", str(tmp_path / "vector.npy")).vector
    torch.testing.assert_close(named, torch.arange(32.0).double() / torch.arange(32.0).norm())
    maps = np.random.default_rng(0).normal(size=(32, 16, 16))
    np.save(tmp_path / "maps.npy", maps)
    named = find_direction(agent, "block2", str(tmp_path / "maps.npy"))
    torch.testing.assert_close(named.vector, channel_spatial_svd(torch.tensor(maps)).channels[0])


def test_a_difference_is_what_changes_when_the_cheese_moves(agent):
    pairs = counterfactual_pairs(FITTING.first(6), pairs_per_level=2)
    found = find_direction(agent, "block2", "difference", pairs=pairs).vector
    before, after = (
        agent.activations(states.observations, ["block2"])["block2"].double()
        for states in (pairs.base, pairs.source)
    )
    rows = (after - before).movedim(1, -1).flatten(0, -2)
    leading = torch.linalg.svd(rows, full_matrices=False).Vh[0]
    assert abs(found @ leading).item() == pytest.approx(1) and found.max() == found.abs().max()


def test_bad_directions_are_refused(agent, tmp_path):
    np.save(tmp_path / "short.npy", np.ones(5))
    for layer, name, message in (
        (
            "block2",
            "north",
            "choose from probe, difference, 0 to 31, left, down, up, right, stay, or",
        ),
        ("block2", "32", "32 outputs, numbered from 0"),
        ("block2", "right", "lies before a pool"),
        ("block2", "probe", "needs data"),
        ("block2", "difference", "needs pairs"),
        ("block2", str(tmp_path / "short.npy"), r"shape \(32,\)"),
        ("block2", str(tmp_path / "none.npy"), "is not a .npy file"),
    ):
        with pytest.raises(ValueError, match=message):
            find_direction(agent, layer, name)


def test_a_decomposition_is_a_folder(agent, tmp_path):
    found = decompose(agent, "block6", "right", levels=3, progress=False)
    found = with_depth(found, agent, filters=(1, 500), levels=4)
    found = with_sweep(found, agent, [1, 8], levels=3, progress=False)
    found.save(tmp_path / "out")
    report = (tmp_path / "out" / "report.md").read_text()
    for name, drawing in found.figures.items():
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5_000
        assert f"]({name}.png)" in report and drawing.caption in report
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert len(settings["direction"]["vector"]) == 32 and settings["layer"] == "block6"
    assert [*found.tables["sweep"]["k"]] == [1, 8, "all"]
    energy = found.tables["spectrum"]["energy"]
    assert len(energy) == 64 and energy.is_monotonic_increasing and abs(energy.iloc[-1] - 1) < 1e-12
    chains = found.tables["chains"].set_index("filters")
    assert chains.down_through.tolist() == ["block6", "block6"]
    assert chains.r2[1] < chains.r2[500] < 1  # the first channel pattern of each filter alone
    assert set(found.tables["components"].part) == {"pool1 to block5", "pool2 to action_net"}
    assert found.tables["degrees"].degree.max() == 32
    patches = found.tables["patches"]
    assert patches["filter"].nunique() == 4 and (patches.groupby("filter").size() == 3).all()
    values = found.tables["spectrum"].eigenvalue[patches["filter"]].to_numpy()
    np.testing.assert_allclose(patches.contribution, values * patches.response**2, rtol=1e-4)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["images"]) == set(found.figures)
    for name in found.figures:
        (event,) = events.Images(name)
        assert plt.imread(io.BytesIO(event.encoded_image_string)).std() > 0.01
    with pytest.raises(FileExistsError):
        check_output(tmp_path / "out")
    check_output(tmp_path / "out", overwrite=True)
    with pytest.raises(ValueError, match="from 0 to 64, the rank"):
        with_sweep(found, agent, [65], progress=False)


def test_a_whole_convolution_is_truncated(agent, monkeypatch):
    """Every direction keeps k eigenfilters; at the rank nothing changes."""
    named = {"vector": [1.0] * 32, "what": "all channels"}
    found = Decomposition("", {}, {}, {"layer": "block6", "direction": named})
    seen = {}

    def played(agent, truncate, ks, levels, **options):
        seen.update({k: truncate(k) for k in ks})
        ends = {f"{m}{e}": 0.5 for m in ("success", "solved") for e in ("", "_low", "_high")}
        return pd.DataFrame({"k": [*ks], **ends})

    monkeypatch.setattr("rlbilinear.probes.truncation.sweep", played)
    with_sweep(found, agent, [1, 64], whole=True, progress=False)
    images = observe([Maze.from_seed(3)])
    logits = agent.logits(images)
    torch.testing.assert_close(seen[64].logits(images), logits, atol=1e-3, rtol=1e-4)
    rows = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64)).Q
    ranks = [form.rank for form in seen[1].layer("block6.bilinear").quadratic_forms(rows)]
    assert max(ranks) <= 32 and (seen[1].logits(images) - logits).abs().max() > 0.1
    assert len(seen[1].layer("block6.bilinear").left.weight) == 32
    with_sweep(found, agent, [1], progress=False)
    assert seen[1].layer("block6.bilinear").left.weight.shape[0] == 33


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["decompose", "--layer", "stem", "--direction", "0", "--out", str(tmp_path / "a")])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "stem is a Conv2d, not bilinear; choose from" in said
    assert "Traceback" not in said and not (tmp_path / "a").exists()
