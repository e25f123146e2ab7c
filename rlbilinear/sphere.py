"""The inputs of a given norm at which a quadratic form is largest or smallest, in closed form."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from rlbilinear.quadratic import QuadraticForm


class SphereExtremum(NamedTuple):
    """Where a form is extreme on a sphere, and its value there."""

    x: Float[Tensor, "inputs"]
    value: float


def sphere_maximum(form: QuadraticForm, radius: float = 1.0) -> SphereExtremum:
    """Return the input of norm ``radius`` at which a form is largest, its linear part included.

    At the maximum ``(m - Q) x = l / 2`` with ``m`` at least the largest eigenvalue of ``Q``; along
    eigenvector i, ``x_i = l_i / 2 / (m - lambda_i)``. The norm falls with ``m``, so the one that
    gives the radius (the secular equation) is found between two bounds. Where ``l`` has no part
    along the largest eigenvalue and even ``m = lambda_1`` gives too short a vector, the rest of the
    norm goes along that eigenvector, of free sign (Moré and Sorensen 1983, the hard case).

    Without a linear part this is the eigenvector of the largest eigenvalue. In float64.

    Raises:
        ValueError: the radius is not positive and finite.
    """
    if not 0 < radius < float("inf"):
        raise ValueError(f"expected a positive, finite radius, got {radius}")
    values, rows = form.eigh()
    linear = form.linear.to(values) / 2
    along = rows @ linear
    # What is left has eigenvalue 0: one more direction, that of the rest of the linear part.
    rest = linear - rows.T @ along
    rest = rest - rows.T @ (rows @ rest)
    if len(values) < form.in_features:
        known = rest.norm() > 1e-12 * linear.norm()
        direction = rest / rest.norm() if known else _orthogonal(rows, form.in_features)
        rows = torch.cat([rows, direction[None]])
        values = torch.cat([values, values.new_zeros(1)])
        along = torch.cat([along, rest.norm()[None] if known else along.new_zeros(1)])
    x = rows.T @ torch.from_numpy(_secular(values.cpu().numpy(), along.cpu().numpy(), radius)).to(
        rows
    )
    return SphereExtremum(x, form(x).item())


def sphere_minimum(form: QuadraticForm, radius: float = 1.0) -> SphereExtremum:
    """Return the input of norm ``radius`` at which a form is smallest, as `sphere_maximum`."""
    x, value = sphere_maximum(-form, radius)
    return SphereExtremum(x, -value)


def _secular(
    values: Float[np.ndarray, "k"], along: Float[np.ndarray, "k"], radius: float
) -> Float[np.ndarray, "k"]:
    """Return the maximum's coordinates: ``along_i / (shift + gap_i)`` with the norm ``radius``."""
    gaps = values.max() - values
    top = gaps <= 1e-12 * np.abs(values).max()
    gaps[top] = 0
    pull = float(np.linalg.norm(along[top]))
    if pull <= 1e-14 * np.linalg.norm(along):
        along = np.where(top, 0, along)
        shortest = np.divide(along, gaps, out=np.zeros_like(along), where=~top)
        missing = radius**2 - shortest @ shortest
        if missing >= 0:
            shortest[np.argmax(top)] = missing**0.5
            return shortest
        pull = 0.0

    def excess(shift: float) -> float:
        # 1 / norm is nearly a straight line in the shift.
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = np.where(along == 0, 0.0, along / (shift + gaps))
        return 1 / float(np.linalg.norm(parts)) - 1 / radius

    low, high = pull / radius, float(np.linalg.norm(along)) / radius
    if excess(low) >= 0:
        shift = low
    else:
        shift = brentq(excess, low, 2 * high, xtol=1e-15 * high, rtol=1e-14)
    parts = np.where(along == 0, 0.0, along / np.where(along == 0, 1.0, shift + gaps))
    return parts * (radius / np.linalg.norm(parts))


def _orthogonal(rows: Float[Tensor, "k inputs"], size: int) -> Float[Tensor, "inputs"]:
    """Return a unit vector orthogonal to rows that do not span the space."""
    left = 1 - (rows**2).sum(0) if len(rows) else rows.new_ones(size)
    vector = torch.zeros(size).to(rows)
    vector[left.argmax()] = 1
    for _ in range(2):  # twice is enough
        vector = vector - rows.T @ (rows @ vector)
        vector = vector / vector.norm()
    return vector
