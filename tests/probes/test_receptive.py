"""Where maps lie in the picture, against what changes when a pixel does."""

import numpy as np
import pytest
import torch
from torch import nn

from rlbilinear import BilinearConv2d
from rlbilinear.agents import Agent
from rlbilinear.probes.receptive import Grid, grid_before
from rlbilinear.receptive import Window, window


@pytest.mark.parametrize("name", ["bimpala", "bimpala-compact", "bimpala-full", "impala"])
def test_windows_are_centred_where_gradients_are(name):
    """The pixels on which a position depends, blocks of stride 1 left out, are its box's centre."""
    agent = Agent.new(name)
    steps = [step for step in agent.layer_names if "." not in step]
    body = agent.policy.features_extractor.layers
    for layer in [step for step in steps if step.startswith("block")][:4]:
        x = torch.rand(1, 3, 64, 64, requires_grad=True)
        y = x
        for step in steps[: steps.index(layer)]:
            if not step.startswith("block"):
                module = agent.layer(step)
                if isinstance(module, torch.nn.MaxPool2d):  # an average depends on all its window
                    sizes = module.kernel_size, module.stride, module.padding
                    module = torch.nn.AvgPool2d(*sizes)
                y = module(y)
        position = (y.shape[2] // 2, y.shape[3] // 2 + 1)
        y[0, :, position[0], position[1]].sum().backward()
        rows, columns = (np.flatnonzero(x.grad.abs().sum((0, 1)).sum(axis)) for axis in (1, 0))
        top, left, bottom, right = grid_before(agent, layer).box(position)
        assert (top + bottom) / 2 == (rows[0] + rows[-1] + 1) / 2
        assert (left + right) / 2 == (columns[0] + columns[-1] + 1) / 2
        assert bottom - top == 64 / y.shape[2]
    assert len(body)


@pytest.mark.parametrize("layer", [nn.Conv2d, BilinearConv2d, nn.MaxPool2d])
def test_windows_with_gaps_are_centred_where_gradients_are(layer):
    sizes = () if layer is nn.MaxPool2d else (3, 32)
    module = layer(*sizes, kernel_size=(3, 2), stride=2, padding=1, dilation=(2, 4))
    agent = Agent.new("bimpala-compact")
    agent.policy.features_extractor.layers.stem = module  # it is never run
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    weights = window(module)
    average = nn.Conv2d(3, 1, weights.kernel, weights.stride, weights.padding, weights.dilation)
    average(x)[0, 0, 5, 7].backward()
    rows, columns = (np.flatnonzero(x.grad.abs().sum((0, 1)).sum(axis)) for axis in (1, 0))
    top, left, bottom, right = Grid().through(weights).box((5, 7))
    assert (top + bottom) / 2 == (rows[0] + rows[-1] + 1) / 2
    assert (left + right) / 2 == (columns[0] + columns[-1] + 1) / 2
    assert grid_before(agent, "pool1") == Grid().through(weights)


def test_windows_of_several_positions_and_bad_layers():
    grid = Grid().through(Window((3, 3), (2, 2), (1, 1), (1, 1)))
    assert grid == Grid((0.5, 0.5), (2.0, 2.0))
    assert grid.box((1, 2), (3, 1)) == (-0.5, 3.5, 5.5, 5.5)
    agent = Agent.new("bimpala-compact")
    with pytest.raises(ValueError, match="nowhere is not a step"):
        grid_before(agent, "nowhere")
    with pytest.raises(ValueError, match="a Flatten gives no maps"):
        grid_before(agent, "dense")
