"""Identities, and how their errors are measured."""

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear import BilinearConv2d, BilinearLinear
from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.agents.network import HEADS
from rlbilinear.agents.polynomial_parts import OBSERVATIONS
from rlbilinear.convolution import geometry

Layer = BilinearLinear | BilinearConv2d
LayerError = Callable[[Layer, Tensor], float]
"""The error on a layer in float64 and inputs of it; what else it draws is from torch's generator,
which is seeded for each layer."""
AgentError = Callable[[Agent, Observations], float]


class Identity(NamedTuple):
    """Two ways to compute one thing."""

    name: str
    of: Literal["dense", "convolution", "agent"]
    """the layers it is checked on, random ones and an agent's; or a whole agent"""
    error: LayerError | AgentError


def worst(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a share of the largest expected entry.

    Raises:
        ValueError: the shapes differ, or there is nothing to compare.
    """
    if found.shape != expected.shape or not expected.numel():
        raise ValueError(f"cannot compare {tuple(found.shape)} with {tuple(expected.shape)}")
    difference = (found.detach().double() - expected.detach().double()).abs().amax()
    scale = expected.detach().double().abs().amax()
    return (difference / scale.clamp(min=torch.finfo(torch.float64).tiny)).item()


def patches_of(layer: Layer, x: Tensor) -> Tensor:
    """Return the inputs of a layer's forms: of a convolution, the patch at every position."""
    if not isinstance(layer, BilinearConv2d):
        return x
    stride, padding, dilation = geometry(layer)
    kernel = layer.left.weight.shape[2:]
    return F.unfold(x, (kernel[0], kernel[1]), dilation, padding, stride).mT


def exact_outputs(agent: Agent, observations: Observations | Tensor) -> dict[str, Tensor]:
    """Run an agent in float64, step by step; images may also be given as floats in [0, 1]."""
    x = torch.as_tensor(observations)
    x = x if x.is_floating_point() else x.double() / 255
    body = agent.policy.features_extractor.layers
    assert isinstance(body, nn.Sequential)
    found = {OBSERVATIONS: x}
    with torch.no_grad():
        for name, step in copy.deepcopy(body).double().named_children():
            found[name] = x = step(x)
        for name in HEADS:
            found[name] = copy.deepcopy(agent.layer(name)).double()(x)
    return found
