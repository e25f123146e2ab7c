import dataclasses
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlbilinear import agents
from rlbilinear.agents import Agent, CheckpointError, distill_state, distillation
from rlbilinear.agents.distill_options import DistillOptions
from rlbilinear.agents.distillation import (
    distill,
    gradient_step,
    held_out_scores,
    make_optimisers,
    set_rates,
    student_loss,
)
from rlbilinear.agents.expert import ExpertMazes
from rlbilinear.agents.expert_heist import ExpertHeists
from rlbilinear.agents.experts import EXPERTS
from rlbilinear.agents.folder import locked
from rlbilinear.agents.network import weights_of
from rlbilinear.agents.run import AGENT, DISTILLED, OPTIONS, Run
from rlbilinear.commands.main import main
from rlbilinear.envs import EVALUATION, MOVE_OF_ACTION, TRAINING, Levels, Maze

ROOT = Path(__file__).parents[2]


def tiny(out, **changes):
    options = {
        "out": out,
        "frames": 48,
        "batch": 8,
        "groups": 2,
        "warmup": 2,
        "evaluation_levels": 0,
        "checkpoint_frames": 24,
        "device": "cpu",
        "progress": False,
    }
    return DistillOptions(**(options | changes))


@pytest.fixture
def mazes():
    made = ExpertMazes(8, TRAINING, 5)
    yield made
    made.close()


@pytest.fixture
def seen_levels(monkeypatch):
    """The levels that runs show their students, as the simulator names them."""
    seen = set()

    class Watched(ExpertMazes):
        def _start(self, which):
            moved = super()._start(which)
            seen.update(Maze.from_bytes(raw).level_seed for raw in self._env.get_states(which))
            return moved

    monkeypatch.setitem(EXPERTS, "maze", Watched)
    return seen


@pytest.fixture
def stop_after(monkeypatch):
    """Make a run stop, as by control-C, when it begins one more step than this number."""

    def plan(steps):
        left = iter(range(steps))

        def step(*arguments):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return gradient_step(*arguments)

        monkeypatch.setattr(distillation, "gradient_step", step)

    return plan


def test_muon_takes_hidden_matrices_and_adam_all_else():
    policy = Agent.new("bimpala-compact").policy
    names = {weight: name for name, weight in policy.named_parameters()}
    muon, adam = (
        {names[weight] for group in optimiser.param_groups for weight in group["params"]}
        for optimiser in make_optimisers(policy, tiny(Path("run")))
    )
    body = "features_extractor.layers."
    factors = {f"block{n}.bilinear.{side}" for n in range(1, 8) for side in ("left", "right")}
    assert muon == {f"{body}{f}.weight" for f in factors | {"dense.left", "dense.right"}}
    ends = {f"{body}stem", "action_net", "value_net"}
    assert adam == {f"{layer}.{part}" for layer in ends for part in ("weight", "bias")}


def test_loss_is_of_the_experts_move_and_its_return(mazes):
    agent = Agent.new("impala-compact")
    with torch.no_grad():
        agent.policy.action_net.weight.mul_(100)
    options = tiny(Path("run"), value_weight=0.5)
    losses, log_probabilities = student_loss(agent.policy, mazes, options)

    probabilities = agent.logits(mazes.observations.copy()).softmax(1).double()
    with torch.no_grad():
        features = agent.policy.extract_features(torch.as_tensor(mazes.observations))
        values = agent.policy.value_net(features).double()
    actor, critic, right = [], [], []
    for row, value, move, steps in zip(
        probabilities, values, mazes.moves, mazes.steps_to_go, strict=True
    ):
        like_expert = [action for action in range(15) if MOVE_OF_ACTION[action] == move]
        actor.append(-math.log(sum(row[action].item() for action in like_expert)))
        critic.append((value.item() - 10 * 0.999 ** (steps - 1)) ** 2)
        right.append(row.argmax().item() in like_expert)
    assert losses["actor"].item() == pytest.approx(np.mean(actor), rel=1e-4)
    assert losses["critic"].item() == pytest.approx(np.mean(critic), rel=1e-4)
    assert losses["accuracy"].item() == pytest.approx(np.mean(right))
    expected = np.mean(actor) + 0.5 * np.mean(critic)
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-4)
    assert torch.allclose(log_probabilities.exp().double(), probabilities, atol=1e-5)


def test_rates_rise_then_fall_linearly():
    options = tiny(Path("run"), frames=8000, batch=8, warmup=100, matrix_rate=2e-3, rate=1e-3)
    optimisers = make_optimisers(Agent.new("impala-compact").policy, options)
    shares = []
    for step in range(1000):
        set_rates(optimisers, options, step)
        muon, adam = (optimiser.param_groups[0]["lr"] for optimiser in optimisers)
        assert muon == pytest.approx(2 * adam)
        shares.append(adam / 1e-3)
    assert shares[0] == pytest.approx(0.01)
    assert shares[49] == pytest.approx(0.5 * (1 - 49 / 1000))
    assert shares[500] == pytest.approx(0.5)
    assert shares[999] == pytest.approx(0.001)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_student_learns_a_few_levels(precision):
    """Memorising two levels is all that seconds allow; the slow test below asks for more."""
    steps, batch = 300, 64
    options = tiny(
        Path("run"),
        batch=batch,
        frames=batch * steps,
        warmup=10,
        matrix_rate=0.02,
        rate=3e-3,
        precision=precision,
    )
    agent = Agent.new("bimpala-compact", channels=16, blocks=(1, 1), features=64)
    optimisers = make_optimisers(agent.policy, options)
    mazes = ExpertMazes(batch, Levels(TRAINING.start, 2), 0)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for step in range(steps):
        set_rates(optimisers, options, step)
        rows.append(gradient_step(agent.policy, optimisers, mazes, options, generator))
        mazes.step_wait()
    mazes.close()
    last = {name: np.mean([row[name] for row in rows[-10:]]) for name in rows[0]}
    assert rows[0]["actor"] > math.log(4)  # as of one who knows the four moves, but no maze
    assert last["actor"] < 0.5 * math.log(4)
    assert last["accuracy"] > 0.75
    assert last["critic"] < 0.1 * rows[0]["critic"]
    assert not any(row["skipped"] for row in rows)


def test_a_run_leaves_an_agent_with_its_record_and_scores(tmp_path, seen_levels, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["/elsewhere/scripts/distill.py", "--out", str(out)])
    trained = distill(tiny(out, evaluation_levels=2, checkpoint_frames=48))

    loaded = agents.load(out / AGENT, device="cpu")
    for name, weight in weights_of(trained.policy).items():
        assert torch.equal(weight, weights_of(loaded.policy)[name])
    made = loaded.config.made
    assert made["frames"] == 48
    assert made["levels"] == str(TRAINING)
    assert made["options"]["seed"] == 0 and made["options"]["precision"] == "float32"
    assert made["command"] == "python scripts/distill.py --out run"
    assert made["hardware"]["cpus"] == os.cpu_count()
    assert made["versions"]["torch"] == torch.__version__
    assert set(made["scores"]) == {"return", "success", "solved", "steps"}
    text = (out / OPTIONS).read_text() + (out / AGENT / "config.json").read_text()
    assert str(tmp_path) not in text and str(Path.home()) + "/" not in text
    assert json.loads((out / OPTIONS).read_text())["options"] == made["options"]

    events = EventAccumulator(str(out / "tensorboard")).Reload()
    scalars = {tag: events.Scalars(tag)[-1] for tag in events.Tags()["scalars"]}
    expected = {"loss", "actor", "critic", "accuracy", "gradient_norm", "skipped"}
    assert {f"train/{name}" for name in {*expected, "frames_per_second"}} <= set(scalars)
    for name, score in made["scores"].items():
        assert scalars[f"held_out_levels/{name}"].value == pytest.approx(score)
    assert {scalar.step for scalar in scalars.values()} == {48}

    assert len(seen_levels) >= 16
    assert all(level in TRAINING for level in seen_levels)


def test_the_seed_decides_the_run(tmp_path):
    one, two, other = (
        weights_of(distill(tiny(tmp_path / name, frames=16, seed=seed)).policy)
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())
    assert not all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_bar_shows_the_accuracy(tmp_path, capfd):
    distill(tiny(tmp_path / "run", frames=16, progress=True))
    assert "accuracy=" in capfd.readouterr().err


def test_training_state_is_restored_exactly(tmp_path):
    out = tmp_path / "run"
    distill(tiny(out))
    agent = Agent.new("bimpala-compact", seed=99)
    optimisers = make_optimisers(agent.policy, tiny(out))
    assert distill_state.restore(out / DISTILLED, agent, optimisers) == 48
    distill_state.write(tmp_path / "again", agent, optimisers, 48)
    first, second = ({}, {})
    for tensors, file in ((first, out / DISTILLED), (second, tmp_path / "again")):
        with safe_open(file, framework="pt") as opened:
            tensors.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    moments = {name.split("/")[0]: name.split("/")[-1] for name in first}
    assert set(moments) == {"weights", "optimiser0", "optimiser1"}
    assert all(t.abs().sum() > 0 for n, t in first.items() if n.startswith("optimiser"))


def test_an_interrupted_run_goes_on_from_its_checkpoint(
    tmp_path, monkeypatch, seen_levels, stop_after
):
    out = tmp_path / "run"
    monkeypatch.setattr(distillation, "held_out_scores", lambda *_: {"solved": 0.5})
    stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        distill(tiny(out, evaluation_levels=1))
    left = agents.load(out / AGENT, device="cpu")
    assert left.config.made["frames"] == 24  # the step after the checkpoint is lost
    before = set(seen_levels)
    seen_levels.clear()

    steps = []

    def watch(policy, optimisers, *arguments):
        if not steps:
            weights, stored = weights_of(policy), weights_of(left.policy)
            assert all(torch.equal(weights[name], stored[name]) for name in stored)
            assert all(optimiser.state_dict()["state"] for optimiser in optimisers)
        steps.append([optimiser.param_groups[0]["lr"] for optimiser in optimisers])
        return gradient_step(policy, optimisers, *arguments)

    monkeypatch.setattr(distillation, "gradient_step", watch)
    trained = distill(tiny(out, evaluation_levels=1), resume=True)
    shares = [1 - step / 6 for step in (3, 4, 5)]
    assert np.allclose(steps, [[2e-3 * share, 7e-4 * share] for share in shares])
    assert trained.config.made["frames"] == 48
    assert trained.config.made["resumed_at_frames"] == 24
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [scalar.step for scalar in events.Scalars("held_out_levels/solved")] == [24, 48]
    assert seen_levels and not seen_levels & before
    assert all(level in TRAINING for level in seen_levels)

    with pytest.raises(ValueError, match="has had 48 frames"):
        distill(tiny(out), resume=True)
    assert distill(tiny(out, frames=56), resume=True).config.made["frames"] == 56


@pytest.mark.parametrize("frames", [48, 24])
def test_a_run_that_has_its_frames_is_left_as_it_is(tmp_path, frames):
    out = tmp_path / "run"
    distill(tiny(out))
    files = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=f"has had 48 frames already, {frames} are asked for") as e:
        distill(tiny(out, frames=frames), resume=True)
    assert type(e.value) is ValueError  # bad usage, not a damaged run
    assert files == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}


def test_a_run_killed_after_its_last_step_gets_its_agent(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    options = tiny(tmp_path / "run", evaluation_levels=1)
    whole = distill(tiny(tmp_path / "whole", evaluation_levels=1))
    distill(dataclasses.replace(options, frames=24))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(distillation, "held_out_scores", killed)
        distill(options, resume=True)
    run = Run(options.out)
    assert run.trained_frames == 24
    distill(options, resume=True)
    assert run.trained_frames == 48
    agent, made = agents.load(run.folder / AGENT, device="cpu"), whole.config.made
    assert agent.config.made["scores"].keys() == made["scores"].keys()
    with pytest.raises(ValueError, match="has had 48 frames"):
        distill(options, resume=True)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path):
    out = tmp_path / "run"
    distill(tiny(out, frames=24))
    state = (out / DISTILLED).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(state) - 1, hard))
    try:
        with pytest.raises(OSError) as raised:
            distill(tiny(out), resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(raised.value) == (
        f"cannot write in {out} after 48 frames: [Errno 27] File too large: '{out / DISTILLED}'; "
        f"the last good checkpoint is {out / DISTILLED}"
    )
    assert (out / DISTILLED).read_bytes() == state
    assert not list(out.rglob(".*"))
    distill(tiny(out), resume=True)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with locked(tmp_path / "run"):
        for flags in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(BlockingIOError, match=f"in use by process {os.getpid()}"):
                distill(tiny(tmp_path / "run"), **flags)


def test_a_run_of_another_architecture_is_not_resumed(tmp_path):
    distill(tiny(tmp_path / "run", frames=8))
    with pytest.raises(CheckpointError, match="bimpala-compact, which do not fit impala-compact"):
        distill(tiny(tmp_path / "run", architecture="impala-compact"), resume=True)
    assert agents.load(tmp_path / "run" / AGENT).config.architecture == "bimpala-compact"


def test_a_heist_agent_is_made_resumed_and_scored(tmp_path):
    out = tmp_path / "run"
    options = {"game": "heist", "evaluation_levels": 2, "checkpoint_frames": 48}
    distill(tiny(out, frames=24, **options))
    trained = distill(tiny(out, **options), resume=True)
    assert trained.config.game == "heist" and trained.config.made["frames"] == 48
    assert set(trained.config.made["scores"]) == {"return", "success", "solved", "steps"}
    loaded = agents.load(out / AGENT, device="cpu")
    assert loaded.config.game == "heist"
    for name, weight in weights_of(trained.policy).items():
        assert torch.equal(weight, weights_of(loaded.policy)[name])
    with pytest.raises(CheckpointError, match="is of heist, not of maze"):
        distill(tiny(out, frames=96), resume=True)


def test_a_heist_loss_uses_all_right_actions_and_the_steps_to_go():
    agent, heists = Agent.new("impala-compact", game="heist"), ExpertHeists(8, TRAINING, 5)
    with torch.no_grad():
        agent.policy.action_net.weight.mul_(100)
        losses, log_probabilities = student_loss(agent.policy, heists, tiny(Path("run")))
        features = agent.policy.extract_features(torch.as_tensor(heists.observations))
        values = agent.policy.value_net(features).squeeze(1).double().numpy()
    probabilities = log_probabilities.exp().double().numpy()
    right = heists.right
    heists.close()
    assert losses["actor"].item() == pytest.approx(
        -np.log((probabilities * right).sum(1)).mean(), rel=1e-4
    )
    returns = 10 * 0.999 ** (heists.steps_to_go.astype(float) - 1)
    assert losses["critic"].item() == pytest.approx(((values - returns) ** 2).mean(), rel=1e-4)
    best = right[np.arange(8), probabilities.argmax(1)]
    assert losses["accuracy"].item() == pytest.approx(best.mean())


def test_a_damaged_training_state_is_refused(tmp_path):
    out = tmp_path / "run"
    distill(tiny(out, frames=8))
    file = out / DISTILLED
    whole = file.read_bytes()
    with safe_open(file, framework="pt") as opened:
        facts = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118

    file.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="no training state"):
        distill(tiny(out), resume=True)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="altered"):
        distill(tiny(out), resume=True)
    save_file(tensors, file, metadata={**facts, "frames": "0"})
    with pytest.raises(CheckpointError, match="altered"):
        distill(tiny(out), resume=True)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="altered"):
        distill(tiny(out), resume=True)
    file.write_bytes(whole)
    distill(tiny(out, frames=16), resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "float16"}, r"'float16'.*float32, bfloat16"),
        ({"mode": "extreme"}, r"'extreme'.*easy, hard, memory"),
        ({"game": "coinrun"}, "no expert plays 'coinrun'; the games with one are maze, heist"),
        ({"game": "heist", "mode": "extreme"}, "heist has no mode 'extreme'"),
        ({"architecture": "resnet"}, r"'resnet'.*bimpala-compact"),
        ({"device": "abacus"}, r"'abacus'.*auto, cpu, cuda"),
        ({"frames": 7}, "frames must be at least one batch, 8, got 7"),
        ({"frames": 0}, "frames"),
        ({"batch": 0}, "batch must be positive, got 0"),
        ({"groups": 0}, "groups must be positive"),
        ({"warmup": 0}, "warmup must be positive"),
        ({"checkpoint_frames": -1}, "checkpoint_frames must be positive"),
        ({"evaluation_levels": 100_001}, "100001 of 100000"),
        ({"evaluation_levels": -1}, "-1 of 100000"),
        ({"rate": 0.0}, "rate must be above 0"),
        ({"matrix_rate": float("nan")}, "matrix_rate must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"new_level": 1.5}, r"new_level must be in 0\.\.1, got 1\.5"),
        ({"anywhere": -0.1}, r"anywhere must be in 0\.\.1"),
        ({"seed": -1}, r"seed must be in 0\.\.2147483647, got -1"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        distill(tiny(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_folders_are_not_overwritten_unasked(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match=r"nothing to resume: no .*training\.safetensors"):
        distill(tiny(out), resume=True)
    with pytest.raises(ValueError, match="one of overwrite and resume"):
        distill(tiny(out), overwrite=True, resume=True)
    assert not out.exists()
    distill(tiny(out, frames=16))
    state = (out / DISTILLED).read_bytes()
    with pytest.raises(FileExistsError, match="exists"):
        distill(tiny(out))
    with pytest.raises(ValueError, match="precision"):
        distill(tiny(out, precision="half"), overwrite=True)
    assert (out / DISTILLED).read_bytes() == state
    assert distill(tiny(out, frames=8), overwrite=True).config.made["frames"] == 8

    strange = tmp_path / "photographs"
    strange.mkdir()
    (strange / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(FileExistsError, match="not overwritten"):
        distill(tiny(strange), overwrite=True)
    assert (strange / "cat.jpg").exists()


def test_outputs_that_are_not_finite_end_the_run(tmp_path, mazes):
    agent = Agent.new("impala-compact")
    options = tiny(tmp_path / "run")
    with torch.no_grad():
        agent.policy.value_net.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="outputs are not finite"):
        gradient_step(
            agent.policy, make_optimisers(agent.policy, options), mazes, options, torch.Generator()
        )


def test_gradients_that_are_not_finite_change_nothing_and_end_the_run(tmp_path, mazes, monkeypatch):
    agent = Agent.new("impala-compact")
    options = tiny(tmp_path / "run", frames=80, architecture="impala-compact")
    agent.policy.value_net.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: weight.clone() for name, weight in weights_of(agent.policy).items()}
    optimisers = make_optimisers(agent.policy, options)
    row = gradient_step(agent.policy, optimisers, mazes, options, torch.Generator())
    mazes.step_wait()
    assert row["skipped"] == 1
    assert all(torch.equal(w, before[n]) for n, w in weights_of(agent.policy).items())

    monkeypatch.setattr(distillation, "MAX_SKIPPED", 3)
    monkeypatch.setattr(distillation, "gradient_step", lambda *_: row)
    monkeypatch.setattr(ExpertMazes, "step_wait", lambda self: None)
    with pytest.raises(FloatingPointError, match="3 of 3 gradients"):
        distill(options)


def test_control_c_leaves_the_last_checkpoint_whole(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "scripts/distill.py", "--out", str(out), "--batch", "8"]
    command += ["--architecture", "impala-compact", "--evaluation-levels", "0"]
    command += ["--frames", "1000000", "--checkpoint-frames", "8", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (out / AGENT).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "to resume:\npython scripts/distill.py --out" in errors and "Traceback" not in errors
    assert agents.load(out / AGENT).config.made["frames"] >= 8
    more = tiny(out, architecture="impala-compact", frames=100_000)
    agent = Agent.new("impala-compact")
    frames = distill_state.restore(out / DISTILLED, agent, make_optimisers(agent.policy, more))
    assert frames >= 8


def test_command_line_names_the_choices(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["distill", "--out", str(tmp_path / "run"), "--mode", "extreme"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "easy, hard, memory" in said and "Traceback" not in said


@pytest.mark.slow
def test_ten_minutes_of_learning_carry_over_to_held_out_levels(tmp_path):
    """300,000 frames; about 10 minutes on two free cores.

    A uniform policy has an accuracy near 1/4 and solves a fifth at most.
    """
    options = DistillOptions(
        tmp_path / "run", frames=300_000, checkpoint_frames=300_000, evaluation_levels=128
    )
    agent = distill(options)
    mazes = ExpertMazes(256, EVALUATION, 1)
    generator = torch.Generator().manual_seed(0)
    accuracies = []
    for _ in range(20):  # in states that the student itself gets into
        with torch.no_grad():
            losses, log_probabilities = student_loss(agent.policy, mazes, options)
        accuracies.append(losses["accuracy"].item())
        actions = torch.multinomial(log_probabilities.exp().cpu(), 1, generator=generator)
        mazes.step_async(actions.squeeze(1).numpy())
        mazes.step_wait()
    mazes.close()
    assert np.mean(accuracies) > 0.65
    scores = held_out_scores(agent, dataclasses.replace(options, evaluation_levels=128))
    assert scores == agent.config.made["scores"]  # the same levels by the same seeds
    assert scores["solved"] > 0.4


def test_keeps_agents_along_training(tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "KEPT_STEPS", 1)
    last = distill(tiny(tmp_path / "run"))
    kept = sorted((tmp_path / "run" / "trajectory").iterdir())
    assert [int(place.name) for place in kept] == [0, 8, 16, 32]  # of 48 frames, 8 in a step
    first, *_ = (agents.load(place, device="cpu") for place in kept)
    untrained = Agent.new("bimpala-compact", seed=0, device="cpu")
    for name, weight in untrained.policy.state_dict().items():
        torch.testing.assert_close(first.policy.state_dict()[name], weight.half().float())
    assert not torch.equal(last.policy.action_net.weight, first.policy.action_net.weight)
