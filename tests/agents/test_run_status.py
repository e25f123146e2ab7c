"""Runs brought to their end from wherever they are, and their agents scored on both level sets."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

from rlbilinear import agents
from rlbilinear.agents.checkpoint import CheckpointError
from rlbilinear.agents.evaluation import evaluate
from rlbilinear.agents.options import TrainOptions, identity
from rlbilinear.agents.run import Run
from rlbilinear.agents.run_status import Progress, finish, standing
from rlbilinear.agents.scores import FINAL, final_scores, training_levels
from rlbilinear.agents.training_state import TENSORS
from rlbilinear.envs import EVALUATION
from rlbilinear.envs.state import parse

TINY = TrainOptions(
    out=Path(),
    game="fruitbot",
    architecture="impala-small",
    architecture_options='{"channels": [2, 2], "features": 8}',
    num_envs=2,
    num_steps=16,
    minibatches=2,
    epochs=1,
    frames=64,
    levels=3,
    held_out=1,
    evaluate_every=0,
    film_every=0,
    save_every=32,
    device="cpu",
    progress=False,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    options = replace(TINY, out=tmp_path_factory.mktemp("runs") / "run")
    assert standing(options) == (Progress.NEW, 0)
    finish(options, final_levels=4)
    return options


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.out, tmp_path / "run")
    return replace(finished, out=tmp_path / "run")


def weights(options):
    return (options.out / "agent" / "model.safetensors").read_bytes()


def test_a_new_run_is_trained_and_scored_on_both_sets_of_levels(finished):
    assert standing(finished) == (Progress.FINISHED, 64)
    table = pd.read_csv(finished.out / FINAL)
    played = {name: set(of["level"]) for name, of in table.groupby("levels")}
    # three training levels are all there are; the held-out ones are as many as asked for
    assert played["training"] == set(training_levels(3).first(3))
    assert played["held_out"] == set(EVALUATION.first(4))
    agent = agents.load(finished.out / "agent", device="cpu")
    again = evaluate(agent, EVALUATION.first(4), progress=False)
    held_out = table[table["levels"] == "held_out"].reset_index(drop=True)
    assert held_out["return"].tolist() == again["return"].tolist()


def test_the_simulators_levels_are_those_it_is_scored_on_as_training_levels(finished):
    (checkpoint,) = finished.out.glob(f"checkpoints/*/{TENSORS}")
    levels = training_levels(finished.levels)
    for name, state in load_file(checkpoint).items():
        if name.startswith("simulator/"):
            options = parse(state.tobytes()).options
            assert (options.level_seed_low, options.level_seed_high) == (levels.start, levels.stop)


def test_a_finished_run_is_taken_as_it_is(run):
    files = {path: path.stat().st_mtime_ns for path in run.out.rglob("*") if path.is_file()}
    finish(run, final_levels=4)
    now = {path: path.stat().st_mtime_ns for path in run.out.rglob("*") if path.is_file()}
    assert now == files


def test_a_stopped_run_goes_on_and_ends_alike(finished, run):
    shutil.rmtree(run.out / "agent")
    (run.out / FINAL).unlink()
    assert standing(run) == (Progress.STOPPED, 64)
    finish(run, final_levels=4)
    assert weights(run) == weights(finished)
    assert (run.out / FINAL).read_bytes() == (finished.out / FINAL).read_bytes()


def test_a_run_without_a_checkpoint_begins_anew(finished, run):
    for name in ("agent", "checkpoints"):
        shutil.rmtree(run.out / name)
    assert standing(run) == (Progress.NEW, 0)
    finish(run, final_levels=4)
    assert weights(run) == weights(finished)


def test_scores_of_another_agent_or_number_of_levels_are_not_reused(run):
    fewer = final_scores(run.out, levels=3, count=2, device="cpu", progress=False)
    assert len(fewer) == 4
    table = pd.read_csv(run.out / FINAL)
    assert len(table) == 4
    table["weights"] = "0" * 16
    table["return"] = 1e6
    table.to_csv(run.out / FINAL, index=False)
    again = final_scores(run.out, levels=3, count=2, device="cpu", progress=False)
    assert again["return"].tolist() == fewer["return"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "holds another run: seed was 0, is 1"),
        ({"learning_rate": 1.0}, "learning_rate was 0.0005, is 1.0"),
        ({"architecture_options": "{}"}, "architecture_options was"),
        ({"frames": 32}, "was trained for 64 frames, 32 are asked for"),
    ],
)
def test_another_run_in_the_folder_is_refused(finished, change, message):
    with pytest.raises(ValueError, match=message):
        standing(replace(finished, **change))


def test_one_more_rollout_than_asked_for_is_a_whole_run(finished):
    assert standing(replace(finished, frames=33)).progress is Progress.FINISHED
    assert standing(replace(finished, frames=65)).progress is Progress.STOPPED


def test_what_is_no_run_is_refused(tmp_path, run):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something that is not a run"):
        standing(replace(TINY, out=tmp_path))
    with pytest.raises(CheckpointError, match=r"holds no run: it lacks options\.json"):
        Run(tmp_path).options()
    (run.out / "results.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        standing(run)


def test_recorded_options_are_those_of_the_run(run):
    assert Run(run.out).options() == replace(run, progress=True)
    assert Run(run.out).identity() == identity(run)
    # a run of an older version lacks the options that came later: they have their defaults
    file = run.out / "options.json"
    document = json.loads(file.read_text())
    del document["options"]["precision"]
    file.write_text(json.dumps(document))
    assert Run(run.out).options().precision == "float32"
    assert Run(run.out).identity() == identity(run)
    assert standing(run).progress is Progress.FINISHED


def test_a_run_of_other_hyperparameters_is_another_run(run):
    file = run.out / "options.json"
    document = json.loads(file.read_text())
    document["options"]["hyperparameters"] |= {"value_coefficient": 0.5, "gone": 3}
    file.write_text(json.dumps(document))
    assert Run(run.out).identity() == {**identity(run), "value_coefficient": 0.5, "gone": 3}
    with pytest.raises(
        ValueError, match=r"value_coefficient was 0.5, is 0.25; gone was 3, and this version has no"
    ):
        standing(run)
