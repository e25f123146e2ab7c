"""The quadratic twin of a ReLU agent, through which a validation reads it or that it is of."""

import numpy as np
from jaxtyping import UInt8

from agents import Agent
from agents.polynomial_twin import hidden_layers, polynomial_twin, regrouped, units
from envs import FITTING
from probes.dataset import collect

FITTED_LEVELS = 48
"""Fitting levels whose states a twin is fitted on."""


def quadratic_twin(agent: Agent, observations: UInt8[np.ndarray, "n 3 64 64"]) -> Agent:
    """Replace an agent's hidden layers by quadratics, fitted on what goes into them.

    The ReLUs between residual blocks stay: with these replaced as well, the polynomials' degrees
    multiply, and no twin follows the agent. An agent without ReLU blocks is returned as it is.
    """
    if not any(name.endswith(".branch") for name in units(regrouped(agent))):
        return agent
    layers = hidden_layers(regrouped(agent))
    return polynomial_twin(agent, observations, layers, fit="inputs").agent


def twin_of(agent: Agent, *, levels: int = FITTED_LEVELS, seed: int = 0) -> Agent:
    """Make the quadratic twin of a ReLU agent, from states of the first fitting levels.

    Raises:
        ValueError: the agent has no ReLU blocks, so that it has no twin but itself.
    """
    fitted = collect(agent, FITTING.first(levels), [], [], states_per_level=2, seed=seed)
    twin = quadratic_twin(agent, fitted.observations)
    if twin is agent:
        raise ValueError(f"twin: the agent has no ReLU blocks to approximate: {agent}")
    return twin
