"""Agents, layers and concepts, given by name or as the object itself."""

from collections.abc import Iterable

from torch import nn

from rlbilinear.agents import Agent
from rlbilinear.agents.named import AgentLike, as_agent

__all__ = ["AgentLike", "LayerLike", "as_agent", "as_layer", "as_layers"]

LayerLike = str | nn.Module
"""A layer's name, or the layer itself."""


def as_layer(agent: Agent, layer: LayerLike) -> str:
    """Return the name of one of an agent's layers.

    Raises:
        ValueError: a module that is not among the agent's. Names are not checked here.
        TypeError: neither a name nor a module.
    """
    if isinstance(layer, str):
        return layer
    choices = ", ".join(agent.layer_names)
    if not isinstance(layer, nn.Module):
        raise TypeError(f"expected a layer, or one of {choices}; got {type(layer).__name__}")
    for name in agent.layer_names:
        if agent.layer(name) is layer:
            return name
    raise ValueError(f"this {type(layer).__name__} is none of the agent's layers: {choices}")


def as_layers(agent: Agent, layers: LayerLike | Iterable[LayerLike]) -> list[str]:
    """Return the names of some of an agent's layers; a single one is a list of one.

    Raises:
        ValueError: a module that is not among the agent's. Names are not checked here.
        TypeError: neither names nor modules.
    """
    if isinstance(layers, str | nn.Module) or not isinstance(layers, Iterable):
        return [as_layer(agent, layers)]
    return [as_layer(agent, each) for each in layers]
