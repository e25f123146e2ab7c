"""Published ways to take a concept out of a layer's output, as linear maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.probes.causal.data import Examples, Kind
from rlbilinear.probes.causal.readings import Features, chance, fit_reading
from rlbilinear.probes.causal.subspaces import (
    Basis,
    Rows,
    orthonormal,
    outputs_of,
    part_along,
    rows_of,
)

ROUNDS = 8
"""Readings that INLP takes away at most."""
ENOUGH = 0.01
"""INLP stops when a reading is better than chance by less than this."""


@dataclass(frozen=True, eq=False)
class Eraser:
    """The map ``x -> x - left right (x - mean)``: of low rank, kept in factors."""

    left: Float[Tensor, "dimension rank"]
    right: Float[Tensor, "rank dimension"]
    mean: Float[Tensor, "dimension"]

    def __call__(self, rows: Rows) -> Rows:
        """Take the concept out of rows."""
        return rows - ((rows - self.mean) @ self.right.T) @ self.left.T


def leace(x: Float[Tensor, "n dimension"], z: Float[Tensor, "n targets"]) -> Eraser:
    """Return the least change of x after which no linear reading tells z: LEACE.

    ``x - W⁺ P W (x - E x)``, with ``W`` the whitening ``Σ⁺¹ᐟ²`` and ``P`` the projector on the
    columns of ``W Σxz`` (Belrose et al. 2023, theorem 4.3), from a thin singular value
    decomposition of x, so that nothing of the size dimension² is built when there are fewer states.
    """
    mean = x.mean(0)
    left, sizes, right = torch.linalg.svd(x - mean, full_matrices=False)
    kept = sizes > sizes.amax() * max(x.shape) * torch.finfo(x.dtype).eps
    left, sizes, right = left[:, kept], sizes[kept], right[kept]
    # In the coordinates of `right`, W is 1 / sizes, and W Σxz is leftᵀ z, both up to a factor.
    directions, shares, _ = torch.linalg.svd(left.T @ (z - z.mean(0)), full_matrices=False)
    directions = directions[:, shares > shares.amax() * 1e-9]
    return Eraser(
        right.T @ (sizes[:, None] * directions), (directions / sizes[:, None]).T @ right, mean
    )


def inlp(
    outputs: Float[Tensor, "n *output"], examples: Examples, kind: Kind, *, rounds: int = ROUNDS
) -> Basis:
    """Return what readings weigh, one fitted after another to what the ones before leave: INLP.

    Iterative nullspace projection (Ravfogel et al. 2020) takes the component in this subspace away.
    It ends after so many rounds, or when a reading is no better than chance.
    """
    labels = np.asarray(examples.labels)
    base_rate = np.nanmean(chance(kind, labels, labels))
    rows = rows_of(outputs, kind)
    found = torch.zeros(0, rows.shape[2], dtype=torch.float64)
    for _ in range(rounds):
        left = outputs_of(rows - part_along(rows, found), tuple(outputs.shape[1:]), kind)
        reading = fit_reading(Features(left, kind), examples)
        if np.nanmean(reading.score(left, labels)) < base_rate + ENOUGH:
            break
        weights = torch.from_numpy(np.atleast_2d(reading.weights)).double()
        weights = weights - part_along(weights, found)
        found = orthonormal(torch.cat([found, weights]))
    return found
