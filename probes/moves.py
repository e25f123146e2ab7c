"""From action logits to the five moves of a maze: actions with the same effect count as one.

Policies are kept and compared as log-probabilities: a strong edit makes probabilities too small for
floats. A state whose logits are not finite has no policy: its log-probabilities are NaN, and so is
everything measured of it, as NaN or ``finite`` 0 in tables; it is never a move.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlbilinear import statistics
from rlbilinear.agents.agent import Observations
from rlbilinear.envs import ACTIONS_OF_MOVE, NUM_ACTIONS
from rlbilinear.envs.pairs import NO_MOVE
from rlbilinear.probes.named import AgentLike, as_agent

Moves = Float[np.ndarray, "n 5"]
"""Probabilities in the order of `envs.Move`: left, down, up, right, stay."""
LogMoves = Float[np.ndarray, "n 5"]
"""Their logarithms."""


def log_move_distribution(logits: Float[Tensor, "n actions"]) -> LogMoves:
    """Return the log-probability of each move, in float64; NaN where a logit is not finite.

    Raises:
        ValueError: not ProcGen's 15 actions.
    """
    if logits.ndim != 2 or logits.shape[1] != NUM_ACTIONS:
        raise ValueError(f"expected logits (n, {NUM_ACTIONS}), got shape {tuple(logits.shape)}")
    logits = logits.detach().cpu().double()
    logits = logits.where(logits.isfinite().all(1, keepdim=True), torch.nan)
    groups = [group for _, group in sorted(ACTIONS_OF_MOVE.items())]
    return statistics.grouped(logits.log_softmax(1), groups).numpy()


def move_distribution(logits: Float[Tensor, "n actions"]) -> Moves:
    """Return the probability of each move, in float64; NaN where a logit is not finite.

    Raises:
        ValueError: not ProcGen's 15 actions.
    """
    return np.exp(log_move_distribution(logits))


def log_move_probabilities(agent: AgentLike, observations: Observations) -> LogMoves:
    """Return the agent's log-probability of each move, in float64."""
    return log_move_distribution(as_agent(agent).logits(observations, check_finite=False))


def move_probabilities(agent: AgentLike, observations: Observations) -> Moves:
    """Return the agent's probability of each move, in float64."""
    return np.exp(log_move_probabilities(agent, observations))


def has_policy(moves: Moves | LogMoves) -> Bool[np.ndarray, "n"]:
    """Return in which states the agent's outputs were finite."""
    return ~np.isnan(moves).any(-1)


def right_moves(moves: Moves | LogMoves, expert: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Return whether the most likely move is the expert's, 0 or 1.

    NaN where the expert has none (`NO_MOVE`), or the agent has no policy.
    """
    known = (expert != NO_MOVE) & has_policy(moves)
    return np.where(known, moves.argmax(1) == expert, np.nan)


def kl_divergence(log_p: LogMoves, log_q: LogMoves) -> Float[np.ndarray, "n"]:
    """Return KL(p || q) in nats, row by row, from log-probabilities."""
    return statistics.kl_divergence(torch.from_numpy(log_p), torch.from_numpy(log_q)).numpy()


def total_variation(p: Moves, q: Moves) -> Float[np.ndarray, "n"]:
    """Return half the sum of absolute differences, row by row: from 0 to 1."""
    return np.abs(p - q).sum(-1) / 2
