import copy

import numpy as np
import pytest
import torch
from torch import nn

from rlbilinear import envs
from rlbilinear.agents import Agent
from rlbilinear.agents.polynomial_parts import (
    explain_chains,
    explain_components,
    explain_degrees,
    inputs_of,
    move_directions,
    part_to,
    polynomial_parts,
)
from rlbilinear.edits.functional import add_bias_map


def small(**kwargs):
    sizes = {"channels": 3, "blocks": (2, 1), "stem_kernel": 5, "stem_stride": 2, "features": 6}
    return Agent.new("bimpala", **{**sizes, **kwargs})


@pytest.fixture(scope="module")
def observations():
    return envs.observe([envs.Maze.from_seed(seed) for seed in range(5)])


def check_parts(agent, observations):
    """Every part computes what the agent's layers do."""
    parts = polynomial_parts(agent)
    for part in parts:
        x = inputs_of(agent, part, observations)
        last = part.layers[-1]
        true = agent.activations(observations, [last])[last]
        torch.testing.assert_close(
            part.stack(x).flatten(1), true.flatten(1).double(), atol=1e-4, rtol=1e-4
        )
    return parts


def test_parts_lie_between_max_pools(observations):
    parts = check_parts(small(), observations)
    assert [str(part) for part in parts] == ["pool1 to block2", "pool2 to action_net"]
    assert [part.stack.degree for part in parts] == [4, 4]
    assert parts[1].layers == ("block3", "dense", "action_net")
    value = polynomial_parts(small(), head="value_net")
    assert value[1].layers[-1] == "value_net"


def test_edited_agents_have_parts_too(observations):
    agent = small()
    agent = agent.with_layer("block1", add_bias_map(agent.layer("block1"), torch.randn(3, 16, 16)))
    agent = agent.with_layer("dense", add_bias_map(agent.layer("dense"), torch.randn(6)))
    skip = nn.Conv2d(3, 3, 1)
    block = agent.layer("block3")
    block.skip = skip
    agent = agent.with_layer("block3", block)
    parts = check_parts(agent, observations)
    whole = explain_chains(agent, observations, filters=[500], patterns=None, layers=2)
    assert whole.r2.to_numpy() == pytest.approx(1, abs=1e-6)
    assert set(whole.part) == {str(part) for part in parts}


def test_what_chains_explain(observations):
    agent = small()
    moves = move_directions(agent)
    table = explain_chains(agent, observations, filters=[1, 2], directions={"action_net": moves})
    ends = table[table.part == "pool2 to action_net"]
    assert list(ends.direction.unique()) == ["left", "down", "up", "right", "stay"]
    assert list(ends.down_through.unique()) == ["action_net", "dense", "block3"]
    assert ends[ends.down_through == "action_net"].r2.to_numpy() == pytest.approx(1)
    blocks = table[table.part == "pool1 to block2"]
    assert len(blocks) == len(blocks.direction.unique()) * 2 * 2
    assert blocks.skip_r2.notna().all()
    logits = agent.logits(observations).double()
    left = logits @ moves["left"]
    assert left.std() > 0
    torch.testing.assert_close(
        moves["left"], (torch.tensor([1.0] * 3 + [-3 / 12] * 12) / 3).double()
    )
    with pytest.raises(ValueError, match="last layers of parts, block2, action_net"):
        explain_chains(agent, observations, directions={"dense": moves})


def test_degrees_add_up_to_the_output(observations):
    table = explain_degrees(small(), observations, batch=2)
    for _, part in table.groupby("part"):
        assert list(part.degree) == list(range(len(part)))
        assert part.r2.iloc[-1] == pytest.approx(1)
        assert part.r2.iloc[0] < 1


def test_components_add_up_to_the_output(observations):
    agent = small()
    agent = agent.with_layer("block1", add_bias_map(agent.layer("block1"), torch.randn(3, 16, 16)))
    table = explain_components(agent, observations, (0, 1, 6, 99))
    for _, part in table.groupby("part"):
        assert list(part.kept) == [0, 1, 6, 99]
        assert part.r2.iloc[2:].tolist() == pytest.approx([1, 1]) and part.r2.iloc[1] < 1 - 1e-6
    bare = agent.with_layer("block1.layer.bilinear", zeroed(agent.layer("block1.layer.bilinear")))
    bare = bare.with_layer("block2.bilinear", zeroed(agent.layer("block2.bilinear")))
    first, _ = polynomial_parts(bare)
    x = inputs_of(agent, first, observations)
    true = polynomial_parts(agent)[0].stack(x)
    explained = 1 - ((true - first.stack(x)) ** 2).sum() / ((true - true.mean(0)) ** 2).sum()
    assert table.r2.iloc[0] == pytest.approx(explained.item())


def zeroed(layer):
    layer = copy.deepcopy(layer)
    torch.nn.init.zeros_(layer.left.weight)
    return layer


def test_parts_end_where_asked(observations):
    agent = small()
    part = part_to(agent, "block1")
    assert str(part) == "pool1 to block1" and part.stack.degree == 2
    true = agent.activations(observations, ["block1"])["block1"]
    x = inputs_of(agent, part, observations)
    torch.testing.assert_close(part.stack(x), true.double(), atol=1e-4, rtol=1e-4)
    wrong = r"pool1 is not a step .* block1, block2, block3, dense, act"
    with pytest.raises(ValueError, match=wrong):
        part_to(agent, "pool1")


def test_networks_without_bilinear_layers_and_unknown_heads_are_refused():
    with pytest.raises(ValueError, match="this impala-compact has no bilinear layer"):
        polynomial_parts(Agent.new("impala-compact"))
    with pytest.raises(ValueError, match="choose from action_net, value_net"):
        polynomial_parts(small(), head="dense")


def test_observations_are_the_source_of_a_part_without_a_pool_before():
    agent = small()
    agent = agent.with_layer("pool1", nn.AvgPool2d(2))
    first, _ = polynomial_parts(agent)
    assert first.source == "observations" and first.layers[:2] == ("stem", "pool1")
    zeros = np.zeros((2, 3, 64, 64), np.uint8)
    assert inputs_of(agent, first, zeros).shape == (2, 3, 64, 64)
