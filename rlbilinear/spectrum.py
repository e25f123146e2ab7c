"""Eigenpairs: their order, their signs, and what of them is rounding."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_SLACK = {np.float64: 2.0**-30, np.float32: 2.0**-17}
"""The share by which numbers may differ that are of one size but for rounding, by dtype."""


class Spectrum(NamedTuple):
    """Eigenpairs of a symmetric matrix, by |value| descending, zero eigenvalues left out.

    Unpacks as ``values, vectors``. Vectors are orthonormal rows; their sign, which is free, makes
    the entry of largest magnitude positive.
    """

    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "k inputs"]

    def contributions(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch k"]:
        """Return each pair's ``value (vector . x)²``, in the dtype and on the device of ``x``."""
        return self.values.to(x) * (x @ self.vectors.to(x).T) ** 2


def rounding(size: int, scale: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return up to what eigenvalues of matrices of that size and norm are rounding errors."""
    return size * torch.finfo(scale.dtype).eps * scale


def by_size(values: Float[np.ndarray, "*batch n"]) -> Int[np.ndarray, "*batch n"]:
    """Return the indices of ascending values by magnitude descending.

    Of a positive and a negative one whose sizes differ by rounding alone the positive one is first.
    """
    larger_if_positive = np.abs(values) + _SLACK[values.dtype.type] / 2 * values
    return larger_if_positive.argsort(axis=-1, kind="stable")[..., ::-1]


def fix_signs(vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Return the rows with the sign that makes their entry of largest magnitude positive."""
    return vectors * sign_gauge(vectors)


def sign_gauge(vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k 1"]:
    """Return the sign of each row's entry of largest magnitude (the first of equal ones)."""
    # Two reductions: aminmax takes five times as long as both.
    lowest, highest = (each(1).numpy(force=True) for each in (vectors.amin, vectors.amax))
    slack = _SLACK[highest.dtype.type]
    both = highest + lowest
    signs = np.sign(both)
    equal = np.abs(both) <= slack * (highest - lowest)
    if equal.any():
        rows = vectors[torch.from_numpy(equal)].numpy(force=True)
        size = np.abs(rows)
        first = (size >= (1 - slack) * size.max(1, keepdims=True)).argmax(1, keepdims=True)
        signs[equal] = np.sign(np.take_along_axis(rows, first, 1))[:, 0]
    return torch.from_numpy(signs).to(vectors)[:, None]


def as_double(tensor: Tensor) -> Tensor:
    """Return it in float64, detached; on the CPU if the device has no float64 (Apple's mps)."""
    if tensor.device.type == "mps":
        tensor = tensor.detach().cpu()
    return tensor.detach().to(torch.float64)


def to_double(tensor: Tensor) -> Tensor:
    """Like `as_double`, but always a copy."""
    return as_double(tensor).clone() if tensor.dtype == torch.float64 else as_double(tensor)
