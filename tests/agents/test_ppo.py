import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stable_baselines3 import PPO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlbilinear import agents
from rlbilinear.agents import Agent, BilinearPolicy, CheckpointError, ppo, training_state
from rlbilinear.agents.network import weights_of
from rlbilinear.agents.options import PRESETS, Hyperparameters, TrainOptions
from rlbilinear.agents.ppo import train
from rlbilinear.agents.run import CHECKPOINTS
from rlbilinear.commands.evaluate import main as evaluate_command
from rlbilinear.commands.train import main as train_command
from rlbilinear.envs import TRAINING, ProcgenVecEnv

ROOT = Path(__file__).parents[2]


def tiny(out, **changes):
    options = {
        "out": out,
        "game": "coinrun",
        "architecture": "impala-small",
        "architecture_options": '{"channels": [4, 4], "features": 16}',
        "num_envs": 4,
        "num_steps": 16,
        "minibatches": 2,
        "epochs": 1,
        "frames": 256,
        "levels": 200,
        "held_out": 2,
        "evaluate_every": 0,
        "save_every": 64,
        "device": "cpu",
        "progress": False,
    }
    return TrainOptions(**(options | changes))


def same_weights(one, two):
    first, second = weights_of(one.policy), weights_of(two.policy)
    return first.keys() == second.keys() and all(
        torch.equal(w, second[n]) for n, w in first.items()
    )


def test_presets_are_the_published_hyperparameters():
    published = PRESETS["published"]
    assert dataclasses.asdict(published) == {
        "learning_rate": 5e-4,
        "num_envs": 64,
        "num_steps": 256,
        "minibatches": 8,
        "epochs": 3,
        "gamma": 0.999,
        "gae_lambda": 0.95,
        "clip_range": 0.2,
        "clip_range_vf": None,
        "value_coefficient": 0.25,  # Baselines' 0.5 x half the squared error
        "entropy_coefficient": 0.01,
        "max_grad_norm": 0.5,
        "bootstrap_time_limits": False,
    }
    assert PRESETS["bilinear"] == dataclasses.replace(published, learning_rate=1e-4)


def test_ppo_gets_the_hyperparameters(tmp_path, monkeypatch):
    chosen = Hyperparameters(  # none of them Stable-Baselines3's default
        learning_rate=0.25,
        num_envs=4,
        num_steps=16,
        minibatches=2,
        epochs=1,
        gamma=0.9,
        gae_lambda=0.8,
        clip_range=0.3,
        clip_range_vf=0.4,
        value_coefficient=0.7,
        entropy_coefficient=0.125,
        max_grad_norm=0.6,
        bootstrap_time_limits=False,
    )
    monkeypatch.setitem(PRESETS, "published", chosen)
    options = tiny(tmp_path / "run")
    model = ppo._model(options, ppo._first_agent(options))
    assert (model.learning_rate, model.n_envs, model.n_steps, model.n_epochs) == (0.25, 4, 16, 1)
    assert (model.batch_size, model.gamma, model.gae_lambda) == (32, 0.9, 0.8)
    assert (model.clip_range(1), model.clip_range_vf(1)) == (0.3, 0.4)
    assert (model.vf_coef, model.ent_coef, model.max_grad_norm) == (0.7, 0.125, 0.6)
    assert model.bootstrap_time_limits is False


def test_given_hyperparameters_replace_the_presets():
    options = tiny("run", entropy_coefficient=0.125, clip_range_vf=0.2, learning_rate=0.25)
    expected = dataclasses.replace(
        PRESETS["published"],
        **{"num_envs": 4, "num_steps": 16, "minibatches": 2, "epochs": 1},
        **{"entropy_coefficient": 0.125, "clip_range_vf": 0.2, "learning_rate": 0.25},
    )
    assert options.hyperparameters() == expected


def test_policy_works_in_stock_ppo():
    env = ProcgenVecEnv("coinrun", 4, num_levels=10)
    model = PPO(
        BilinearPolicy,
        env,
        n_steps=8,
        batch_size=16,
        n_epochs=1,
        device="cpu",
        policy_kwargs={"architecture": "bimpala-compact"},
    )
    before = {name: weight.clone() for name, weight in model.policy.named_parameters()}
    model.learn(32)
    env.close()
    after = dict(model.policy.named_parameters())
    unmoved = [name for name, weight in before.items() if torch.equal(weight, after[name])]
    assert unmoved == []
    assert all(weight.isfinite().all() for weight in after.values())


def test_run_writes_what_it_says(tmp_path):
    options = tiny(tmp_path / "run", evaluate_every=128)
    agent = train(options)
    run = tmp_path / "run"
    loaded = agents.load(run / "agent", device="cpu")
    assert same_weights(loaded, agent)
    assert loaded.config.game == "coinrun"
    assert loaded.config.made["frames"] == 256
    assert loaded.config.made["options"]["hyperparameters"]["gamma"] == 0.999
    assert {"command", "hardware", "versions"} <= loaded.config.made.keys()
    results = json.loads((run / "results.json").read_text())
    assert [scores["frames"] for scores in results["held_out"]] == [0, 128, 256]
    assert not [path for path in run.rglob("*") if path.suffix in (".pkl", ".pt", ".zip")]

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    wanted = {
        "held_out_levels/return",
        "held_out_levels/steps",
        "held_out_levels/success",
        "time/steps_per_second",
        "train/gradient_norm",
        "train/policy_gradient_loss",
        "train/value_loss",
        "train/entropy_loss",
    }
    assert wanted <= tags
    assert [event.step for event in events.Scalars("held_out_levels/return")] == [0, 128, 256]


def test_prolonged_run_ends_in_the_same_bytes(tmp_path):
    whole = train(tiny(tmp_path / "whole"))
    train(tiny(tmp_path / "parts", frames=192))
    prolonged = train(tiny(tmp_path / "parts"), resume=True)
    assert same_weights(prolonged, whole)
    first, second = (
        tmp_path / name / "checkpoints" / "000000000256" for name in ("whole", "parts")
    )
    for name in ("agent/model.safetensors", "training.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert not same_weights(train(tiny(tmp_path / "other", seed=1)), whole)


def test_moments_of_a_resumed_run_lie_as_its_weights_do(tmp_path):
    options = tiny(tmp_path)
    train(options)
    (checkpoint,) = (tmp_path / CHECKPOINTS).iterdir()
    model = ppo._model(options, agents.load(checkpoint / "agent", "cpu"))
    training_state.restore(model, checkpoint)
    moments = model.policy.optimizer.state
    convolutions = [w for w in moments if w.dim() == 4 and min(w.shape) > 1]
    assert convolutions and not any(w.is_contiguous() for w in convolutions)
    for weight in convolutions:
        for name in ("exp_avg", "exp_avg_sq"):
            assert moments[weight][name].stride() == weight.stride()


@pytest.mark.slow
def test_every_run_of_a_process_is_compiled(tmp_path, monkeypatch):
    """A minute of compiling: a third run has one graph more than PyTorch allows in all."""
    monkeypatch.setattr("torch._dynamo.config.recompile_limit", 4)
    for seed in range(3):
        train(tiny(tmp_path / str(seed), frames=64, compile=True, seed=seed))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # acting, learning
        torch._dynamo.utils.counters.clear()


def test_agents_along_training_are_kept(tmp_path):
    options = tiny(tmp_path / "run", frames=5 * 64)
    trained = train(options)
    kept = sorted((tmp_path / "run" / "trajectory").iterdir())
    assert [int(folder.name) // 64 for folder in kept] == [0, 1, 2, 4]
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == [
        f"{5 * 64:012d}"
    ]
    along = [weights_of(agents.load(folder, device="cpu").policy) for folder in kept]
    untrained = weights_of(
        Agent.new("impala-small", seed=options.seed, **options.architecture_arguments()).policy
    )
    assert all(torch.equal(w, untrained[name].half().float()) for name, w in along[0].items())
    way = [
        sum((w - weights_of(trained.policy)[name]).norm() for name, w in weights.items())
        for weights in along
    ]
    assert way == sorted(way, reverse=True)


def test_run_of_an_older_version_goes_on(tmp_path):
    options = tiny(tmp_path / "run", frames=64, architecture_options="{}")
    train(options)
    file = tmp_path / "run" / "options.json"
    made = json.loads(file.read_text())
    for name in ("precision", "compile", "film_every", "architecture_options"):
        del made["options"][name]
    file.write_text(json.dumps(made | {"options": made["options"] | {"kernel_size": None}}))
    train(dataclasses.replace(options, frames=128), resume=True)
    file.write_text(json.dumps(made | {"options": made["options"] | {"kernel_size": 7}}))
    with pytest.raises(ValueError, match="kernel_size was 7, and this version has no such option"):
        train(dataclasses.replace(options, frames=192), resume=True)


@pytest.mark.parametrize(
    ("architecture", "given"),
    [
        (
            "bimpala-small",
            {"kernel_size": 5, "gate": "silu", "pool": "average", "channels": 4, "features": 16},
        ),
        ("impala-matched", {"match": "bimpala-small", "channels": 4, "features": 16}),
        (
            "impala-small",
            {"channels": [4, 6], "pool": "average", "kernel_size": 5, "features": 16},
        ),
    ],
)
def test_options_of_architectures_reach_the_network(tmp_path, architecture, given):
    options = {"architecture": architecture, "architecture_options": json.dumps(given)}
    agent = train(tiny(tmp_path / "run", frames=64, **options))
    loaded = agents.load(tmp_path / "run" / "agent", device="cpu")
    assert loaded.config.architecture_kwargs == given
    expected = Agent.new(architecture, **given).policy
    shapes = [{n: w.shape for n, w in weights_of(p).items()} for p in (loaded.policy, expected)]
    assert shapes[0] == shapes[1]
    assert same_weights(loaded, agent)


def test_polynomial_is_scaled_on_the_game_it_is_trained_in(tmp_path):
    given = {"kernel_size": 3, "channels": [8] * 5, "dense": [16, 16]}
    options = {"architecture": "polynomial", "architecture_options": json.dumps(given)}
    train(tiny(tmp_path / "run", frames=64, **options))
    env = ProcgenVecEnv("coinrun", 4, num_levels=200, start_level=TRAINING.start)
    frames = env.observe()
    env.close()
    trained_from = agents.load(tmp_path / "run" / "trajectory" / f"{0:012d}", device="cpu")
    squares = [
        agent.activations(frames, ["conv1", "dense2"])
        for agent in (trained_from, Agent.new("polynomial", **given))
    ]
    scaled, unscaled = ({n: x.square().mean().item() for n, x in s.items()} for s in squares)
    assert scaled == pytest.approx({"conv1": 1, "dense2": 1}, rel=0.1)  # in half precision
    assert unscaled["dense2"] < 1e-3


def test_run_goes_on_from_an_edited_agent(tmp_path):
    start = Agent.new("bimpala-compact", game="maze", seed=5)
    block = agents.Agent.new("bimpala-compact", seed=6).layer("block1")
    start = start.with_layer("block1", block, edit="another first block")
    start.save(tmp_path / "start")
    options = tiny(
        tmp_path / "run",
        architecture=None,
        architecture_options="{}",
        init_from=str(tmp_path / "start"),
        frames=64,
    )
    trained = train(options)
    assert trained.config.game == "coinrun"
    assert trained.config.edits == ("another first block",)
    weights = weights_of(trained.policy), weights_of(start.policy)
    body = [name for name in weights[0] if not name.startswith("value_net")]  # that is fitted
    moved = [(weights[0][name] - weights[1][name]).abs().max().item() for name in body]
    assert 0 < max(moved) < 0.01
    with pytest.raises(ValueError, match="the architecture comes from init_from: remove"):
        train(dataclasses.replace(options, out=tmp_path / "x", architecture="impala"))


def test_folders_are_kept(tmp_path):
    options = tiny(tmp_path / "run", frames=64)
    train(options)
    with pytest.raises(FileExistsError, match="exists"):
        train(options)
    with pytest.raises(ValueError, match=r"another run: seed was 0, is 3"):
        train(dataclasses.replace(options, seed=3), resume=True)
    with pytest.raises(CheckpointError, match=r"nothing holds no run: it lacks options\.json"):
        train(dataclasses.replace(options, out=tmp_path / "nothing"), resume=True)
    other = train(dataclasses.replace(options, seed=3), overwrite=True)
    assert same_weights(agents.load(tmp_path / "run" / "agent", device="cpu"), other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(FileExistsError, match=r"no options.json"):
        train(dataclasses.replace(options, out=tmp_path / "mine"), overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"


def test_altered_training_state_is_refused(tmp_path):
    options = tiny(tmp_path / "run", frames=64)
    train(options)
    file = tmp_path / "run" / "checkpoints" / "000000000064" / training_state.TENSORS
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="truncated or altered"):
        train(dataclasses.replace(options, frames=128), resume=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"game": "pong"}, r"unknown game 'pong'.*coinrun"),
        ({"mode": "extreme"}, r"no mode 'extreme'.*easy"),
        ({"architecture": "vgg"}, r"unknown architecture 'vgg'.*bimpala"),
        ({"preset": "fast"}, r"unknown preset 'fast'.*published"),
        ({"clip_range_vf": 0.0}, "clip_range_vf must be positive and finite, got 0.0"),
        (
            {"entropy_coefficient": -0.01},
            "entropy_coefficient must be 0 or more and finite, got -0.01",
        ),
        (
            {"architecture_options": '{"kernel_size": 4}'},
            r"kernel_size must be odd and positive, got 4",
        ),
        ({"architecture_options": "kernel_size=3"}, r"JSON object.*got 'kernel_size=3'"),
        ({"precision": "half"}, "unknown precision 'half'; choose from float32, tf32, bfloat16"),
        ({"device": "tpu9"}, r"no device 'tpu9'.*cuda"),
        (
            {"init_from": "nobody", "architecture": None, "architecture_options": "{}"},
            r"'nobody' is neither a folder",
        ),
        ({"entropy_coefficient": float("inf")}, "entropy_coefficient .* finite, got inf"),
        ({"clip_range_vf": float("inf")}, "clip_range_vf must be positive and finite, got inf"),
        ({"architecture": ""}, "unknown architecture ''; choose from impala, "),
        ({"seed": 2**31}, r"seed must be in 0\.\.2147483647, got 2147483648"),
        ({"minibatches": 7}, "64 frames per rollout are not divisible by 7 minibatches"),
        ({"seed": -1}, r"seed must be in 0\.\.2147483647, got -1"),
        (
            {"architecture_options": '{"kernel_size": "a"}'},
            "kernel_size must be odd and positive, got 'a'",
        ),
        (
            {"architecture_options": '{"channels": -1}'},
            "channels must be a sequence of whole numbers; got -1",
        ),
        ({"frames": 0}, "frames must be positive"),
        ({"minibatches": 0}, "minibatches must be positive, got 0"),
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"num_steps": 0}, "num_steps must be positive, got 0"),
        ({"levels": -1}, "levels must be positive, or 0 for all, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
    ],
)
def test_bad_options_leave_nothing(tmp_path, changes, reason):
    with pytest.raises(ValueError, match=reason):
        train(tiny(tmp_path / "run", **changes))
    assert list(tmp_path.iterdir()) == []


def script(name, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def refusal(command, capsys, *arguments):
    """What a command says that ends with 2, in this process: starting another takes seconds."""
    with pytest.raises(SystemExit) as ended:
        command([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_scripts_train_and_evaluate_end_to_end(tmp_path, capsys):
    run = tmp_path / "run"
    options = [
        *("--out", run, "--game", "coinrun", "--architecture", "impala-compact"),
        *("--minibatches", 16, "--num-envs", 8, "--num-steps", 32, "--epochs", 1),
        *("--frames", 512, "--levels", 200, "--held-out", 1, "--evaluate-every", 0),
    ]
    done = script("train.py", *options)
    assert done.returncode == 0, done.stderr
    assert "gym" not in (done.stdout + done.stderr).lower()
    assert (
        agents.load(run / "agent", device="cpu")
        .config.made["command"]
        .startswith("python scripts/train.py --out")
    )
    refused = refusal(train_command, capsys, *options)
    assert "exists" in refused and "Traceback" not in refused

    out = tmp_path / "scores.csv"
    done = script("evaluate.py", run / "agent", "--levels", 1, "--out", out, "--no-progress")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in ("sampled", "greedy", "return", "success", "uniform over 15 actions"):
        assert text in done.stdout
    assert len(out.read_text().splitlines()) == 1 + 4
    wrong = refusal(evaluate_command, capsys, "maze-nobody")
    assert "'maze-nobody' is neither a folder" in wrong and "Traceback" not in wrong
