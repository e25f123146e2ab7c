"""Low-rank symmetric matrices from their factors: a small core, and its eigenpairs."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.lanczos import lanczos
from rlbilinear.spectrum import Spectrum, as_double, by_size, rounding, sign_gauge

KRYLOV_FROM, KRYLOV_SHARE = 1024, 16
"""Lanczos finds the pairs of a core of this size or more faster than the dense routine does, when
not more than a sixteenth of them is asked for: at a size of 1024 1.5 to 5 times, at 4096 with 64
pairs 3 to 10 times (a random spectrum, and one that decays as index^-0.7)."""

CHUNK = 2048
"""Hidden units whose products are added to the core at once: bounds what is held beside it."""


class Factors(NamedTuple):
    """``leftᵀ = basis @ left``, ``rightᵀ = basis @ right`` with one orthonormal basis, in float64.

    Shared by all matrices ``leftᵀ diag(weight) right`` with the same factors.
    """

    basis: Float[Tensor, "inputs size"] | None
    """None stands for the identity"""
    left: Float[Tensor, "size hidden"]
    right: Float[Tensor, "size hidden"]

    @classmethod
    def of(
        cls, left: Float[Tensor, "hidden inputs"], right: Float[Tensor, "hidden inputs"]
    ) -> "Factors":
        """Find the basis by a thin QR of ``[left; right]ᵀ``, where it is thin."""
        left, right = as_double(left), as_double(right)
        if 2 * len(left) >= left.shape[1]:
            return cls(None, left.T, right.T)
        basis, corner = torch.linalg.qr(torch.cat([left, right]).T)
        return cls(basis, *corner.tensor_split(2, dim=1))

    def core(self, weight: Float[Tensor, "hidden"]) -> Float[Tensor, "size size"]:
        """Return C with ``sym(leftᵀ diag(weight) right) = basis C basisᵀ``."""
        half = self.left.new_zeros(len(self.left), len(self.left))
        parts = (self.left, as_double(weight), self.right)
        for left, some, right in zip(*(part.split(CHUNK, dim=-1) for part in parts), strict=True):
            half.addmm_(left * some, right.T)
        return (half + half.T) / 2

    def tolerance(self, weight: Float[Tensor, "hidden"]) -> float:
        """Return the rounding error of the core's eigenvalues."""
        scale = (as_double(weight) * self.left.norm(dim=0) * self.right.norm(dim=0)).norm()
        size = max(len(self.left if self.basis is None else self.basis), 2 * len(weight))
        return rounding(size, scale)

    def spectrum(
        self, weight: Float[Tensor, "hidden"], k: int | None = None, *, dense: bool = False
    ) -> Spectrum:
        """Return at most ``k`` of the largest eigenpairs, all up to the numerical rank if None.

        Few pairs of a large core are found by Lanczos, to the same accuracy, unless ``dense``.

        Raises:
            RuntimeError: Lanczos did not converge.
        """
        core, tolerance = self.core(weight), self.tolerance(weight)
        size = len(core)
        if k is not None and not dense and size >= KRYLOV_FROM and KRYLOV_SHARE * k <= size:
            found = lanczos(core.mv, size, k, tolerance=tolerance, like=core)
        else:
            values, vectors = torch.linalg.eigh(core)
            # Reversed, so that what is of one size, as in the pairs ±value, goes by sign.
            values, vectors = values.flip(0), vectors.flip(1)
            order = by_size(values, tolerance)[:k]
            found = Spectrum(values[order], vectors.T[order])
        rows = found.vectors if self.basis is None else found.vectors @ self.basis.T
        return Spectrum(found.values, rows.mul_(sign_gauge(rows)))  # in place: rows are many

    def sizes(self, weight: Float[Tensor, "hidden"]) -> Float[Tensor, "rank"]:
        """Return the ``|eigenvalues|``, descending, up to the numerical rank."""
        sizes = torch.linalg.eigvalsh(self.core(weight)).abs().sort(descending=True).values
        return sizes[sizes > self.tolerance(weight)]
