"""Quadratic forms kept in factors: what a bilinear layer computes along one output direction."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.checks import as_numbers, check_whole
from rlbilinear.factors import KRYLOV_SHARE, Factors
from rlbilinear.lanczos import lanczos
from rlbilinear.spectrum import Spectrum, as_double, rounding, to_double

Method = Literal["auto", "exact", "lanczos"]
"""How eigenpairs are found: `QuadraticForm.eigh` says what each does."""

CORES_BELOW = 8192
"""Size below which auto builds the core: with 4096 inputs and 16384 hidden units, Lanczos took a
third of the time on the core that it took on products with the factors."""


class TruncationError(NamedTuple):
    """How far a form is from its best one of some rank: norms of the matrices' difference."""

    frobenius: float
    spectral: float
    """also the largest change of the form's value on any x of norm 1"""


@dataclass(frozen=True, eq=False)
class QuadraticForm:
    """The function ``x -> sum_r weight_r (left_r . x)(right_r . x) + linear . x + constant``.

    Its matrix is ``Q = sum_r weight_r sym(left_r right_rᵀ)``, of rank at most ``2 * hidden``. No
    method but `matrix` builds anything of size ``inputs²`` while ``2 * hidden`` is well below
    ``inputs`` (`factors.THIN`).
    Forms of the same inputs add and scale: ``a + b``, ``a - b``, ``2.0 * a``.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    left: Float[Tensor, "hidden inputs"]
    right: Float[Tensor, "hidden inputs"]
    weight: Float[Tensor, "hidden"]
    linear: Float[Tensor, "inputs"]
    constant: Float[Tensor, ""]

    def __post_init__(self) -> None:
        parts = (self.left, self.right, self.weight, self.linear, self.constant)
        if other := [type(part).__name__ for part in parts if not isinstance(part, Tensor)]:
            raise TypeError(f"a quadratic form is made of tensors, got {other[0]}")
        given = [tuple(t.shape) for t in (self.left, self.right, self.weight, self.linear)]
        fits = self.left.ndim == 2 and given[1:] == [given[0], given[0][:1], given[0][1:]]
        if not fits or self.constant.ndim:
            raise ValueError(
                "expected left (hidden, inputs), right (hidden, inputs), weight (hidden,), linear "
                f"(inputs,), constant (); got {given} and {tuple(self.constant.shape)}"
            )

    @classmethod
    def affine(
        cls, linear: Float[Tensor, "inputs"], constant: float | Tensor = 0.0
    ) -> "QuadraticForm":
        """Return the form ``linear . x + constant``, in float64: its quadratic part is zero."""
        linear = to_double(linear)
        factors = linear.new_zeros(0, len(linear))
        return cls(
            factors, factors, factors[:, 0], linear, torch.as_tensor(constant).detach().to(linear)
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
        """Return the gradient ``2 Q x + linear``, in the dtype and on the device of ``x``.

        Halfway between two inputs it is exact for their difference:
        ``form(b) - form(a) = form.gradient((a + b) / 2) . (b - a)``.
        """
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
        factors, weight = self._factors()
        return factors.core(weight).norm()

    def inner(self, other: "QuadraticForm") -> Float[Tensor, ""]:
        """Return the Frobenius inner product of the two matrices, from products of factors.

        Raises:
            ValueError: the forms have not as many inputs.
        """
        self._check_inputs(other)
        if self.in_features < min(len(self.weight), len(other.weight)):
            return (self.matrix() * other.matrix()).sum()
        same = (self.left @ other.left.T) * (self.right @ other.right.T)
        crossed = (self.left @ other.right.T) * (self.right @ other.left.T)
        return self.weight @ (same + crossed) @ other.weight / 2

    def cosine(self, other: "QuadraticForm") -> Float[Tensor, ""]:
        """Return the cosine of the angle between the two matrices; NaN where one is zero.

        Raises:
            ValueError: the forms have not as many inputs.
        """
        return self.inner(other) / (self.norm * other.norm)

    @property
    def rank(self) -> int:
        """The numerical rank of ``Q``: eigenvalues above the rounding error of the factors."""
        return self.numerical_rank()

    def numerical_rank(self, tolerance: float = 0.0) -> int:
        """Count the eigenvalues above the factors' rounding error and a share of the largest.

        Args:
            tolerance: the share: eigenvalues up to ``tolerance * max |eigenvalue|`` count as zero.

        Raises:
            ValueError: the tolerance is not in 0 to 1.
        """
        if not 0 <= tolerance <= 1:
            raise ValueError(f"expected a tolerance from 0 to 1, got {tolerance}")
        sizes = self._sizes()
        return int((sizes > tolerance * sizes.amax()).sum()) if len(sizes) else 0

    def eigh(
        self,
        k: int | None = None,
        *,
        method: Method = "auto",
        dtype: torch.dtype = torch.float64,
    ) -> Spectrum:
        """Decompose ``Q``, in float64 unless asked for float32.

        ``exact``: with ``[left; right]ᵀ = Z R`` (thin QR) the eigenvalues of ``Q`` are those of the
        ``2 hidden x 2 hidden`` core ``R S Rᵀ``, ``S = [[0, D], [D, 0]] / 2``, ``D = diag(weight)``,
        and the eigenvectors are ``Z`` times the core's (with many hidden units, ``Q`` itself).

        ``lanczos``: the k largest from products ``Q x`` alone, to the same accuracy, in the memory
        of about ``2 k`` vectors: for so many inputs and hidden units that a core is too much.

        ``auto``: all pairs, or a large share, as ``exact``; few of many by Lanczos, on the core as
        long as that is small.

        Args:
            k: at most so many pairs, the largest; every pair up to the numerical rank when None.
            method: ``exact``, ``lanczos`` (for fewer pairs than inputs; all pairs of so few inputs
                come from the core), or ``auto``.
            dtype: of the pairs, and of the computation where it is dense: ``torch.float64`` or
                ``torch.float32``, which takes half the time.

        Raises:
            ValueError: ``k`` is not a whole number from 0 on, another method or dtype, or Lanczos
                without a ``k``.
            RuntimeError: Lanczos did not converge.
        """
        check_pairs(k, dtype)
        if method not in ("auto", "exact", "lanczos"):
            raise ValueError(f"unknown method {method!r}; choose from auto, exact, lanczos")
        if method == "lanczos" and k is None:
            raise ValueError("Lanczos finds the k largest eigenpairs: expected a k")
        size = min(self.in_features, 2 * len(self.weight))
        if method == "auto" and k is not None and size >= CORES_BELOW and KRYLOV_SHARE * k <= size:
            method = "lanczos"
        if method == "lanczos" and k is not None and k + 1 < self.in_features:
            return self._lanczos(k, dtype)
        factors, weight = self._factors(dtype)
        return factors.spectra(weight[None], k, dense=method == "exact")[0]

    def truncate(self, k: int) -> "QuadraticForm":
        """Keep the ``k`` largest eigenpairs: the best form of that rank; the rest of it stays."""
        values, vectors = self.eigh(k)
        return QuadraticForm(vectors, vectors, values, self.linear, self.constant)

    def truncation_error(self, k: int) -> TruncationError:
        """Return the norms of what `truncate` to ``k`` eigenpairs drops, exactly.

        Raises:
            ValueError: ``k`` is negative.
        """
        check_whole(0, k=k)
        dropped = self._sizes()[k:]
        return TruncationError(dropped.norm().item(), dropped[:1].sum().item())

    def pullback(
        self, matrix: Float[Tensor, "inputs new"], offset: Float[Tensor, "inputs"] | None = None
    ) -> "QuadraticForm":
        """Change the basis: return the form ``z -> self(matrix @ z + offset)``, exactly.

        The factors meet the matrix, the offset goes into the linear and constant parts.

        Raises:
            ValueError: the matrix is not ``(inputs, new)``, or the offset not ``(inputs,)``.
        """
        matrix, offset = as_affine_map(matrix, offset, like=self.left)
        return QuadraticForm(
            self.left @ matrix,
            self.right @ matrix,
            self.weight,
            self.gradient(offset) @ matrix,
            self(offset),
        )

    def restrict(self, basis: Float[Tensor, "k inputs"]) -> "QuadraticForm":
        """Restrict the form to a subspace: return ``z -> self(basisᵀ z)``.

        Args:
            basis: vectors that span the subspace; ``z`` are the coordinates in them.

        Raises:
            ValueError: the basis is not ``(k, inputs)``.
        """
        if basis.ndim != 2 or basis.shape[1] != self.in_features:
            raise ValueError(f"expected (k, {self.in_features}), got {tuple(basis.shape)}")
        return self.pullback(basis.T)

    def __add__(self, other: "QuadraticForm") -> "QuadraticForm":
        """Add two forms of the same inputs."""
        if not isinstance(other, QuadraticForm):
            return NotImplemented
        self._check_inputs(other)
        return QuadraticForm(
            torch.cat([self.left, other.left]),
            torch.cat([self.right, other.right]),
            torch.cat([self.weight, other.weight]),
            self.linear + other.linear,
            self.constant + other.constant,
        )

    def __sub__(self, other: "QuadraticForm") -> "QuadraticForm":
        """Subtract a form of the same inputs."""
        return self + -other if isinstance(other, QuadraticForm) else NotImplemented

    def __neg__(self) -> "QuadraticForm":
        """Return the form with the other sign."""
        return -1.0 * self

    def __rmul__(self, scale: float) -> "QuadraticForm":
        """Multiply the form by a number."""
        return QuadraticForm(
            self.left, self.right, scale * self.weight, scale * self.linear, scale * self.constant
        )

    def _check_inputs(self, other: "QuadraticForm") -> None:
        if other.in_features != self.in_features:
            raise ValueError(
                f"the forms have {self.in_features} and {other.in_features} inputs: "
                "expected as many"
            )

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        if not isinstance(x, Tensor):
            raise TypeError(f"expected a tensor x (..., {self.in_features}), got {x!r}")
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

    def _used(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the factors and weights of units with a weight, in float64."""
        used = self.weight != 0
        which = slice(None) if used.all() else used  # a slice copies nothing
        left, right, weight = (as_double(t[which]) for t in (self.left, self.right, self.weight))
        return left, right, weight

    def _factors(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Factors, Float[Tensor, "hidden"]]:
        left, right, weight = self._used()
        return Factors.of(left, right, dtype=dtype), weight

    def _sizes(self) -> Float[Tensor, "rank"]:
        """Return the ``|eigenvalues|``, descending."""
        factors, weight = self._factors()
        return factors.sizes(weight)

    def _lanczos(self, k: int, dtype: torch.dtype) -> Spectrum:
        left, right, weight = self._used()

        def apply(x: Float[Tensor, "inputs"]) -> Float[Tensor, "inputs"]:
            return (left.T @ (weight * (right @ x)) + right.T @ (weight * (left @ x))) / 2

        scale = (weight * left.norm(dim=1) * right.norm(dim=1)).norm()
        tolerance = rounding(max(self.in_features, 2 * len(weight)), scale).item()
        found = lanczos(apply, self.in_features, k, tolerance=tolerance, like=weight)
        return Spectrum(*(each.to(dtype) for each in found))


def check_pairs(k: int | None, dtype: torch.dtype) -> None:
    """Refuse a number of eigenpairs, or a dtype of theirs, that there is not.

    Raises:
        ValueError: ``k`` is not a whole number from 0 on, or ``dtype`` neither float64 nor float32.
    """
    if k is not None:
        check_whole(0, k=k)
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(f"expected dtype torch.float64 or torch.float32, got {dtype}")


def as_direction(direction: Tensor, size: int, of: str) -> Float[Tensor, "size"]:
    """Check a direction and return it in float64.

    Args:
        direction: a vector of ``size`` numbers.
        size: how many numbers are expected.
        of: what is counted ("output channels"), for the message.

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    direction = to_double(as_numbers(direction, "a direction"))
    if direction.shape != (size,):
        raise ValueError(
            f"expected a direction of shape ({size},), one number for each of the {of}; "
            f"got shape {tuple(direction.shape)}"
        )
    if not torch.isfinite(direction).all():
        raise ValueError("expected a direction of finite numbers, got nan or infinity")
    return direction


def as_directions(directions: Tensor | None, size: int, of: str) -> Float[Tensor, "n size"]:
    """Check several directions and return them in float64; each output's own when None.

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    if directions is None:
        return torch.eye(size, dtype=torch.float64)
    directions = as_numbers(directions, "directions")
    if directions.ndim != 2:
        raise ValueError(
            f"expected directions of shape (n, {size}), got shape {tuple(directions.shape)}"
        )
    rows = [as_direction(direction, size, of) for direction in directions]
    return torch.stack(rows) if rows else to_double(directions)


def as_affine_map(
    matrix: Tensor, offset: Tensor | None, *, like: Float[Tensor, "_ inputs"]
) -> tuple[Float[Tensor, "inputs new"], Float[Tensor, "inputs"]]:
    """Check a map ``z -> matrix @ z + offset`` to the inputs of factors, and make it like them.

    Raises:
        ValueError: the matrix is not ``(inputs, new)``, or the offset not ``(inputs,)``.
    """
    inputs = like.shape[1]
    if matrix.ndim != 2 or len(matrix) != inputs:
        raise ValueError(f"expected a matrix ({inputs}, new), got {tuple(matrix.shape)}")
    if offset is not None and offset.shape != (inputs,):
        raise ValueError(f"expected an offset ({inputs},), got {tuple(offset.shape)}")
    offset = like.new_zeros(inputs) if offset is None else offset.detach().to(like)
    return matrix.detach().to(like), offset
