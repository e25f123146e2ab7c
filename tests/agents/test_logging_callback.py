import dataclasses
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from rlbilinear import agents
from rlbilinear.agents import filming, logging_callback
from rlbilinear.agents.logging_callback import Stopwatch
from rlbilinear.agents.network import weights_of
from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.ppo import train

ROOT = Path(__file__).parents[2]
FILM = "held_out_levels/episodes"


def tiny(out, **changes):
    """Episodes of an aimless starpilot are over after about 70 steps: training levels score too."""
    options = {
        "out": out,
        "game": "starpilot",
        "architecture": "bimpala-small",
        "architecture_options": '{"channels": 8, "features": 16}',
        "num_envs": 4,
        "num_steps": 48,
        "minibatches": 2,
        "epochs": 1,
        "frames": 576,
        "levels": 200,
        "held_out": 2,
        "evaluate_every": 192,
        "film_every": 384,
        "save_every": 192,
        "device": "cpu",
        "progress": False,
    }
    return TrainOptions(**(options | changes))


def read(run):
    return EventAccumulator(str(run / "tensorboard"), {"tensors": 0, "histograms": 0}).Reload()


def curve(found, tag):
    return [(event.step, event.value) for event in found.Scalars(tag)]


def films(found):
    return [(event.step, event.tensor_proto.string_val[2]) for event in found.Tensors(FILM)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with everything on."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny(run))
    return run


def documented():
    """Return the tags of the table in docs/runs.md, as regular expressions by kind."""
    page = (ROOT / "docs" / "runs.md").read_text()
    (section,) = re.findall(r"(?ms)^## What TensorBoard shows\n(.*?)(?=^## |\Z)", page)
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return {
        tag: re.compile(re.sub(r"<\w+>", ".+", re.escape(tag).replace(r"\ ", " ")))
        for cell, _ in rows
        for tag in re.findall(r"`([^`]+)`", cell)
    }


def test_documented_tags_are_written_and_no_others(whole):
    found = read(whole)
    tags = found.Tags()
    written = {*tags["scalars"], *tags["histograms"], *tags["tensors"]}
    written -= {"custom_scalars__config__"}
    patterns = documented()
    missing = [tag for tag, form in patterns.items() if not any(map(form.fullmatch, written))]
    unknown = [tag for tag in written if not any(f.fullmatch(tag) for f in patterns.values())]
    assert missing == []
    assert unknown == []
    assert np.isfinite([found.Scalars(tag)[-1].value for tag in tags["scalars"]]).all()


def test_numbers_are_of_the_update_that_frames_were_used_for(whole):
    found = read(whole)
    for tag in ("train/loss", "train/gradient_norm", "layer_update_ratio/dense.left"):
        assert [event.step for event in found.Scalars(tag)] == [192, 384, 576], tag
    shares = [
        [event.value for event in found.Scalars(f"time/share_of_{part}")]
        for part in ("simulator", "network", "update", "evaluation")
    ]
    assert np.min(shares) > 0
    np.testing.assert_allclose(np.sum(shares, axis=0), 1, rtol=1e-5)
    actions = [tag for tag in found.Tags()["scalars"] if tag.startswith("rollout/action ")]
    assert len(actions) == 15
    total = sum(found.Scalars(tag)[0].value for tag in actions)
    assert total == pytest.approx(1)


def test_norms_and_ratios_are_of_the_weights_that_are_kept(whole):
    found = read(whole)
    kept = sorted((whole / "checkpoints").glob("*/agent"))[-1]
    weights = weights_of(agents.load(kept, device="cpu").policy)
    norm = np.sqrt(sum(weight.double().square().sum().item() for weight in weights.values()))
    assert curve(found, "train/parameter_norm")[-1] == (576, pytest.approx(norm))
    left = weights["dense.left.weight"].norm().item()
    assert curve(found, "layer_weight_norm/dense.left")[-1] == (576, pytest.approx(left))


def test_films_are_of_the_first_and_last_evaluation_and_at_intervals(whole):
    found = read(whole)
    assert [step for step, _ in films(found)] == [0, 384, 576]
    assert found.SummaryMetadata(FILM).display_name == filming.CAPTION


def test_following_a_run_does_not_change_it_nor_does_resuming(whole, tmp_path):
    alone = train(tiny(tmp_path / "alone", evaluate_every=0, film_every=0))
    followed = agents.load(whole / "agent", device="cpu")
    for name, weight in weights_of(alone.policy).items():
        assert torch.equal(weight, weights_of(followed.policy)[name]), name

    train(tiny(tmp_path / "parts", frames=384))
    train(tiny(tmp_path / "parts"), resume=True)
    first, second = (
        next((run / "checkpoints").glob("*576")) for run in (whole, tmp_path / "parts")
    )
    for file in ("agent/model.safetensors", "training.safetensors"):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    results = [
        json.loads((run / "results.json").read_text()) for run in (whole, tmp_path / "parts")
    ]
    assert results[0] == results[1]
    one, other = read(whole), read(tmp_path / "parts")
    for tag in (
        "held_out_levels/return",
        "layer_gradient_norm/stem",
        "layer_activation_peak/dense.product",
    ):
        assert curve(one, tag) == curve(other, tag), tag
    assert films(one) == films(other)
    assert one.Scalars("time/share_of_update")  # what a clock says may differ


def session(run):
    """Return what the tab HPARAMS knows of a run: settings, metrics and whether it has ended."""
    found = read(run)
    plugins = {}
    for kind in ("experiment", "session_start_info", "session_end_info"):
        try:
            content = found.SummaryMetadata(f"_hparams_/{kind}").plugin_data.content
        except KeyError:
            continue
        plugins[kind] = getattr(HParamsPluginData.FromString(content), kind)
    return plugins


def test_runs_are_compared_by_options_and_scores(whole):
    known = session(whole)
    given = known["session_start_info"].hparams
    texts = {name: value.string_value for name, value in given.items() if value.string_value}
    assert texts["game"] == "starpilot" and texts["architecture"] == "bimpala-small"
    assert json.loads(texts["architecture_options"]) == {"channels": 8, "features": 16}
    policy = agents.load(whole / "agent", device="cpu").policy
    count = sum(weight.numel() for weight in policy.parameters())
    assert given["parameters"].number_value == count
    assert given["learning_rate"].number_value == 5e-4 and given["num_envs"].number_value == 4
    assert not {"out", "frames", "device", "progress"} & set(given)
    scalars = read(whole).Tags()["scalars"]
    assert {info.name.tag for info in known["experiment"].metric_infos} <= set(scalars)
    assert "session_end_info" in known


def test_a_run_that_fails_is_not_said_to_have_ended(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("as if the machine had none left")

    monkeypatch.setattr(logging_callback, "evaluate", fail)
    with pytest.raises(RuntimeError, match="none left"):
        train(tiny(tmp_path / "run", frames=192, film_every=0))
    known = session(tmp_path / "run")
    assert "session_start_info" in known and "session_end_info" not in known


def test_held_out_scores_are_the_float32_agents(monkeypatch, tmp_path):
    """Also of a run in bfloat16, of which rollouts and updates are not."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), np.uint8)
    seen = []
    score = logging_callback.evaluate

    def watch(agent, *arguments, **named):
        seen.append(agent.logits(frames))
        return score(agent, *arguments, **named)

    monkeypatch.setattr(logging_callback, "evaluate", watch)
    options = tiny(tmp_path / "run", frames=192, film_every=0, precision="bfloat16")
    trained = train(options)
    assert len(seen) == 2
    assert torch.equal(
        seen[-1], agents.load(tmp_path / "run" / "agent", device="cpu").logits(frames)
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(seen[-1], trained.logits(frames).float())


@pytest.mark.parametrize("option", ["evaluate_every", "film_every"])
def test_intervals_are_not_negative(tmp_path, option):
    with pytest.raises(ValueError, match=f"{option} must be positive, or 0 for none, got -1"):
        train(dataclasses.replace(tiny(tmp_path / "run"), **{option: -1}))


def test_stopwatch(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Thing:
        def work(self, seconds, *, more=0.0):
            now[0] += seconds + more
            return seconds

    thing, watch = Thing(), Stopwatch()
    watch.time_within(thing, "work", "inside")
    assert thing.work(2.0, more=0.5) == 2.0
    now[0] += 1
    watch.lap("first")
    now[0] += 4
    watch.lap("second")
    assert watch.take() == {"inside": 2.5, "first": 3.5, "second": 4.0}
    now[0] += 1
    watch.lap("first")
    assert watch.take() == {"first": 1.0}
