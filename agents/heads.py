"""Logits and value as quadratic forms of the maps before the dense layer.

With ``h`` the flattened output of the trunk, each logit is ``action_net(dense(h))``: a form of
``h``, exactly, biases included.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear import BilinearLinear, QuadraticForm
from rlbilinear.agents.agent import Agent
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.agents.network import HEADS
from rlbilinear.composition import group_directions, head_forms
from rlbilinear.edits.functional import PositionBias
from rlbilinear.family import FormFamily


def policy_forms(
    agent: AgentLike, directions: Float[Tensor, "n actions"] | None = None
) -> FormFamily:
    """Return the forms of several directions over the logits, of every action when None.

    Raises:
        ValueError: the agent's last layer is not bilinear and dense, or directions of another
            shape.
    """
    agent = as_agent(agent)
    return _forms(agent, "action_net", directions)


def policy_form(
    agent: AgentLike,
    actions: int | Iterable[int],
    *,
    reduce: Literal["mean", "sum"] = "mean",
    against: Literal["others"] | None = None,
) -> QuadraticForm:
    """Return the form of an action's logit, or of a group of actions.

    Args:
        agent: an agent whose last layer is bilinear and dense.
        actions: one, or several that have the same effect: ``ACTIONS_OF_MOVE[Move.LEFT]``.
        reduce: the mean of the group's logits, or their sum.
        against: ``others`` subtracts from each of them the mean of all other actions' logits.

    Raises:
        ValueError: an action that does not exist, or an agent with another last layer.
    """
    agent = as_agent(agent)
    group = actions if isinstance(actions, Iterable) else [actions]
    directions = group_directions([group], agent.config.actions, reduce=reduce, against=against)
    return policy_forms(agent, directions)[0]


def value_form(agent: AgentLike) -> QuadraticForm:
    """Return the form of the value.

    Raises:
        ValueError: the agent's last layer is not bilinear and dense.
    """
    agent = as_agent(agent)
    return _forms(agent, "value_net")[0]


def trunk_shape(agent: AgentLike) -> tuple[int, int, int]:
    """Return the ``(channels, height, width)`` of the maps that the forms read, flattened.

    Raises:
        ValueError: the agent's last layer does not read flattened maps.
    """
    agent = as_agent(agent)
    *_, maps, flatten, _ = _steps(agent)
    if not isinstance(agent.layer(flatten), nn.Flatten):
        raise ValueError(f"expected maps flattened before the last layer, got {flatten}")
    blank = np.zeros((1, *agent.config.observation_shape), np.uint8)
    channels, height, width = agent.activations(blank, [maps])[maps].shape[1:]
    return channels, height, width


def _steps(agent: Agent) -> list[str]:
    return [name for name in agent.layer_names if "." not in name and name not in HEADS]


def _forms(
    agent: Agent, head: str, directions: Float[Tensor, "n logits"] | None = None
) -> FormFamily:
    name = _steps(agent)[-1]
    layer, linear = agent.layer(name), agent.layer(head)
    biases = []
    while isinstance(layer, PositionBias):
        biases.append(layer.bias)
        layer = layer.layer
    if not isinstance(layer, BilinearLinear) or not isinstance(linear, nn.Linear):
        raise ValueError(
            f"expected a bilinear dense layer before a linear head; {name} is a "
            f"{type(layer).__name__}, {head} a {type(linear).__name__}"
        )
    family = head_forms(layer, linear, directions)
    for bias in biases:
        read = linear.weight.detach().to(family.linears) @ bias.to(family.linears)
        added = read if directions is None else torch.as_tensor(directions).to(read) @ read
        family = replace(family, constants=family.constants + added)
    return family
