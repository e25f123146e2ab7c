"""Edits of agents: mirrored networks are exact; placed edits and transplants save and load."""

from itertools import product

import pytest
import torch
from torch import nn

from rlbilinear.agents import ARCHITECTURES, Agent, load
from rlbilinear.agents.edits.whole import SWAPPED_ACTIONS, Mirror, transplant
from rlbilinear.edits import Compress, RotateOutput, ScaleEigenfilters, ScaleOutput
from rlbilinear.edits.functional import add_bias_map, mirror_layer
from rlbilinear.envs import ACTIONS_OF_MOVE, Maze, Move, observe

OBSERVATIONS = observe([Maze.from_seed(seed) for seed in range(4)])
SIDE = {"horizontal": -1, "vertical": -2}
SHAPES = {
    "bimpala with kernels of 5": (
        "bimpala",
        {"kernel_size": 5, "channels": 4, "blocks": (1, 1, 1)},
    ),
    "bimpala with a stem of stride 3": ("bimpala", {"stem_stride": 3, "channels": 4}),
    **{name: (name, {}) for name in ARCHITECTURES},
}


def outputs(agent, images):
    """Logits and values of float64 images in [0, 1], the whole network in float64."""
    policy = agent.policy
    with torch.no_grad():
        features = policy.features_extractor(images)
        return policy.action_net(features), policy.value_net(features)


@pytest.mark.parametrize("axis", SIDE)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mirrored_agent_does_the_mirror_image(shape, axis):
    name, arguments = SHAPES[shape]
    agent = Agent.new(name, **arguments)
    for parameter in agent.policy.parameters():
        nn.init.normal_(parameter, std=0.05)
    mirror = Mirror(axis)
    mirrored = mirror(agent)
    back = mirror.inverse()(mirrored)
    for each in (agent, mirrored, back):  # the weights are the same numbers in other places
        each.policy.double()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    logits, values = outputs(agent, x)
    flipped_logits, flipped_values = outputs(mirrored, x.flip(SIDE[axis]))
    size = float(logits.abs().max())
    swapped = logits[:, list(SWAPPED_ACTIONS[axis])]
    torch.testing.assert_close(flipped_logits, swapped, atol=1e-10 * size, rtol=0)
    torch.testing.assert_close(flipped_values, values, atol=1e-10, rtol=1e-10)
    assert not torch.allclose(outputs(agent, x.flip(SIDE[axis]))[0], swapped)
    twice, _ = outputs(back, x)
    torch.testing.assert_close(twice, logits, atol=1e-10 * size, rtol=0)


def test_actions_are_swapped_as_their_moves():
    swapped = SWAPPED_ACTIONS["horizontal"]
    assert {swapped[action] for action in ACTIONS_OF_MOVE[Move.LEFT]} == {
        *ACTIONS_OF_MOVE[Move.RIGHT]
    }
    for move in (Move.UP, Move.DOWN, Move.STAY):
        assert {swapped[action] for action in ACTIONS_OF_MOVE[move]} == {*ACTIONS_OF_MOVE[move]}
    assert SWAPPED_ACTIONS["vertical"][ACTIONS_OF_MOVE[Move.UP][0]] == ACTIONS_OF_MOVE[Move.DOWN][0]
    for swapped in SWAPPED_ACTIONS.values():
        assert [swapped[action] for action in swapped] == [*range(15)]


def test_a_mirrored_shipped_agent_is_saved_and_loaded(tmp_path):
    agent = load("maze-bimpala-compact", device="cpu")
    biased = agent.with_layer(
        "pool1", add_bias_map(agent.layer("pool1"), 0.01 * torch.randn(32, 16, 16))
    )
    mirrored = Mirror()(biased)
    expected = biased.logits(OBSERVATIONS)[:, list(SWAPPED_ACTIONS["horizontal"])]
    flipped = OBSERVATIONS[..., ::-1].copy()
    torch.testing.assert_close(mirrored.logits(flipped), expected, atol=1e-3, rtol=1e-3)
    mirrored.save(tmp_path / "mirrored")
    loaded = load(tmp_path / "mirrored", device="cpu")
    assert torch.equal(loaded.logits(OBSERVATIONS), mirrored.logits(OBSERVATIONS))
    assert loaded.config.edits[-1] == "mirrored: left and right swapped"


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_mirrored_pools_are_exact_or_refused(stride, ceil_mode):
    """Refused only where the mirrored windows would need a padding that pools do not take."""
    exact = set()
    for size, padding, axis in product(range(5, 12), range(3), SIDE):
        pool, side = nn.MaxPool2d((5, 4), stride, padding, ceil_mode=ceil_mode), SIDE[axis]
        x = torch.randn(2, 3, size, size)
        kernel, count = (5, 4)[side], pool(x).shape[side]
        needed = (count - 1) * stride + kernel - size - padding  # the padding on the far side
        if 0 <= needed <= kernel // 2:
            assert torch.equal(
                mirror_layer(pool, x.shape[1:], axis)(x.flip(side)), pool(x).flip(side)
            )
            exact.add((size, padding, axis))
        elif needed != padding:
            with pytest.raises(ValueError, match=f"would need a padding of {needed}"):
                mirror_layer(pool, x.shape[1:], axis)
    assert len(exact) > 20


def test_what_cannot_be_mirrored_is_refused():
    with pytest.raises(ValueError, match="leaves 1 out at one side only"):
        mirror_layer(nn.AvgPool2d(2), (3, 5, 5))
    with pytest.raises(TypeError, match="got Sigmoid"):
        mirror_layer(nn.Sigmoid(), (3, 5, 5))
    with pytest.raises(ValueError, match="choose from vertical, horizontal"):
        mirror_layer(nn.ReLU(), (3, 5, 5), "diagonal")
    with pytest.raises(ValueError, match="not flattened maps"):
        mirror_layer(nn.Linear(7, 2), (3, 5, 5))
    agent = Agent.new("bimpala-compact")
    with pytest.raises(ValueError, match="choose from horizontal, vertical"):
        Mirror("diagonal")(agent)


def test_edits_of_an_agent_compose_save_load_and_undo(tmp_path):
    agent = load("maze-bimpala-compact", device="cpu")
    other = Agent.new("bimpala-compact", seed=1)
    u, w = torch.randn(2, 32)
    scale = ScaleEigenfilters(u, {0: -1.0, 3: 0.5}).on(agent.layer("block2.bilinear"))
    undoable = (scale | RotateOutput(u, w)).at("block2.bilinear") | Mirror()
    edits = (
        undoable
        | transplant(other, "block4.bilinear", torch.stack([u, w]), name="a new agent")
        | Compress().at("block4.bilinear")
    )
    before = agent.logits(OBSERVATIONS)
    edited = edits(agent)
    assert torch.equal(agent.logits(OBSERVATIONS), before) and not agent.config.edits
    assert not torch.allclose(edited.logits(OBSERVATIONS), before)
    assert edited.config.edits == tuple(map(str, edits))
    assert "taken from a new agent's block4.bilinear" in edited.config.edits[2]
    edited.save(tmp_path / "edited")
    loaded = load(tmp_path / "edited", device="cpu")
    assert torch.equal(loaded.logits(OBSERVATIONS), edited.logits(OBSERVATIONS))
    back = undoable.inverse()(undoable(agent))
    torch.testing.assert_close(back.logits(OBSERVATIONS), before, atol=1e-3, rtol=1e-3)


def test_transplants_between_agents_are_exact():
    ours, theirs = (Agent.new("bimpala-compact", seed=seed) for seed in (0, 1))
    names = [name for name in ours.layer_names if "." not in name and name != "flatten"]
    whole = ours
    for name in names:
        if any(True for _ in ours.layer(name).parameters()) and not name.startswith("block"):
            whole = transplant(theirs, name)(whole)
        elif name.startswith("block"):
            whole = transplant(theirs, f"{name}.bilinear")(whole)
    assert torch.equal(whole.logits(OBSERVATIONS), theirs.logits(OBSERVATIONS))
    with pytest.raises(ValueError, match="unknown layer 'nowhere'"):
        transplant(theirs, "nowhere")
    with pytest.raises(ValueError, match="another shape"):
        transplant(Agent.new("bimpala"), "stem")(ours)
    with pytest.raises(TypeError, match=r"edit its \.bilinear"):
        ScaleOutput(torch.ones(32), 0.0).at("block1")(ours)


def test_layers_are_replaced_together():
    agent = Agent.new("bimpala-compact")
    dense, head, value = nn.Linear(2048, 7), nn.Linear(7, 15), nn.Linear(7, 1)
    parts = {"dense": dense, "action_net": head, "value_net": value}
    edited = agent.with_layers(parts)
    assert edited.layer("action_net").in_features == 7 and agent.layer("dense").out_features == 256
    assert "dense: BilinearLinear replaced by Linear" in edited.config.edits[0]
    with pytest.raises(ValueError, match=r"does not fit dense, .* does not fit action_net"):
        agent.with_layers({"dense": dense, "action_net": nn.Linear(8, 15)})
