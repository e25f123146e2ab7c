import numpy as np
import pytest
import torch

from rlbilinear import BilinearTensor
from rlbilinear.agents import Agent
from rlbilinear.agents.evaluation import start_levels
from rlbilinear.agents.layer_statistics import (
    activation_statistics,
    held_out_frames,
    weight_statistics,
)
from rlbilinear.envs import EVALUATION, ProcgenVecEnv

SMALL = {"channels": (4, 6), "features": 12}


@pytest.fixture(scope="module")
def frames():
    return held_out_frames("coinrun", EVALUATION.first(40))


@pytest.mark.parametrize("levels", [1, 3, 20])
def test_frames_are_the_same_at_every_call_and_begin_where_levels_do(levels):
    chosen = EVALUATION.first(levels)
    frames = held_out_frames("maze", chosen)
    assert frames.shape == (64, 3, 64, 64) and frames.dtype == np.uint8
    assert np.array_equal(frames, held_out_frames("maze", chosen))
    env = ProcgenVecEnv("maze", 1)
    for index, level in enumerate(chosen[:3]):
        assert np.array_equal(frames[index], start_levels(env, [level])[0])
    env.close()
    with pytest.raises(ValueError, match="at least one level"):
        held_out_frames("maze", [])


def expected(values):
    """Work the statistics out from all values at once, (samples, channels, ...)."""
    values = values.double().numpy()
    square = np.mean(values**2)
    rms = np.sqrt(np.mean(values**2, axis=(0, *range(2, values.ndim))))
    return {
        "mean_square": square,
        "peak": np.abs(values).max() / np.sqrt(square),
        "kurtosis": np.mean(values**4) / square**2,
        "dead_channels": np.mean(rms <= 1e-3 * np.sqrt(square)),
    }


def check(numbers, name, values, kinds=("mean_square", "peak", "kurtosis", "dead_channels")):
    for kind in kinds:
        found = numbers[f"layer_activation_{kind}/{name}"]
        assert found == pytest.approx(expected(values)[kind], rel=1e-4), (kind, name)


@pytest.mark.parametrize("gate", ["none", "silu"])
@pytest.mark.parametrize("name", ["bimpala-small", "bimpala-full"])
def test_activations_of_products(frames, name, gate):
    agent = Agent.new(name, gate=gate, **SMALL, **({"blocks": (1, 1)} if "full" in name else {}))
    for weight in agent.policy.parameters():  # biases too
        torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(1))
    numbers, samples = activation_statistics(agent, frames)
    inner = {"bimpala-small": ("bilinear", "gated"), "bimpala-full": ("product",) * 2}[name]
    path = f"block2.{inner[gate != 'none']}"
    before = agent.activations(frames, ["stem", "pool2", "block2", "dense", path])
    layer = agent.layer(path)
    with torch.no_grad():
        parts = (
            {"left": layer.left(before["pool2"]), "right": layer.right(before["pool2"])}
            if gate == "none"
            else {
                "gate": torch.nn.functional.silu(layer.gate(before["pool2"])),
                "value": layer.value(before["pool2"]),
            }
        )
    for part, values in parts.items():
        check(numbers, f"{path}.{part}", values, ["mean_square"])
    check(numbers, f"{path}.product", before[path])
    check(numbers, "dense.product", before["dense"])
    for stream in ("stem", "block2"):
        check(numbers, stream, before[stream], ["mean_square"])
    assert "layer_activation_mean_square/pool2" not in numbers
    drawn = samples[f"layer_activations/{path}.product"]
    assert 1_000 < len(drawn) <= 20_000 + 64
    assert set(drawn.tolist()) <= set(before[path].flatten().tolist())


def test_activations_of_relus_and_dead_channels(frames):
    agent = Agent.new("impala-small", **SMALL)
    with torch.no_grad():
        agent.layer("block2.conv1").bias[:2] = -1e3
    numbers, _ = activation_statistics(agent, frames)
    layer, before = agent.layer("block2"), agent.activations(frames, ["pool2", "relu2"])
    with torch.no_grad():
        hidden = layer.conv1(before["pool2"].relu()).relu()
    check(numbers, "block2.relu", hidden)
    check(numbers, "relu2", before["relu2"])
    assert numbers["layer_activation_dead_channels/block2.relu"] >= 2 / 6

    bilinear = Agent.new("bimpala-small", **SMALL)
    with torch.no_grad():
        bilinear.layer("block1.bilinear.left").weight[3] = 0
    numbers, _ = activation_statistics(bilinear, frames)
    assert numbers["layer_activation_dead_channels/block1.bilinear.product"] == 1 / 4


def test_looking_leaves_nothing_behind(frames):
    agent = Agent.new("bimpala-small", **SMALL)
    before = agent.logits(frames[:2])
    activation_statistics(agent, frames[:20])
    hooks = [layer._forward_hooks for layer in agent.policy.modules()]
    assert not any(hooks)
    assert torch.equal(agent.logits(frames[:2]), before)


def participation(values):
    return (values**2).sum().item() ** 2 / (values**4).sum().item()


def test_weights_without_data():
    agent = Agent.new("bimpala-small", **SMALL)
    with torch.no_grad():
        stem = agent.layer("stem").weight
        stem.copy_(torch.outer(torch.arange(1.0, 5.0), torch.randn(75)).view_as(stem))
    numbers = weight_statistics(agent)
    assert numbers["layer_weight_rank/stem"] == pytest.approx(1.0)
    weight, bias = agent.layer("stem").weight, agent.layer("stem").bias
    norm = (weight.square().sum() + bias.square().sum()).sqrt().item()
    assert numbers["layer_weight_norm/stem"] == pytest.approx(norm)
    assert numbers["layer_weight_rank/action_net"] == pytest.approx(
        participation(torch.linalg.svdvals(agent.policy.action_net.weight.double()))
    )
    dense = BilinearTensor.of(agent.layer("block1.bilinear")).matrices()
    _, sizes, right = torch.linalg.svd(dense.flatten(1), full_matrices=False)
    assert numbers["layer_tensor_rank/block1.bilinear"] == pytest.approx(participation(sizes))
    largest = torch.linalg.eigvalsh(right[0].view(dense.shape[1:]))
    assert numbers["layer_eigenfilter_rank/block1.bilinear"] == pytest.approx(
        participation(largest)
    )


def test_weights_of_layers_that_are_zero_or_not_bilinear():
    agent = Agent.new("bimpala-small", **SMALL)
    with torch.no_grad():
        agent.layer("block1.bilinear.left").weight.zero_()
    numbers = weight_statistics(agent)
    assert numbers["layer_tensor_rank/block1.bilinear"] == 0
    assert "layer_eigenfilter_rank/block1.bilinear" not in numbers
    for name in ("impala-small", "bimpala-small"):
        twin = Agent.new(name, **SMALL, **({"gate": "relu"} if name != "impala-small" else {}))
        found = weight_statistics(twin)
        assert "layer_weight_rank/dense.gate" in found or "layer_weight_rank/dense" in found
        assert not any("tensor_rank" in tag for tag in found)
