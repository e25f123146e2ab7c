"""Quadratic forms kept in factors: what a bilinear layer computes along one output direction."""

from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class QuadraticForm:
    """The function ``x -> sum_r weight_r (left_r . x)(right_r . x) + linear . x + constant``.

    Its matrix is ``Q = sum_r weight_r sym(left_r right_rᵀ)``, of rank at most ``2 * hidden``. No
    method but `matrix` builds anything of size ``inputs²`` while ``2 * hidden < inputs``.
    Forms of the same inputs add and scale: ``a + b``, ``2.0 * a``.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    left: Float[Tensor, "hidden inputs"]
    right: Float[Tensor, "hidden inputs"]
    weight: Float[Tensor, "hidden"]
    linear: Float[Tensor, "inputs"]
    constant: Float[Tensor, ""]

    def __post_init__(self) -> None:
        given = [tuple(t.shape) for t in (self.left, self.right, self.weight, self.linear)]
        fits = self.left.ndim == 2 and given[1:] == [given[0], given[0][:1], given[0][1:]]
        if not fits or self.constant.ndim:
            raise ValueError(
                "expected left (hidden, inputs), right (hidden, inputs), weight (hidden,), linear "
                f"(inputs,), constant (); got {given} and {tuple(self.constant.shape)}"
            )

    @property
    def in_features(self) -> int:
        """The number of inputs."""
        return self.left.shape[1]

    def __call__(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch"]:
        """Evaluate the form at ``x``, in the dtype and on the device of ``x``."""
        left, right, weight, linear, constant = self._like(x)
        return ((x @ left.T) * (x @ right.T)) @ weight + x @ linear + constant

    def gradient(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch inputs"]:
        """Return the gradient ``2 Q x + linear``, in the dtype and on the device of ``x``."""
        left, right, weight, linear, _ = self._like(x)
        return (x @ right.T * weight) @ left + (x @ left.T * weight) @ right + linear

    def matrix(self) -> Float[Tensor, "inputs inputs"]:
        """Build the dense symmetric ``Q``: for small inputs and the curious."""
        half = (self.left.T * self.weight) @ self.right
        return (half + half.T) / 2

    @property
    def trace(self) -> Float[Tensor, ""]:
        """The trace of ``Q``, also the sum of its eigenvalues."""
        return self.weight @ (self.left * self.right).sum(1)

    @property
    def norm(self) -> Float[Tensor, ""]:
        """The Frobenius norm of ``Q``."""
        return self._core()[1].norm()

    def inner(self, other: "QuadraticForm") -> Float[Tensor, ""]:
        """Return the Frobenius inner product of the two matrices, from products of factors."""
        same = (self.left @ other.left.T) * (self.right @ other.right.T)
        crossed = (self.left @ other.right.T) * (self.right @ other.left.T)
        return self.weight @ (same + crossed) @ other.weight / 2

    @property
    def rank(self) -> int:
        """The numerical rank of ``Q``: eigenvalues above the rounding error of the factors."""
        return len(self.eigh().values)

    def eigh(self, k: int | None = None) -> Spectrum:
        """Decompose ``Q`` exactly, by the low-rank route and in float64.

        With ``[left; right]ᵀ = Z R`` (thin QR) the eigenvalues of ``Q`` are those of the
        ``2 hidden x 2 hidden`` core ``R S Rᵀ``, ``S = [[0, D], [D, 0]] / 2``, ``D = diag(weight)``,
        and the eigenvectors are ``Z`` times the core's.

        Args:
            k: at most so many pairs, the largest; every pair up to the numerical rank when None.

        Raises:
            ValueError: ``k`` is negative.
        """
        if k is not None and k < 0:
            raise ValueError(f"expected k >= 0 eigenpairs or None for all, got {k}")
        basis, core, tolerance = self._core()
        values, vectors = torch.linalg.eigh(core)
        # Ties, as in the pairs ±value of orthogonal factors, go by sign and not by rounding.
        values, vectors = values.flip(0), vectors.flip(1)
        magnitude = values.abs().log().round(decimals=9)
        order = magnitude.argsort(descending=True, stable=True)
        order = order[values[order].abs() > tolerance][:k]
        return Spectrum(values[order], fix_signs((basis @ vectors[:, order]).T))

    def truncate(self, k: int) -> "QuadraticForm":
        """Keep the ``k`` largest eigenpairs: the best form of that rank; the rest of it stays."""
        values, vectors = self.eigh(k)
        return QuadraticForm(vectors, vectors, values, self.linear, self.constant)

    def __add__(self, other: "QuadraticForm") -> "QuadraticForm":
        """Add two forms of the same inputs."""
        if not isinstance(other, QuadraticForm):
            return NotImplemented
        if other.in_features != self.in_features:
            raise ValueError(
                f"cannot add forms of {self.in_features} and {other.in_features} inputs"
            )
        return QuadraticForm(
            torch.cat([self.left, other.left]),
            torch.cat([self.right, other.right]),
            torch.cat([self.weight, other.weight]),
            self.linear + other.linear,
            self.constant + other.constant,
        )

    def __rmul__(self, scale: float) -> "QuadraticForm":
        """Multiply the form by a number."""
        return QuadraticForm(
            self.left, self.right, scale * self.weight, scale * self.linear, scale * self.constant
        )

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        if x.ndim == 0 or x.shape[-1] != self.in_features or not x.is_floating_point():
            raise ValueError(
                f"expected floating-point x (..., {self.in_features}), "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )
        return (
            self.left.to(x),
            self.right.to(x),
            self.weight.to(x),
            self.linear.to(x),
            self.constant.to(x),
        )

    def _core(self) -> tuple[Tensor, Tensor, float]:
        """Orthonormal basis Z and core C with ``Q = Z C Zᵀ``, and the core's rounding error."""
        used = self.weight != 0
        left, right = to_double(self.left[used]), to_double(self.right[used])
        weight = to_double(self.weight[used])
        factors = torch.cat([left, right]).T
        if factors.shape[1] < factors.shape[0]:
            basis, corner = torch.linalg.qr(factors)
        else:
            basis, corner = torch.eye(len(factors)).to(factors), factors
        corner_left, corner_right = corner.tensor_split(2, dim=1)
        half = (corner_left * weight) @ corner_right.T
        scale = (weight * left.norm(dim=1) * right.norm(dim=1)).norm()
        tolerance = max(factors.shape) * torch.finfo(torch.float64).eps * scale.item()
        return basis, (half + half.T) / 2, tolerance


def fix_signs(vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Return the rows with the sign that makes their entry of largest magnitude positive."""
    return vectors * sign_gauge(vectors)


def sign_gauge(vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k 1"]:
    """Return the sign of each row's entry of largest magnitude (the first of equal ones)."""
    size = vectors.abs()
    largest = size >= (1 - 1e-9) * size.amax(1, keepdim=True)
    return vectors.gather(1, largest.int().argmax(1, keepdim=True)).sign()


def to_double(tensor: Tensor) -> Tensor:
    """Copy to float64, detached; on the CPU when the device has no float64 (Apple's mps)."""
    if tensor.device.type == "mps":
        tensor = tensor.detach().cpu()
    return tensor.detach().to(torch.float64, copy=True)


def as_direction(direction: Tensor, size: int, of: str) -> Float[Tensor, "size"]:
    """Check a direction and return it in float64.

    Args:
        direction: a vector of ``size`` numbers.
        size: how many numbers are expected.
        of: what is counted ("output channels"), for the message.

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    direction = to_double(torch.as_tensor(direction))
    if direction.shape != (size,):
        raise ValueError(
            f"expected a direction of shape ({size},), one number for each of the {of}; "
            f"got shape {tuple(direction.shape)}"
        )
    if not torch.isfinite(direction).all():
        raise ValueError("expected a direction of finite numbers, got nan or infinity")
    return direction
