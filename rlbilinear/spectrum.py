"""Eigenpairs: their order, their signs, and what of them is rounding."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


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


def rounding(size: int, scale: Float[Tensor, ""]) -> float:
    """Return up to what eigenvalues of a matrix of that size and norm are rounding errors."""
    return size * torch.finfo(torch.float64).eps * scale.item()


def by_size(values: Float[Tensor, "n"], tolerance: float) -> Tensor:
    """Return the indices of values above the tolerance, by magnitude descending.

    What is of one size but for rounding keeps its order.
    """
    magnitude = values.abs().log().round(decimals=9)
    order = magnitude.argsort(descending=True, stable=True)
    return order[values[order].abs() > tolerance]


def fix_signs(vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Return the rows with the sign that makes their entry of largest magnitude positive."""
    return vectors * sign_gauge(vectors)


def sign_gauge(vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k 1"]:
    """Return the sign of each row's entry of largest magnitude (the first of equal ones)."""
    size = vectors.abs()
    largest = size >= (1 - 1e-9) * size.amax(1, keepdim=True)
    return vectors.gather(1, largest.to(torch.uint8).argmax(1, keepdim=True)).sign()


def as_double(tensor: Tensor) -> Tensor:
    """Return it in float64, detached; on the CPU if the device has no float64 (Apple's mps)."""
    if tensor.device.type == "mps":
        tensor = tensor.detach().cpu()
    return tensor.detach().to(torch.float64)


def to_double(tensor: Tensor) -> Tensor:
    """Like `as_double`, but always a copy."""
    return as_double(tensor).clone() if tensor.dtype == torch.float64 else as_double(tensor)
