"""Edits of weights against hooks on activations, in float64 and float32."""

import numpy as np
import pytest
import torch

from rlbilinear import agents, eigenfilters
from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import (
    only_direction,
    project_reader,
    remove_direction,
    scale_about_mean,
    scale_writer,
    steer,
)
from rlbilinear.edits.functional import span
from rlbilinear.probes.interventions import Add, Intervention, Replace, Scale, activations

CHANNELS = 6
HEADS = ["action_net", "value_net"]


def make(dtype):
    """A small agent whose branches and logits all matter."""
    small = Agent.new("bimpala-compact", seed=1, channels=CHANNELS, blocks=(2, 1), features=12)
    torch.manual_seed(0)
    small = small.with_layer("action_net", torch.nn.Linear(12, 15))
    with torch.no_grad():
        for block in ("block1", "block2", "block3"):
            small.layer(f"{block}.bilinear").left.weight.mul_(5)
    return small.double() if dtype == torch.float64 else small


@pytest.fixture(scope="module", params=[(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
def case(request):
    dtype, tolerance = request.param
    return make(dtype), tolerance


@pytest.fixture(scope="module")
def observations():
    return np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def direction():
    return torch.tensor([1.0, -2, 0.5, 0, 3, 1])


def same(edited, agent, observations, interventions, tolerance):
    """Whether logits and values are those under the interventions, and not those without."""
    expected = activations(agent, observations, HEADS, interventions)
    found = edited.activations(observations, HEADS)
    unedited = agent.activations(observations, HEADS)
    for head in HEADS:
        assert torch.allclose(found[head], expected[head], atol=tolerance, rtol=tolerance)
        change = (expected[head] - unedited[head]).abs().max()
        assert change > 1e3 * tolerance  # so that the comparison means something
    return True


@pytest.mark.parametrize("factor", [0.0, -1.0, 2.0])
@pytest.mark.parametrize(
    ("layer", "where"),
    [
        ("stem", "writer"),
        ("pool1", "reader"),
        ("block1", "writer"),
        ("block1", "reader"),
        ("pool2", "reader"),
        ("block3", "writer"),
        ("block3", "reader"),
    ],
)
def test_removing_a_direction_equals_scaling_it_by_a_hook(
    case, observations, direction, layer, where, factor
):
    agent, tolerance = case
    edited = remove_direction(agent, layer, direction, factor, where=where)
    hook = Intervention(layer, Scale(factor), span(direction))
    assert same(edited, agent, observations, [hook], tolerance)


def test_several_directions_and_the_dense_layer(case, observations):
    agent, tolerance = case
    directions = torch.randn(3, CHANNELS, generator=torch.Generator().manual_seed(0))
    edited = remove_direction(agent, "block2", directions)
    hook = Intervention("block2", Scale(0.0), span(directions))
    assert same(edited, agent, observations, [hook], tolerance)
    features = torch.randn(12, generator=torch.Generator().manual_seed(0))
    edited = remove_direction(agent, "dense", features)
    hook = Intervention("dense", Scale(0.0), span(features))
    assert same(edited, agent, observations, [hook], tolerance)


def test_edits_compose_over_skips_and_bias_maps(case, observations, direction):
    agent, tolerance = case
    bias = torch.randn(CHANNELS, 16, 16, generator=torch.Generator().manual_seed(0))
    other = direction.flip(0)
    edited = remove_direction(agent, "block1", direction, 0.5)
    edited = steer(edited, "block1", bias)
    edited = remove_direction(edited, "block1", other, where="writer")
    edited = remove_direction(edited, "block1", direction, -1.0, where="reader")
    hooks = [
        Intervention("block1", Scale(0.5), span(direction)),
        Intervention("block1", Add(bias)),
        Intervention("block1", Scale(0.0), span(other)),
        Intervention("block1", Scale(-1.0), span(direction)),
    ]
    assert same(edited, agent, observations, hooks, tolerance)
    assert len(edited.config.edits) == len(agent.config.edits) + 4


@pytest.mark.parametrize("layer", ["stem", "pool1", "block2"])
def test_only_a_direction_is_kept_and_the_rest_is_its_mean(case, observations, direction, layer):
    agent, tolerance = case
    mean = agent.activations(observations[::-1].copy(), [layer])[layer].mean(0) + 0.3
    edited = only_direction(agent, layer, direction, mean)
    u = span(direction).to(mean)
    rest = torch.linalg.svd(u).Vh[1:]
    assert same(edited, agent, observations, [Intervention(layer, Replace(mean), rest)], tolerance)


@pytest.mark.parametrize("factor", [0.0, -1.0, 2.5])
@pytest.mark.parametrize("layer", ["stem", "pool1", "block2", "pool2"])
def test_a_departure_from_the_mean_is_scaled(case, observations, direction, layer, factor):
    agent, tolerance = case
    mean = agent.activations(observations[::-1].copy(), [layer])[layer].double().mean(0) + 0.3
    y = agent.activations(observations, [layer])[layer].double()
    u = direction.double() / direction.double().norm()
    departure = torch.einsum("c,nchw->nhw", u, y - mean)
    expected = y + (factor - 1) * torch.einsum("c,nhw->nchw", u, departure)
    edited = scale_about_mean(agent, layer, direction, factor, mean)
    found = edited.activations(observations, [layer])[layer].double()
    assert torch.allclose(found, expected, atol=tolerance, rtol=tolerance)
    assert same(edited, agent, observations, [Intervention(layer, Replace(expected))], tolerance)


@pytest.mark.parametrize("layer", ["stem", "pool1", "block2"])
def test_a_departure_scaled_by_one_stays(case, observations, direction, layer):
    agent, tolerance = case
    mean = agent.activations(observations, [layer])[layer].mean(0)
    kept = scale_about_mean(agent, layer, direction, 1.0, mean)
    assert torch.allclose(kept.logits(observations), agent.logits(observations), atol=tolerance)
    assert kept.config.edits[-1] == f"{layer}: a direction scaled by 1 about its mean"


def test_scaled_twice_about_the_same_mean_the_factors_multiply(case, observations, direction):
    agent, tolerance = case
    for layer in ("pool1", "block2"):
        mean = agent.activations(observations, [layer])[layer].mean(0)
        once = scale_about_mean(agent, layer, direction, -1.5, mean)
        twice = scale_about_mean(
            scale_about_mean(agent, layer, direction, 3.0, mean), layer, direction, -0.5, mean
        )
        assert torch.allclose(twice.logits(observations), once.logits(observations), atol=tolerance)


def test_a_scaled_writer_changes_only_its_own_branch(case, observations, direction):
    agent, tolerance = case
    conv = agent.layer("block2.bilinear")
    found = eigenfilters(conv, direction)
    x = agent.activations(observations, ["block1"])["block1"]
    lost = found.maps(x)[:, [0, 3]].sum(1)
    bias = -torch.einsum("nhw,c->nchw", lost, direction.to(x) / direction.square().sum())
    edited = scale_writer(agent, "block2", direction, {0: 0.0, 3: 0.0})
    assert same(edited, agent, observations, [Intervention("block2", Add(bias))], tolerance)
    steered = scale_writer(steer(agent, "block2", 0 * x[0]), "block2", direction, {0: 0.0, 3: 0.0})
    assert same(steered, agent, observations, [Intervention("block2", Add(bias))], tolerance)


def test_a_blinded_reader_still_passes_the_direction_on(case, observations, direction):
    agent, tolerance = case
    x = agent.activations(observations, ["block1"])["block1"]
    u = span(direction).to(x)
    blind = x - torch.einsum("kc,kd,ndhw->nchw", u, u, x)
    with torch.no_grad():
        bias = agent.layer("block2.bilinear")(blind) - agent.layer("block2.bilinear")(x)
    edited = project_reader(agent, "block2", direction)
    assert same(edited, agent, observations, [Intervention("block2", Add(bias))], tolerance)


def test_the_dense_layer_is_blinded_to_a_channel_at_every_position(case, observations, direction):
    agent, tolerance = case
    edited = project_reader(agent, "dense", direction)
    hook = Intervention("block3", Scale(0.0), span(direction))
    assert same(edited, agent, observations, [hook], tolerance)


def test_a_relu_agent_is_edited_where_it_is_linear(observations, tmp_path):
    agent = Agent.new("impala-compact", seed=1, channels=(4, 4), blocks=(1, 1), features=12)
    agent = agent.with_layer("action_net", torch.nn.Linear(12, 15))
    u = torch.tensor([1.0, 2, 0, -1])
    for layer in ("stem", "block1"):  # block1 is read by conv2
        edited = remove_direction(agent, layer, u)
        hook = Intervention(layer, Scale(0.0), span(u))
        assert same(edited, agent, observations, [hook], 1e-5)
    mean = agent.activations(observations, ["block1"])["block1"].mean(0)
    scaled = scale_about_mean(agent, "block1", u, -3.0, mean)
    kept = Replace(4 * mean - 3 * agent.activations(observations, ["block1"])["block1"])
    assert same(scaled, agent, observations, [Intervention("block1", kept, span(u))], 1e-5)
    scaled.save(tmp_path / "scaled")
    loaded = agents.load(tmp_path / "scaled", device="cpu")
    assert torch.allclose(loaded.logits(observations), scaled.logits(observations), atol=1e-6)
    with pytest.raises(ValueError, match=r"next layer is a ReluBlock.*choose another layer"):
        remove_direction(agent, "pool1", u)
    with pytest.raises(ValueError, match=r"block1 is a ReluBlock, not bilinear.*no bilinear layer"):
        project_reader(agent, "block1", u)


def test_edited_agents_are_saved_and_the_original_stays(observations, direction, tmp_path):
    agent = make(torch.float32)
    before = agent.logits(observations)
    mean = agent.activations(observations, ["pool1"])["pool1"].mean(0)
    edits = {
        "removed": remove_direction(agent, "block1", direction),
        "read": remove_direction(agent, "pool1", direction),
        "only": only_direction(agent, "pool1", direction, mean),
        "scaled": scale_writer(agent, "block1", direction, {0: -1.0}),
        "about the mean": scale_about_mean(agent, "pool1", direction, 0.0, mean),
        "twice": scale_about_mean(
            scale_about_mean(agent, "pool1", direction, 0.5, mean), "pool1", direction, 3.0, mean
        ),
        "steered": steer(agent, "pool1", torch.ones(CHANNELS, 16, 16)),
    }
    assert torch.equal(agent.logits(observations), before)
    for name, edited in edits.items():
        edited.save(tmp_path / name)
        loaded = agents.load(tmp_path / name, device="cpu")
        assert loaded.config.edits == edited.config.edits != ()
        assert torch.allclose(loaded.logits(observations), edited.logits(observations), atol=1e-6)
        assert not torch.allclose(edited.logits(observations), before, atol=1e-3)


def test_bad_input_is_refused(direction):
    agent = make(torch.float32)
    with pytest.raises(ValueError, match=r"unknown place 'both'; choose from auto, writer, reader"):
        remove_direction(agent, "block1", direction, where="both")
    with pytest.raises(ValueError, match="MaxPool2d does not write through weights"):
        remove_direction(agent, "pool1", direction, where="writer")
    with pytest.raises(ValueError, match="next layer is a MaxPool2d"):
        remove_direction(agent, "stem", direction, where="reader")
    with pytest.raises(ValueError, match="choose from stem, pool1"):
        remove_direction(agent, "dense", torch.ones(12), where="reader")
    with pytest.raises(ValueError, match=r"shape \(6,\).*got shape \(5,\)"):
        remove_direction(agent, "block1", direction[:5])
    with pytest.raises(ValueError, match=r"not bilinear; choose from block1, block1\.bilinear"):
        scale_writer(agent, "pool1", direction, {0: 0.0})
    with pytest.raises(ValueError, match="rank is"):
        scale_writer(agent, "block1", direction, {500: 0.0})
    with pytest.raises(ValueError, match="expected a finite mean"):
        only_direction(agent, "pool1", direction, torch.zeros(5, 16, 16))
    with pytest.raises(ValueError, match=r"expected a finite mean.* 6 channels, got shape \(6,\)"):
        scale_about_mean(agent, "pool1", direction, 0.0, torch.zeros(6))
    with pytest.raises(ValueError, match="unknown layer 'pool7'; choose from stem"):
        scale_about_mean(agent, "pool7", direction, 0.0, torch.zeros(6, 16, 16))
    with pytest.raises(ValueError, match="expected a finite mean"):
        only_direction(agent, "pool1", direction, torch.full((6, 16, 16), torch.nan))
    with pytest.raises(ValueError, match="does not fit pool1"):
        steer(agent, "pool1", torch.zeros(CHANNELS, 4, 4))
    for ask in (remove_direction, project_reader):
        for wrong in (None, "x", {}, object(), 3, torch.zeros(1, 1, 6)):
            with pytest.raises(ValueError, match="expected"):
                ask(agent, "block1", wrong)
        for factor in (None, "x", torch.nan, [0.0, 1.0]):
            with pytest.raises(ValueError, match="factor must be a finite number"):
                ask(agent, "block1", direction, factor)
    for bias in (None, "x", torch.full((CHANNELS, 16, 16), torch.inf)):
        with pytest.raises(ValueError, match=r"expected numbers for a bias|finite numbers"):
            steer(agent, "pool1", bias)
    for factors in (None, {0: None}, {"a": 0.0}):
        with pytest.raises(ValueError, match=r"expected|finite number"):
            scale_writer(agent, "block1", direction, factors)
