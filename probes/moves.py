"""From action logits to the five moves of a maze: actions with the same effect count as one."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import rel_entr
from torch import Tensor

from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.envs import ACTIONS_OF_MOVE, NUM_ACTIONS

Moves = Float[np.ndarray, "n 5"]
"""Probabilities in the order of `envs.Move`: left, down, up, right, stay."""


def move_distribution(logits: Float[Tensor, "n actions"]) -> Moves:
    """Return the probability of each move, in float64.

    An edit may drive a bilinear network, a polynomial of high degree, beyond what floats hold: an
    infinite logit then stands for the largest number, and one that is no number for 0.

    Raises:
        ValueError: not ProcGen's 15 actions.
    """
    if logits.ndim != 2 or logits.shape[1] != NUM_ACTIONS:
        raise ValueError(f"expected logits (n, {NUM_ACTIONS}), got shape {tuple(logits.shape)}")
    actions = torch.softmax(logits.detach().cpu().double().nan_to_num(), 1)
    groups = [actions[:, list(group)].sum(1) for _, group in sorted(ACTIONS_OF_MOVE.items())]
    return torch.stack(groups, 1).numpy()


def move_probabilities(agent: Agent, observations: Observations) -> Moves:
    """Return the agent's probability of each move, in float64."""
    return move_distribution(agent.logits(observations, check_finite=False))


def kl_divergence(p: Moves, q: Moves) -> Float[np.ndarray, "n"]:
    """Return KL(p || q) in nats, row by row."""
    return rel_entr(p, q).sum(-1)


def total_variation(p: Moves, q: Moves) -> Float[np.ndarray, "n"]:
    """Return half the sum of absolute differences, row by row: from 0 to 1."""
    return np.abs(p - q).sum(-1) / 2
