"""How well a model predicts held-out text, and how far its predictions are from another's."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

LOGITS_AT_ONCE = 2**26
"""Logits that are in memory at a time, in each of a few copies: 256 MiB in float32."""

Logits = Callable[[Int[Tensor, "batch context"]], Float[Tensor, "batch context vocabulary"]]


class Score(NamedTuple):
    """Means over the tokens that are predicted."""

    loss: float
    """cross-entropy, nats a token"""
    kl: float | None
    """Kullback-Leibler divergence from the original's predictions, nats a token"""

    @property
    def perplexity(self) -> float:
        """The exponential of the loss."""
        return math.exp(min(self.loss, 700.0))


def logits_of(model: torch.nn.Module) -> Logits:
    """Return the function from tokens to logits of a model of transformers."""
    return lambda tokens: model(input_ids=tokens, use_cache=False).logits


def token_losses(
    logits: Float[Tensor, "batch context vocabulary"], tokens: Int[Tensor, "batch context"]
) -> Float[Tensor, "batch predicted"]:
    """Return the cross-entropy of every token but the first, in nats."""
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten().long(), reduction="none"
    ).reshape(len(tokens), -1)


def divergence(
    original: Float[Tensor, "*batch vocabulary"], other: Float[Tensor, "*batch vocabulary"]
) -> Float[Tensor, "*batch"]:
    """Return KL(original || other) of the predicted distributions, in nats."""
    p = original.float().log_softmax(-1)
    return F.kl_div(other.float().log_softmax(-1), p, reduction="none", log_target=True).sum(-1)


@torch.no_grad()
def score(
    model: Logits,
    batches: Iterable[Int[Tensor, "batch context"]],
    *,
    original: Logits | None = None,
) -> Score:
    """Score predictions on windows of tokens.

    Args:
        model: gives logits.
        batches: on the model's device.
        original: what predictions are compared with.

    Raises:
        ValueError: there are no batches.
    """
    losses, divergences = [], []
    for tokens in batches:
        logits = model(tokens)
        losses.append(token_losses(logits, tokens).flatten().double())
        if original is not None:
            divergences.append(divergence(original(tokens), logits)[:, :-1].flatten().double())
    if not losses:
        raise ValueError("batches: expected at least one")
    kl = torch.cat(divergences).mean().item() if divergences else None
    return Score(torch.cat(losses).mean().item(), kl)


def replay(stored: Iterable[Float[Tensor, "batch context vocabulary"]]) -> Logits:
    """Return a function that gives stored logits, those of the next batch at every call."""
    following = iter(stored)
    return lambda _: next(following)


def windows_at_once(context: int, vocabulary: int) -> int:
    """Return how many windows' logits to have in memory at a time."""
    return max(1, LOGITS_AT_ONCE // (context * vocabulary))


def batched(
    windows: Int[Tensor, "n context"], size: int, device: torch.device | str
) -> Iterator[Int[Tensor, "batch context"]]:
    """Yield windows in batches on a device."""
    for batch in windows.split(size):
        yield batch.to(device).long()
