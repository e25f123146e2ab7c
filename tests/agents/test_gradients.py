import math

import pytest
import torch
from torch import nn

from rlbilinear.agents import Agent
from rlbilinear.agents.gradients import GradientNorms, copies, layers_of, relative_changes


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))


def test_layers_hold_each_weight_once():
    policy = Agent.new("bimpala-small").policy
    layers = layers_of(policy)
    assert {"stem", "block1.bilinear.left", "dense.right", "action_net", "value_net"} <= {*layers}
    weights = [id(weight) for own in layers.values() for weight in own]
    assert sorted(weights) == sorted(map(id, policy.parameters()))


@pytest.mark.parametrize("parts", [1, 3])
def test_norms_are_those_before_clipping(parts):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    layers = layers_of(model)
    norms = GradientNorms(optimizer, layers)
    assert norms.take() is None
    whole, by_layer = [], []
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(parts):
            (100 * model(torch.randn(5, 3))).square().mean().backward()
        by_layer.append([math.hypot(*(w.grad.norm().item() for w in layers[n])) for n in layers])
        whole.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
        optimizer.step()
    assert min(whole) > 0.5
    mean, means = norms.take()
    assert mean == pytest.approx(sum(whole) / 2)
    expected = dict(
        zip(layers, (sum(pair) / 2 for pair in zip(*by_layer, strict=True)), strict=True)
    )
    assert means == pytest.approx(expected)
    assert norms.take() is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_stop_the_step(bad):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    GradientNorms(optimizer, layers_of(model))
    (model(torch.randn(5, 3)).sum() * bad).backward()
    before = [weight.clone() for weight in model.parameters()]
    with pytest.raises(FloatingPointError, match="not finite"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_layers_without_a_gradient_count_as_zero():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    norms = GradientNorms(optimizer, layers_of(model))
    model[1](torch.randn(5, 4)).sum().backward()
    optimizer.step()
    whole, means = norms.take()
    assert means["0"] == 0 and means["1"] == pytest.approx(whole) and whole > 0


def test_relative_changes_are_of_each_layers_weights():
    model = network()
    layers = layers_of(model)
    before = copies(layers)
    with torch.no_grad():
        for weight in layers["0"]:
            weight.mul_(1.25)
    assert relative_changes(before, layers) == pytest.approx({"0": 0.25, "1": 0.0})
