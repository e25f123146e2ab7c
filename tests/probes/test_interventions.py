import numpy as np
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import steer
from rlbilinear.probes.interventions import (
    Add,
    Interchange,
    Intervention,
    Replace,
    Resample,
    Scale,
    activations,
    logits_after,
    logits_under,
)
from rlbilinear.probes.subspaces import component, random_subspace

CHANNELS = 6


@pytest.fixture(scope="module")
def agent():
    small = Agent.new("bimpala-compact", seed=1, channels=CHANNELS, blocks=(2, 1), features=12)
    torch.manual_seed(0)
    return small.with_layer("action_net", torch.nn.Linear(12, 15))


@pytest.fixture(scope="module")
def observations():
    return np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def others():
    return np.random.default_rng(1).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)


def output(agent, observations, layer, *interventions):
    return activations(agent, observations, [layer], interventions)[layer]


def test_without_interventions_nothing_changes(agent, observations):
    assert torch.equal(logits_under(agent, observations), agent.logits(observations))


@pytest.mark.parametrize("layer", ["pool1", "block1", "block1.bilinear", "flatten", "dense"])
def test_full_interchange_gives_the_others_logits(agent, observations, others, layer):
    change = Intervention(layer, Interchange(others))
    patched = logits_under(agent, observations, [change], batch=2)  # 2: the rows are kept apart
    if layer == "block1.bilinear":  # the skip still carries its own
        assert not torch.allclose(patched, agent.logits(others), atol=1e-4)
    else:
        assert torch.allclose(patched, agent.logits(others), atol=1e-5)


def test_each_how_in_a_subspace(agent, observations, others):
    basis = random_subspace(CHANNELS, 2, seed=0)
    mine, theirs = (output(agent, o, "pool1") for o in (observations, others))
    vector, each = torch.randn(CHANNELS), torch.randn_like(mine)
    single = theirs.mean(0)
    replacements = {
        Scale(0.0): 0 * mine,
        Scale(-1.0): -mine,
        Replace(single): single.expand_as(mine),
        Replace(vector): vector[:, None, None].expand_as(mine),
        Add(each): mine + each,
        Interchange(others): theirs,
    }
    for how, replacement in replacements.items():
        expected = mine + component(replacement - mine, basis)
        found = output(agent, observations, "pool1", Intervention("pool1", how, basis))
        assert torch.allclose(found, expected, atol=1e-5), how
        whole = output(agent, observations, "pool1", Intervention("pool1", how))
        assert torch.allclose(whole, replacement, atol=1e-5), how


def test_resampling_takes_whole_outputs_from_the_pool_by_seed(agent, observations, others):
    pool = output(agent, others, "pool1").flatten(1)

    def drawn(seed, batch=256):
        change = Intervention("pool1", Resample(others, seed))
        found = activations(agent, observations, ["pool1"], [change], batch=batch)["pool1"]
        return torch.cdist(found.flatten(1), pool).argmin(1).tolist()

    assert drawn(0) == drawn(0, batch=2) == np.random.default_rng(0).integers(5, size=5).tolist()
    assert drawn(0) != drawn(1)


def test_interventions_follow_each_other(agent, observations):
    changes = [Intervention("pool1", Scale(2.0)), Intervention("pool1", Add(torch.ones(CHANNELS)))]
    mine = output(agent, observations, "pool1")
    assert torch.allclose(output(agent, observations, "pool1", *changes), 2 * mine + 1)
    assert torch.allclose(output(agent, observations, "pool1", *changes[::-1]), 2 * mine + 2)


def test_steering_by_sample_equals_an_edited_agent_for_each(agent, observations):
    bias = torch.randn(5, CHANNELS, 16, 16)
    steered = logits_after(agent, "pool1", output(agent, observations, "pool1") + bias, batch=2)
    for index in range(5):
        edited = steer(agent, "pool1", bias[index]).logits(observations[index : index + 1])
        assert torch.allclose(steered[index], edited[0], atol=1e-5)
    assert not torch.allclose(steered, agent.logits(observations), atol=1e-2)


@pytest.mark.parametrize("layer", ["stem", "pool1", "block2", "flatten", "dense"])
def test_logits_after_a_layer_are_those_of_a_run_with_its_outputs_replaced(
    agent, observations, others, layer
):
    theirs = output(agent, others, layer)
    replaced = logits_under(agent, observations, [Intervention(layer, Replace(theirs))])
    assert torch.allclose(logits_after(agent, layer, theirs, batch=3), replaced, atol=1e-5)


def hooks(agent):
    return [module for module in agent.policy.modules() if module._forward_hooks]


def test_hooks_are_removed_also_after_an_error(agent, observations):
    logits_under(agent, observations, [Intervention("pool1", Scale(0.0))])
    assert not hooks(agent)
    with pytest.raises(ValueError, match="does not fit"):
        logits_under(agent, observations, [Intervention("pool1", Add(torch.zeros(7)))])
    assert not hooks(agent)


def test_bad_input_is_refused(agent, observations, others):
    with pytest.raises(ValueError, match="unknown layer 'pool9'; choose from stem"):
        logits_under(agent, observations, [Intervention("pool9", Scale(0.0))])
    with pytest.raises(ValueError, match="sources: 3 for 5"):
        logits_under(agent, observations, [Intervention("pool1", Interchange(others[:3]))])
    with pytest.raises(ValueError, match="values: 3 for 5"):
        logits_under(
            agent, observations, [Intervention("pool1", Add(torch.zeros(3, CHANNELS, 16, 16)))]
        )
    with pytest.raises(ValueError, match="no output of its own"):
        logits_under(agent, observations, [Intervention("block1.bilinear.left", Scale(0.0))])
    with pytest.raises(ValueError, match="not orthonormal"):
        Intervention("pool1", Scale(0.0), torch.ones(2, CHANNELS))
    with pytest.raises(ValueError, match="does not fit"):
        logits_under(
            agent, observations, [Intervention("pool1", Scale(0.0), torch.eye(CHANNELS + 1))]
        )
    wrong = r"'block1\.bilinear' is not a step.*choose from stem, pool1"
    with pytest.raises(ValueError, match=wrong):
        logits_after(agent, "block1.bilinear", torch.zeros(2, CHANNELS, 16, 16))
