"""Whether two agents represent a concept alike: channels are matched, then directions compared.

Two trainings number their channels differently. Channels are matched one to one, with signs, so
that their activations in the same states correlate most (Li et al. 2016, convergent learning). What
is compared then must exceed what chance matchings give.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor


class Matching(NamedTuple):
    """Channels of one agent, and those of another that are most like them.

    Attributes:
        channels: of the other agent, for each channel of the first.
        signs: 1, or -1 where the two are correlated negatively.
        correlations: of each pair, in absolute value.
    """

    channels: Int[np.ndarray, "channels"]
    signs: Float[np.ndarray, "channels"]
    correlations: Float[np.ndarray, "channels"]

    def to_first(self, filters: Float[Tensor, "n channels *kernel"]) -> Tensor:
        """Rewrite filters or directions of the other agent in the first one's channels."""
        signs = torch.from_numpy(self.signs).to(filters).reshape(-1, *[1] * (filters.ndim - 2))
        return filters[:, torch.from_numpy(self.channels)] * signs


class Alike(NamedTuple):
    """How alike two sets of directions are.

    Attributes:
        similarity: mean squared cosine of the principal angles between what they span; 1 is equal.
        chance: its mean over random matchings.
        p: share of random matchings that are as similar or more, counting the observed one.
    """

    similarity: float
    chance: float
    p: float


def match_channels(
    one: Float[Tensor, "n channels *positions"], other: Float[Tensor, "n channels *positions"]
) -> Matching:
    """Match the channels of two agents by their activations in the same states.

    Raises:
        ValueError: activations of other shapes than each other.
    """
    if one.shape != other.shape or one.ndim < 2:
        raise ValueError(
            f"expected activations of one shape (n, channels, ...), got {tuple(one.shape)} and "
            f"{tuple(other.shape)}"
        )
    first, second = (_standard(each) for each in (one, other))
    correlations = (first @ second.T / first.shape[1]).numpy()
    rows, columns = linear_sum_assignment(-np.abs(correlations))
    found = correlations[rows, columns]
    return Matching(columns, np.where(found < 0, -1.0, 1.0), np.abs(found))


def alike(
    one: Float[Tensor, "n channels *kernel"],
    other: Float[Tensor, "n channels *kernel"],
    matching: Matching,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Alike:
    """Compare what two agents' directions or filters span, after matching their channels.

    Args:
        one: of the first agent.
        other: of the other, in its own channels.
        matching: of the channels.
        resamples: random matchings, permutations with random signs, that tell chance.
        seed: of these.

    Raises:
        ValueError: other shapes than each other, or none.
    """
    if one.shape != other.shape or one.ndim < 2 or not len(one):
        raise ValueError(
            f"expected directions of one shape (n, channels, ...), got {tuple(one.shape)} and "
            f"{tuple(other.shape)}"
        )
    basis = _basis(one)
    own = _overlap(basis, matching.to_first(other))
    rng = np.random.default_rng(seed)
    channels = one.shape[1]
    by_chance = np.array(
        [
            _overlap(
                basis,
                Matching(
                    rng.permutation(channels),
                    rng.choice([-1.0, 1.0], channels),
                    np.zeros(channels),
                ).to_first(other),
            )
            for _ in range(resamples)
        ]
    )
    reached = np.count_nonzero(by_chance >= own - 1e-12)
    return Alike(own, float(by_chance.mean()), float((1 + reached) / (1 + resamples)))


def _standard(activations: Tensor) -> Float[Tensor, "channels samples"]:
    """Return channels with mean 0 and variance 1; a constant one is 0."""
    rows = activations.double().cpu().movedim(1, 0).flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    scale = rows.square().mean(1, keepdim=True).sqrt()
    return torch.where(scale > 0, rows / scale.clamp(min=torch.finfo(rows.dtype).tiny), 0.0)


def _basis(directions: Tensor) -> Float[Tensor, "rank dimension"]:
    _, sizes, basis = torch.linalg.svd(directions.double().cpu().flatten(1), full_matrices=False)
    return basis[sizes > sizes.amax() * 1e-9]


def _overlap(basis: Float[Tensor, "rank dimension"], directions: Tensor) -> float:
    other = _basis(directions)
    return float((basis @ other.T).square().sum() / max(len(basis), len(other)))
