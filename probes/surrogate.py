"""Quadratic surrogate of a ReLU agent, used to read it or validated in its place."""

import numpy as np
from jaxtyping import UInt8
from torch import nn

from rlbilinear.agents import Agent
from rlbilinear.agents.architectures import ReluBlock
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.agents.residual import Residual
from rlbilinear.agents.surrogate import hidden_layers, polynomial_surrogate, regrouped
from rlbilinear.envs import FITTING
from rlbilinear.probes.dataset import collect

FITTED_LEVELS = 48
"""Fitting levels whose states a surrogate is fitted on."""

SURROGATE, BY_SURROGATE = "'s quadratic surrogate", " (by its quadratic surrogate)"
"""End names in reports: of what `surrogate_of` makes of an agent, and of an agent read by it."""


def quadratic_surrogate(agent: AgentLike, observations: UInt8[np.ndarray, "n 3 64 64"]) -> Agent:
    """Replace an agent's hidden layers by quadratics, fitted on what goes into them.

    The ReLUs between residual blocks stay: with these replaced as well, the polynomials' degrees
    multiply, and no surrogate follows the agent. An agent without ReLU blocks is returned as it is.
    """
    agent = as_agent(agent)
    if not has_relu_blocks(agent):
        return agent
    layers = hidden_layers(regrouped(agent))
    return polynomial_surrogate(agent, observations, layers, fit="inputs").agent


def has_relu_blocks(agent: Agent) -> bool:
    """Whether there are residual blocks that a quadratic can stand in for."""
    found = [agent.layer(name) for name in agent.layer_names]
    branches = [each[-1] for each in found if isinstance(each, Residual) and len(each)]
    inside = [part for branch in branches for part in branch.modules()]
    return any(isinstance(each, ReluBlock) for each in found) or any(
        isinstance(part, nn.ReLU) for part in inside
    )


def surrogate_of(agent: Agent, *, levels: int = FITTED_LEVELS, seed: int = 0) -> Agent:
    """Make the quadratic surrogate of a ReLU agent, from states of the first fitting levels.

    Raises:
        ValueError: the agent has no ReLU blocks, so that it has no surrogate but itself.
    """
    if not has_relu_blocks(agent):
        raise ValueError(f"surrogate: the agent has no ReLU blocks to approximate: {agent}")
    fitted = collect(agent, FITTING.first(levels), [], [], states_per_level=2, seed=seed)
    return quadratic_surrogate(agent, fitted.observations)
