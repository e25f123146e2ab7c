"""A strong edit drives a bilinear agent beyond what floats hold: no move, no score, but a count."""

import numpy as np
import pytest
import torch

from rlbilinear.agents import load
from rlbilinear.agents.edits.directions import steer
from rlbilinear.envs import Maze, observe
from rlbilinear.probes.behaviour import compare_fields, field, follow
from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.dataset import label
from rlbilinear.probes.finite import finite_by_layer
from rlbilinear.probes.interventions import Add, Intervention, logits_under
from rlbilinear.probes.moves import move_distribution
from rlbilinear.probes.patches import played_frames
from rlbilinear.probes.retargeting import retarget
from rlbilinear.probes.videos import side_by_side

MAZES = [Maze.from_seed(level) for level in range(3)]
LAYERS = ["dense", "action_net", "value_net"]


@pytest.fixture(scope="module")
def agent():
    return load("maze-bimpala-compact", "cpu")


@pytest.fixture(scope="module")
def direction(agent):
    channels = agent.activations(observe(MAZES), ["block2"])["block2"].shape[1]
    drawn = torch.randn(channels, generator=torch.Generator().manual_seed(0))
    return drawn / drawn.norm()


@pytest.fixture(scope="module")
def broken(agent, direction):
    return steer(agent, "block2", 10 * direction[:, None, None].expand(-1, 16, 16))


def test_states_beyond_the_finite_range_are_counted_by_layer(agent, direction):
    change = Intervention("block2", Add(10 * direction))
    table = finite_by_layer(agent, observe(MAZES), [change]).set_index("layer")["finite"]
    assert table[table < 1].index.tolist() == LAYERS and not table[LAYERS].any()
    assert (finite_by_layer(agent, observe(MAZES))["finite"] == 1).all()


def test_they_have_no_policy(agent, direction):
    change = Intervention("block2", Add(10 * direction))
    assert np.isnan(move_distribution(logits_under(agent, observe(MAZES), [change]))).all()
    whole, edited = (field(agent, MAZES[0], changes) for changes in ((), [change]))
    table = compare_fields(whole, edited)
    assert table["kl"].isna().all() and not table["finite"].any()
    way = follow(edited, MAZES[0].mouse, MAZES[0].cheese[0])
    assert np.isnan([way.reach, way.sent]).all()
    assert compare_fields(whole, whole)["finite"].all()


def test_a_bias_that_breaks_the_agent_sends_it_nowhere_and_is_counted(agent, direction):
    bias = 10 * direction[:, None, None].expand(-1, 16, 16)
    table = retarget(agent, "block2", MAZES[:1], lambda maze, cell: bias)
    assert table[["reach", "sent"]].isna().all(axis=None) and not table["finite"].any()


def test_a_broken_agent_does_not_play(broken):
    with pytest.raises(FloatingPointError, match=r"not finite for 1 of 1 .* dense is the first"):
        list(played_frames(broken, [0], steps=1))
    with pytest.raises(FloatingPointError, match=r"not finite .* dense is the first"):
        side_by_side(MAZES[0], {"broken": broken}, steps=1)
    with pytest.raises(FloatingPointError, match=r"not finite for 3 of 3 .* dense is the first"):
        label(broken, MAZES, np.arange(3), ["block2", "dense"], [cheese_presence])
    label(broken, MAZES, np.arange(3), ["block2"], [cheese_presence])  # finite as far as there
