"""Low-rank symmetric matrices from their factors: a small core, and its eigenpairs."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.lanczos import lanczos
from rlbilinear.spectrum import Spectrum, as_double, by_size, rounding, sign_gauge

KRYLOV_FROM, KRYLOV_SHARE = 512, 16
"""Lanczos finds the pairs of a core of this size or more faster than the dense routine does, when
not more than a sixteenth of them is asked for: at a size of 512 1.8 to 3.6 times, at 4096 with 64
pairs 3 to 10 times (a random spectrum, and one that decays as index^-0.7)."""

THIN, THIN_ALONE = 0.88, 0.75
"""Shares of the inputs up to which a basis of the factors is worth its QR and the way back from it,
measured at 128 to 784 inputs: for ten matrices, and for a single one."""

CHUNK = 2048
"""Hidden units whose products are added to cores at once: bounds what is held beside them."""

BATCH = 2**21
"""Numbers held at once when several matrices are decomposed together."""


class Factors(NamedTuple):
    """``leftᵀ = basis @ left``, ``rightᵀ = basis @ right`` with one orthonormal basis.

    Shared by all matrices ``leftᵀ diag(weight) right`` with the same factors.
    """

    basis: Float[Tensor, "inputs size"] | None
    """None stands for the identity"""
    left: Float[Tensor, "size hidden"]
    right: Float[Tensor, "size hidden"]

    @classmethod
    def of(
        cls,
        left: Float[Tensor, "hidden inputs"],
        right: Float[Tensor, "hidden inputs"],
        *,
        matrices: int = 1,
        dtype: torch.dtype = torch.float64,
    ) -> "Factors":
        """Find the basis by a thin QR of ``[left; right]ᵀ``, where that pays.

        Args:
            left: the factors.
            right: likewise.
            matrices: how many are to be decomposed.
            dtype: of the computation.
        """
        left, right = as_double(left).to(dtype), as_double(right).to(dtype)
        hidden, inputs = left.shape
        if 2 * hidden >= (THIN_ALONE if matrices == 1 else THIN) * inputs:
            return cls(None, left.T, right.T)
        basis, corner = torch.linalg.qr(torch.cat([left, right]).T)
        return cls(basis, *corner.tensor_split(2, dim=1))

    def cores(self, weights: Float[Tensor, "n hidden"]) -> Float[Tensor, "n size size"]:
        """Return C with ``sym(leftᵀ diag(weight) right) = basis C basisᵀ``, for each weight."""
        weights = weights.to(self.left)
        parts = (self.left, weights / 2, self.right)
        products = (
            torch.matmul((left.T * some[:, :, None]).mT, right.T)
            for left, some, right in zip(*(p.split(CHUNK, dim=-1) for p in parts), strict=True)
        )
        half = next(products)
        for product in products:
            half += product
        return half + half.mT

    def core(self, weight: Float[Tensor, "hidden"]) -> Float[Tensor, "size size"]:
        """Return `cores` of a single weight."""
        return self.cores(weight[None])[0]

    def tolerances(self, weights: Float[Tensor, "n hidden"]) -> Float[Tensor, "n"]:
        """Return the rounding errors of the cores' eigenvalues."""
        norm = torch.linalg.vector_norm
        units = norm(self.left, dim=0) * norm(self.right, dim=0)
        size = max(len(self.left if self.basis is None else self.basis), 2 * len(units))
        return rounding(size, norm(weights.to(units) * units, dim=1))

    def spectra(
        self, weights: Float[Tensor, "n hidden"], k: int | None = None, *, dense: bool = False
    ) -> tuple[Spectrum, ...]:
        """Return at most ``k`` of the largest eigenpairs of each, all up to the rank if None.

        Few pairs of a large core are found by Lanczos, to the same accuracy, unless ``dense``.

        Raises:
            RuntimeError: Lanczos did not converge.
        """
        size, hidden = self.left.shape
        if k is not None and not dense and size >= KRYLOV_FROM and KRYLOV_SHARE * k <= size:
            return tuple(self._few(weight, k) for weight in weights)
        at_once = max(1, BATCH // (size * max(size, min(hidden, CHUNK)) or 1))
        batches = weights.to(self.left).split(at_once)
        return tuple(spectrum for batch in batches for spectrum in self._all(batch, k))

    def _few(self, weight: Float[Tensor, "hidden"], k: int) -> Spectrum:
        core = self.core(weight).double()
        tolerance = self.tolerances(weight[None]).item()
        found = lanczos(core.mv, len(core), k, tolerance=tolerance, like=core)
        return Spectrum(found.values.to(self.left), self._back(found.vectors.to(self.left)))

    def _all(self, weights: Float[Tensor, "n hidden"], k: int | None) -> Iterable[Spectrum]:
        # Transposed it has the layout of LAPACK, which is a few per cent faster on upper triangles.
        values, vectors = torch.linalg.eigh(self.cores(weights).mT, UPLO="U")
        each = values.numpy(force=True)
        n, size = each.shape
        places = by_size(each)[:, :k] + size * np.arange(n)[:, None]
        sizes = np.abs(each.ravel()[places])
        kept = sizes > self.tolerances(weights).numpy(force=True)[:, None]
        whole = kept.all()
        chosen = torch.from_numpy(places.ravel() if whole else places[kept]).to(values.device)
        rows = self._back(vectors.mT.flatten(0, 1).index_select(0, chosen))
        values = values.flatten().index_select(0, chosen)
        if whole:  # one call for all of them is a few per cent of small matrices' time
            shape = (n, places.shape[1])
            each_rows = rows.view(*shape, rows.shape[1])
            return map(Spectrum, values.view(shape).unbind(), each_rows.unbind())
        counts = kept.sum(1).tolist()
        return map(Spectrum, values.split(counts), rows.split(counts))

    def _back(self, vectors: Float[Tensor, "k size"]) -> Float[Tensor, "k inputs"]:
        """Return vectors of the core as vectors over the inputs, with their signs fixed."""
        rows = vectors if self.basis is None else vectors @ self.basis.T
        return rows.mul_(sign_gauge(rows))  # in place: rows are many

    def sizes(self, weight: Float[Tensor, "hidden"]) -> Float[Tensor, "rank"]:
        """Return the ``|eigenvalues|``, descending, up to the numerical rank."""
        sizes = torch.linalg.eigvalsh(self.core(weight)).abs().sort(descending=True).values
        return sizes[sizes > self.tolerances(weight[None])]
