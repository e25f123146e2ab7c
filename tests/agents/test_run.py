"""The folder of a run: read by anyone, damaged files refused, written by one process."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rlbilinear.agents import Agent, CheckpointError, Run, TrainOptions, train
from rlbilinear.agents.run import AGENT, OPTIONS, RESULTS

TINY = TrainOptions(
    out=Path(),
    architecture="impala-small",
    architecture_options='{"channels": [2, 2], "features": 8}',
    num_envs=2,
    num_steps=16,
    minibatches=2,
    epochs=1,
    frames=64,
    held_out=1,
    evaluate_every=32,
    film_every=0,
    save_every=32,
    device="cpu",
    progress=False,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    options = replace(TINY, out=tmp_path_factory.mktemp("runs") / "run")
    train(options)
    return options


@pytest.fixture
def run(finished, tmp_path):
    return Run(Path(shutil.copytree(finished.out, tmp_path / "run")))


def test_a_run_tells_what_it_is(finished, run):
    assert run.options() == replace(finished, out=run.folder, progress=True)
    assert (run.frames, run.trained_frames) == (64, 64)
    assert [scores["frames"] for scores in run.held_out()] == [0, 32, 64]
    assert run.newest_checkpoint() == run.folder / "checkpoints" / "000000000064"


def test_a_folder_without_a_run(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        run = Run(folder)
        assert (run.frames, run.trained_frames, run.held_out()) == (0, 0, [])
        assert run.newest_checkpoint() is None
        with pytest.raises(CheckpointError, match=r"holds no run: it lacks options\.json"):
            run.record()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: [record], "expected an object, got list"),
        (lambda record: 7, "expected an object, got int"),
        (lambda record: None, "expected an object, got NoneType"),
        (lambda record: {}, 'expected "options" with an object'),
        (lambda record: record | {"options": [1]}, 'expected "options" with an object'),
        (lambda record: record | {"options": {}}, "its options lack hyperparameters"),
        (lambda record: changed(record, hyperparameters=[]), "its options lack hyperparameters"),
        (lambda record: changed(record, hyperparameters={"gamma": [1]}), r"gamma cannot be \[1\]"),
        (lambda record: changed(record, frames="many"), "frames cannot be 'many'"),
        (lambda record: changed(record, seed=None), "seed cannot be None"),
        (lambda record: changed(record, game=3), "game cannot be 3"),
        (lambda record: changed(record, init_from={}), r"init_from cannot be \{\}"),
        (lambda record: changed(record, architecture_options="{}"), "architecture_options cannot"),
        (lambda record: changed(record, gone=[]), r"gone cannot be \[\]"),
    ],
)
def test_a_damaged_record_is_refused(finished, run, change, message):
    file = run.folder / OPTIONS
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=rf"options\.json .*{message}"):
        run.options()
    with pytest.raises(CheckpointError, match=message):
        train(replace(finished, out=run.folder), resume=True)
    assert file.read_bytes() == before


def changed(record, **options):
    return record | {"options": record["options"] | options}


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, "\0", '{"options": {'])
def test_a_record_that_is_not_json_is_refused(run, text):
    (run.folder / OPTIONS).write_text(text)
    with pytest.raises(CheckpointError, match=r"options\.json cannot be read"):
        run.record()


def test_a_record_in_other_than_utf8_is_refused(run):
    (run.folder / OPTIONS).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"options\.json cannot be read"):
        run.record()


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "expected an object, got list"),
        ({"frames": "64", "held_out": []}, "expected a number of frames, got '64'"),
        ({"frames": -1, "held_out": []}, "expected a number of frames, got -1"),
        ({"frames": 64, "held_out": {}}, "expected a list of scores in held_out"),
        ({"frames": 64, "held_out": [7]}, "expected a list of scores in held_out"),
        ({"frames": 64, "held_out": [{"return": 1}]}, "expected a list of scores in held_out"),
        ({"frames": 64, "held_out": [{"frames": "0"}]}, "expected a list of scores in held_out"),
    ],
)
def test_damaged_results_are_refused(run, results, message):
    (run.folder / RESULTS).write_text(json.dumps(results))
    with pytest.raises(CheckpointError, match=rf"results\.json is damaged: {message}"):
        run.frames, run.held_out()


def test_an_agents_damaged_frames_are_refused(run):
    file = run.folder / AGENT / "config.json"
    for made in ([], {"frames": None}, {"frames": True}):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"made": made}))
        with pytest.raises(CheckpointError, match="expected a number of frames"):
            _ = run.trained_frames


def test_opening_changes_nothing_before_the_run_begins(run, tmp_path):
    before = {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}
    with Run.open(run.folder, overwrite=True):
        pass
    assert before == {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}
    with Run.open(tmp_path / "new" / "run"):
        pass
    assert not (tmp_path / "new").exists()


def test_a_resumed_run_keeps_all_but_leftovers(run):
    leftovers = [run.folder / ".results.json.new", run.folder / "checkpoints" / ".7.1.new"]
    leftovers[0].touch()
    leftovers[1].mkdir()
    kept = {file for file in run.folder.rglob("*") if file not in leftovers}
    with Run.open(run.folder, resume=True) as opened:
        opened.begin()
    assert set(run.folder.rglob("*")) == kept
    with Run.open(run.folder, overwrite=True) as opened:
        opened.begin()
    assert not run.folder.exists()


def test_an_agent_too_large_for_half_precision_is_kept_whole(tmp_path):
    agent = Agent.new("impala-small", channels=[2, 2], features=8)
    Run(tmp_path).keep(agent, 0)
    agent.policy.value_net.bias.data.fill_(1e6)
    Run(tmp_path).keep(agent, 32)
    dtypes = [
        json.loads((tmp_path / "trajectory" / f"{frames:012d}" / "config.json").read_text())[
            "weights"
        ]["dtype"]
        for frames in (0, 32)
    ]
    assert dtypes == ["float16", "float32"]


@pytest.mark.parametrize("asked", [32, 1])
def test_a_run_that_is_longer_already_is_not_resumed(finished, run, asked):
    before = (run.folder / OPTIONS).read_bytes()
    with pytest.raises(ValueError, match=f"was trained for 64 frames, {asked} are asked for") as e:
        train(replace(finished, out=run.folder, frames=asked), resume=True)
    assert type(e.value) is ValueError  # bad usage, not a damaged run
    assert (run.folder / OPTIONS).read_bytes() == before


CHECKPOINT = f"checkpoints/{64:012d}"


@pytest.mark.parametrize(
    "change",
    [
        lambda numbers: [numbers],
        lambda numbers: None,
        lambda numbers: numbers | {"version": 2},
        lambda numbers: numbers | {"frames": 32},
        lambda numbers: numbers | {"frames": "64"},
        lambda numbers: numbers | {"updates": None},
        lambda numbers: numbers | {"numpy": numbers["numpy"] | {"position": 10**9}},  # a crash
        lambda numbers: numbers | {"python": {"version": 1, "gauss": None}},
        lambda numbers: numbers | {"normaliser": "mean"},
        lambda numbers: numbers | {"normaliser": numbers["normaliser"] | {"var": float("nan")}},
        lambda numbers: numbers | {"normaliser": numbers["normaliser"] | {"var": -1}},
        lambda numbers: numbers | {"episode_starts": [True]},
        lambda numbers: numbers | {"episodes": [{"r": 1.0}]},
        lambda numbers: numbers | {"episodes": "ab"},
        lambda numbers: {k: v for k, v in numbers.items() if k != "normaliser"},
    ],
)
def test_a_damaged_checkpoint_is_not_resumed(finished, run, change):
    file = run.folder / CHECKPOINT / "training.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    record = (run.folder / OPTIONS).read_bytes()
    with pytest.raises(CheckpointError, match=CHECKPOINT):
        train(replace(finished, out=run.folder, frames=96), resume=True)
    assert (run.folder / OPTIONS).read_bytes() == record


@pytest.mark.parametrize(
    "name",
    ["two words", "-dash", "läufe 日本 🐭", "*[a]?", "%s {} $HOME", "a\nb", ".new", "n" * 255],
)
def test_a_folder_may_have_any_name(finished, tmp_path, name):
    options = replace(finished, out=tmp_path / name, evaluate_every=0)
    train(replace(options, frames=32))
    train(options, resume=True)
    assert Run(options.out).trained_frames == 64
    assert [place.name for place in tmp_path.iterdir()] == [name]


def test_a_name_that_is_not_text_is_refused(finished, tmp_path):
    with pytest.raises(ValueError, match="must be valid text"):
        train(replace(finished, out=tmp_path / os.fsdecode(b"\xff")))
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder_for_a_run(finished, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file is not a folder"):
        train(replace(finished, out=tmp_path / "file"))


def test_scores_that_are_gone_are_missed(run):
    """A run that was never saved has none; one with a checkpoint had some."""
    (run.folder / RESULTS).unlink()
    for ask in (Run.held_out, lambda run: run.frames):
        with pytest.raises(CheckpointError, match=r"results\.json is gone, and with it the scores"):
            ask(run)
    (run.folder / RESULTS).write_text("{}")
    assert (run.held_out(), run.frames) == ([], 0)
    assert Run(run.folder / "new").held_out() == []
