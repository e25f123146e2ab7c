import pytest
import torch

from agents import ARCHITECTURES, Agent


@pytest.mark.parametrize(
    ("architecture", "arguments", "parameters"),
    [
        ("impala", {}, 626_256),
        ("bimpala", {"kernel_size": 3}, 1_164_176),
        ("bimpala", {"kernel_size": 5}, 1_362_320),
        ("bimpala", {"kernel_size": 7}, 1_659_536),
    ],
)
def test_parameter_counts_are_the_published_ones(architecture, arguments, parameters):
    agent = Agent.new(architecture, **arguments)
    assert sum(weight.numel() for weight in agent.policy.parameters()) == parameters


@pytest.mark.parametrize(
    ("architecture", "parameters"), [("impala-compact", 669_808), ("bimpala-compact", 1_184_144)]
)
def test_compact_parameter_counts(architecture, parameters):
    agent = Agent.new(architecture)
    assert sum(weight.numel() for weight in agent.policy.parameters()) == parameters


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_initial_policy_is_near_uniform_and_stays_finite(architecture):
    agent = Agent.new(architecture)
    observations = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    logits = agent.logits(observations)
    assert logits.shape == (4, 15)
    assert (logits.softmax(1) - 1 / 15).abs().max() < 0.03


def test_unknown_architecture_lists_the_choices():
    with pytest.raises(ValueError, match=r"bimpala2.*impala-compact"):
        Agent.new("bimpala2")
