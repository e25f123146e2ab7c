import numpy as np
import pytest
import torch
from torch import nn

from rlbilinear import BilinearConv2d, BilinearLinear
from rlbilinear.agents import Agent, load
from rlbilinear.agents.surrogate import body, images, polynomial_surrogate, regrouped, units
from rlbilinear.envs import Maze, observe

SMALL = {"channels": (6,), "blocks": (2,), "stem_kernel": 5, "stem_stride": 4, "features": 12}


@pytest.fixture(scope="module")
def observations():
    return observe([Maze.from_seed(seed) for seed in range(12)])


@pytest.fixture(scope="module")
def agent():
    """With weights large enough that the policy is not uniform."""
    agent = Agent.new("impala", **SMALL)
    with torch.no_grad():
        agent.layer("action_net").weight.mul_(100)
    return agent


@pytest.fixture(scope="module")
def surrogate(agent, observations):
    return polynomial_surrogate(agent, observations)


def test_regrouped_agents_compute_the_same_and_are_stored(agent, observations, tmp_path):
    grouped = regrouped(agent)
    assert units(grouped) == [
        *("block1.relu", "block1.branch", "block2.relu", "block2.branch", "relu1", "dense"),
    ]
    assert torch.equal(grouped.logits(observations), agent.logits(observations))
    grouped.save(tmp_path / "grouped")
    assert torch.equal(
        load(tmp_path / "grouped", "cpu").logits(observations), agent.logits(observations)
    )
    assert units(regrouped(grouped)) == units(grouped)


@pytest.mark.parametrize("architecture", ["impala", "impala-compact"])
def test_every_relu_is_in_a_unit(architecture):
    grouped = regrouped(Agent.new(architecture))
    found = [name for name, m in body(grouped).named_modules() if isinstance(m, nn.ReLU)]
    assert found and all(name.startswith(tuple(units(grouped))) for name in found)


def test_a_surrogate_is_made_of_bilinear_layers_and_is_stored(surrogate, observations, tmp_path):
    assert not any(isinstance(m, nn.ReLU) for m in body(surrogate.agent).modules())
    assert isinstance(surrogate.agent.layer("block1.relu"), BilinearConv2d)
    assert isinstance(surrogate.agent.layer("block1.branch")[0], BilinearConv2d)
    assert isinstance(surrogate.agent.layer("dense"), BilinearLinear)
    surrogate.agent.save(tmp_path / "surrogate")
    again = load(tmp_path / "surrogate", "cpu")
    assert torch.equal(again.logits(observations), surrogate.agent.logits(observations))
    assert "block1.branch: polynomial of degree 2" in again.config.edits[-1]


def test_a_linear_surrogate_is_stored(agent, observations, tmp_path):
    surrogate = polynomial_surrogate(agent, observations, degree=1, fit="inputs").agent
    assert [type(m) for m in surrogate.layer("block1.branch")] == [nn.Conv2d, nn.Conv2d]
    surrogate.save(tmp_path / "surrogate")
    assert torch.equal(
        load(tmp_path / "surrogate", "cpu").logits(observations), surrogate.logits(observations)
    )


def test_a_unit_is_the_polynomial_of_its_own_inputs(agent, observations):
    found = polynomial_surrogate(agent, observations, ["block2.branch"])
    grouped = regrouped(agent)
    inputs = grouped.activations(observations, ["block2.relu"])["block2.relu"]
    own = grouped.activations(observations, ["block2.branch"])["block2.branch"]
    theirs = found.agent.activations(observations, ["block2.branch"])["block2.branch"]
    polynomial = found.replacement.polynomials["block2.branch"]
    torch.testing.assert_close(theirs, polynomial(inputs), rtol=1e-4, atol=1e-5)
    residual = ((own - theirs) ** 2).sum((0, 2, 3))
    scatter = ((own - own.mean((0, 2, 3), keepdim=True)) ** 2).sum((0, 2, 3))
    measured = found.replacement.r2["block2.branch"].measured[2]
    torch.testing.assert_close(1 - residual / scatter, measured.float(), rtol=1e-3, atol=1e-4)


def test_eigenfilters_of_a_direction_add_up_to_what_the_surrogate_writes(surrogate, observations):
    direction = torch.linspace(-1, 1, 6, dtype=torch.float64)
    found = surrogate.replacement.polynomials["block1.branch"].eigenfilters(direction)
    assert found.filters.shape[1:] == (6, 5, 5)
    inputs = surrogate.agent.activations(observations, ["block1.relu"])["block1.relu"].double()
    written = surrogate.agent.activations(observations, ["block1.branch"])["block1.branch"].double()
    total = torch.einsum("c,nchw->nhw", direction, written)
    inside = (..., slice(1, -1), slice(1, -1))  # the second convolution pads the border
    torch.testing.assert_close(found.total(inputs)[inside], total[inside], rtol=1e-4, atol=1e-5)


def test_a_good_fit_keeps_the_policy(agent, surrogate, observations):
    """Degree by degree the policy comes nearer, and degree 0 of the dense layer forgets all."""
    policy = agent.logits(observations).softmax(1)

    def distance(other):
        log_ratio = policy.log() - other.logits(observations).log_softmax(1)
        return float((policy * log_ratio).sum(1).mean())

    flat = polynomial_surrogate(agent, observations, ["dense"], 0).agent
    assert np.ptp(flat.logits(observations).numpy(), axis=0).max() < 1e-5
    linear = polynomial_surrogate(agent, observations, degree=1).agent
    assert distance(flat) > 3 * distance(linear) > 3 * distance(surrogate.agent) > 0


def test_bilinear_agents_are_their_own_surrogates_of_degree_two(observations):
    bilinear = Agent.new("bimpala", channels=4, blocks=(1,), stem_stride=4, features=8)
    assert regrouped(bilinear) is bilinear and units(bilinear) == ["block1.bilinear", "dense"]
    surrogate = polynomial_surrogate(bilinear, observations)
    torch.testing.assert_close(
        surrogate.agent.logits(observations), bilinear.logits(observations), rtol=1e-4, atol=1e-5
    )


def test_bad_arguments_are_named(agent, observations):
    with pytest.raises(ValueError, match=r"unknown layer 'block9'; choose from .*block1\.branch"):
        polynomial_surrogate(agent, observations, ["block9"])
    with pytest.raises(TypeError, match="layers: stem is a Conv2d"):
        polynomial_surrogate(agent, observations, ["stem"])
    with pytest.raises(ValueError, match=r"expected uint8 \(batch, 3, 64, 64\), got torch.float32"):
        images(agent, observations.astype(np.float32))
