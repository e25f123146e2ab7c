"""Kullback-Leibler divergences of distributions over few outcomes, from log-probabilities."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-6
"""A log-probability of 0 may be computed as this much, in float32."""


def kl_divergence(
    log_p: Float[Tensor, "*batch outcomes"], log_q: Float[Tensor, "*batch outcomes"]
) -> Float[Tensor, "*batch"]:
    """Return KL(p || q) in nats, from log-probabilities.

    Probabilities themselves would not do: one below 5e-324 is 0, and the divergence infinite. An
    outcome of probability 0 under p counts nothing. It is NaN where a log-probability is.

    Raises:
        ValueError: a number above 0, which is not a log-probability.
    """
    if (log_p > ROUNDING).any() or (log_q > ROUNDING).any():
        raise ValueError(
            "expected log-probabilities, which are at most 0: probabilities, or logits?"
        )
    p = log_p.exp()
    return torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(-1)


def grouped(
    log_p: Float[Tensor, "*batch outcomes"], groups: Iterable[Iterable[int]]
) -> Float[Tensor, "*batch groups"]:
    """Return the log-probability of each group of outcomes."""
    return torch.stack([log_p[..., [*group]].logsumexp(-1) for group in groups], -1)


def kl_of_logits(
    logits_p: Float[Tensor, "*batch outcomes"], logits_q: Float[Tensor, "*batch outcomes"]
) -> Float[Tensor, "*batch"]:
    """Return KL(p || q) in nats of the softmaxes of logits, in float64."""
    log_p, log_q = (logits.double().log_softmax(-1) for logits in (logits_p, logits_q))
    return kl_divergence(log_p, log_q)
