"""Families of quadratic forms with the same factors: all output directions of a bilinear layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.factors import Factors
from rlbilinear.quadratic import QuadraticForm, as_affine_map, check_pairs
from rlbilinear.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class FormFamily:
    """Forms ``x -> sum_r weights_ir (left_r . x)(right_r . x) + linears_i . x + constants_i``.

    What the forms share is computed once: the products with the factors, and the QR behind their
    eigenpairs. ``family[i]`` is form i; iterating gives all of them.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    left: Float[Tensor, "hidden inputs"]
    right: Float[Tensor, "hidden inputs"]
    weights: Float[Tensor, "n hidden"]
    linears: Float[Tensor, "n inputs"]
    constants: Float[Tensor, "n"]

    def __post_init__(self) -> None:
        given = [tuple(getattr(self, name).shape) for name in self.__dataclass_fields__]
        hidden, inputs = self.left.shape if self.left.ndim == 2 else (0, 0)
        n = len(self.weights) if self.weights.ndim else 0
        if given != [(hidden, inputs), (hidden, inputs), (n, hidden), (n, inputs), (n,)]:
            raise ValueError(
                "expected left (hidden, inputs), right (hidden, inputs), weights (n, hidden), "
                f"linears (n, inputs), constants (n,); got {', '.join(map(str, given))}"
            )

    @property
    def in_features(self) -> int:
        """The number of inputs."""
        return self.left.shape[1]

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: int) -> QuadraticForm:
        """Return one form; the factors are not copied."""
        return QuadraticForm(
            self.left,
            self.right,
            self.weights[index],
            self.linears[index],
            self.constants[index],
        )

    def __iter__(self) -> Iterator[QuadraticForm]:
        return (self[index] for index in range(len(self)))

    def combine(self, coefficients: Float[Tensor, "m n"]) -> "FormFamily":
        """Return the ``m`` sums of the forms with these coefficients, as a family.

        Raises:
            ValueError: the coefficients are not ``(m, n)``.
        """
        if coefficients.ndim != 2 or coefficients.shape[1] != len(self):
            raise ValueError(
                f"expected coefficients (m, {len(self)}), got {tuple(coefficients.shape)}"
            )
        mix = coefficients.to(self.weights)
        return FormFamily(
            self.left, self.right, mix @ self.weights, mix @ self.linears, mix @ self.constants
        )

    def __call__(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch n"]:
        """Evaluate all forms at ``x``, in the dtype and on the device of ``x``."""
        self._check(x)
        products = (x @ self.left.to(x).T) * (x @ self.right.to(x).T)
        return products @ self.weights.to(x).T + x @ self.linears.to(x).T + self.constants.to(x)

    def gradient(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch n inputs"]:
        """Return the gradients ``2 Q_i x + linear_i``, in the dtype and on the device of ``x``."""
        self._check(x)
        left, right, weights = (t.to(x) for t in (self.left, self.right, self.weights))
        by_left = ((x @ right.T)[..., None, :] * weights) @ left
        by_right = ((x @ left.T)[..., None, :] * weights) @ right
        return by_left + by_right + self.linears.to(x)

    def gram(self) -> Float[Tensor, "n n"]:
        """Return the Frobenius inner products of the forms' matrices, from products of factors."""
        same = (self.left @ self.left.T) * (self.right @ self.right.T)
        crossed = self.left @ self.right.T
        return self.weights @ (same + crossed * crossed.T) @ self.weights.T / 2

    def cosines(self) -> Float[Tensor, "n n"]:
        """Return the cosines of the angles between the matrices; NaN where one is zero."""
        gram = self.gram()
        norms = gram.diagonal().clamp(min=0).sqrt()
        return gram / torch.outer(norms, norms)

    def eigh(
        self, k: int | None = None, *, dtype: torch.dtype = torch.float64
    ) -> tuple[Spectrum, ...]:
        """Decompose all forms, as `QuadraticForm.eigh` does, sharing one QR; small ones together.

        Args:
            k: at most so many pairs of each, the largest; all up to the numerical rank when None.
            dtype: as for `QuadraticForm.eigh`.

        Raises:
            ValueError: ``k`` is not a whole number from 0 on, or another dtype.
            RuntimeError: Lanczos did not converge.
        """
        check_pairs(k, dtype)
        left, right, weights = self.left, self.right, self.weights
        if not weights.all() and not (used := weights.any(0)).all():
            left, right, weights = left[used], right[used], weights[:, used]
        return Factors.of(left, right, matrices=len(self), dtype=dtype).spectra(weights, k)

    def pullback(
        self, matrix: Float[Tensor, "inputs new"], offset: Float[Tensor, "inputs"] | None = None
    ) -> "FormFamily":
        """Change the basis: return the forms ``z -> form(matrix @ z + offset)``, exactly.

        Raises:
            ValueError: the matrix is not ``(inputs, new)``, or the offset not ``(inputs,)``.
        """
        matrix, offset = as_affine_map(matrix, offset, like=self.left)
        return FormFamily(
            self.left @ matrix,
            self.right @ matrix,
            self.weights,
            self.gradient(offset) @ matrix,
            self(offset),
        )

    def _check(self, x: Tensor) -> None:
        if x.ndim == 0 or x.shape[-1] != self.in_features or not x.is_floating_point():
            raise ValueError(
                f"expected floating-point x (..., {self.in_features}), "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )
