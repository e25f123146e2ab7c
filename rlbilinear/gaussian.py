"""The Gaussian an approximant is fitted under: given, or estimated in one pass over real inputs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.spectrum import to_double


@dataclass(frozen=True, eq=False)
class LowRankCovariance:
    """The covariance ``factor factorᵀ + diag(diagonal)``, never built.

    Raises:
        ValueError: the shapes do not fit, a number is not finite, or the diagonal is negative.
    """

    factor: Float[Tensor, "inputs rank"]
    diagonal: Float[Tensor, "inputs"] | float = 0.0

    def __post_init__(self) -> None:
        diagonal = torch.as_tensor(self.diagonal)
        if self.factor.ndim != 2 or diagonal.shape not in ((), self.factor.shape[:1]):
            raise ValueError(
                "covariance: expected a factor (inputs, rank) and a diagonal (inputs,) or a "
                f"number, got shapes {tuple(self.factor.shape)} and {tuple(diagonal.shape)}"
            )
        _check_finite("covariance", self.factor, diagonal)
        if (diagonal < 0).any():
            raise ValueError(f"covariance: the diagonal is negative ({diagonal.min().item():.4g})")

    @property
    def in_features(self) -> int:
        """The number of inputs."""
        return len(self.factor)


Covariance = Float[Tensor, "inputs inputs"] | Float[Tensor, "inputs"] | LowRankCovariance
"""A full matrix, the diagonal of one (variances), or a low-rank one."""


class Gaussian(NamedTuple):
    """Mean and covariance of inputs; unpacks: ``approximate(network, 2, *gaussian)``."""

    mean: Float[Tensor, "inputs"]
    covariance: Covariance

    def times(self, rows: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows inputs"]:
        """Return ``rows @ covariance``."""
        if isinstance(self.covariance, LowRankCovariance):
            factor = self.covariance.factor
            return rows @ factor @ factor.T + rows * self.covariance.diagonal
        if self.covariance.ndim == 1:
            return rows * self.covariance
        return rows @ self.covariance

    def cross(
        self, rows: Float[Tensor, "rows inputs"], others: Float[Tensor, "rows inputs"]
    ) -> Float[Tensor, "rows"]:
        """Return ``row . covariance . other`` of each pair of rows, by blocks of rows."""
        blocks = zip(rows.split(_ROWS), others.split(_ROWS), strict=True)
        return torch.cat([(self.times(a) * b).sum(1) for a, b in blocks])

    def variance(self, rows: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows"]:
        """Return the variance of ``row . x``: zero, exactly, where it is rounding error."""
        # (sum |w_j| sd_j)² bounds every partial sum of w Sigma w, hence its rounding error.
        sd = self.diagonal().sqrt()
        bound = torch.cat([(block.abs() @ sd) ** 2 for block in rows.split(_ROWS)])
        exact = self.cross(rows, rows)
        return torch.where(exact > 8 * torch.finfo(exact.dtype).eps * bound, exact, 0.0)

    def diagonal(self) -> Float[Tensor, "inputs"]:
        """Return the inputs' variances."""
        if isinstance(self.covariance, LowRankCovariance):
            return self.covariance.factor.square().sum(1) + self.covariance.diagonal
        return self.covariance if self.covariance.ndim == 1 else self.covariance.diagonal()

    def matrix(self) -> Float[Tensor, "inputs inputs"]:
        """Build the full covariance."""
        return self.times(torch.eye(len(self.mean)).to(self.mean))


_ROWS = 1024
"""rows multiplied by a covariance at once"""


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Inputs drawn from one of several Gaussians.

    Raises:
        ValueError: different numbers of weights and components, none, weights negative or not
            summing to one.
    """

    weights: tuple[float, ...]
    components: tuple[Gaussian, ...]

    def __post_init__(self) -> None:
        if not self.components or len(self.weights) != len(self.components):
            raise ValueError(
                "mixture: expected one weight for each component, at least one; got "
                f"{len(self.weights)} weights and {len(self.components)} components"
            )
        if not all(w >= 0 for w in self.weights) or abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(
                f"mixture: the weights must not be negative and sum to one, got {self.weights}"
            )


def as_gaussian(
    mean: Float[Tensor, "inputs"] | float | None,
    covariance: Covariance | float | None,
    inputs: int,
    device: torch.device,
) -> Gaussian:
    """Check a mean and covariance and return them in float64; the standard normal when None.

    Raises:
        TypeError: not numbers.
        ValueError: wrong shapes, not finite, not symmetric, not positive semi-definite; the
            message names the argument.
    """
    m = _as_double("mean", 0.0 if mean is None else mean, device)
    if m.shape not in ((), (inputs,)):
        raise ValueError(f"mean: expected shape ({inputs},), got {tuple(m.shape)}")
    _check_finite("mean", m)
    m = m.expand(inputs).clone()
    if isinstance(covariance, LowRankCovariance):
        if covariance.in_features != inputs:
            raise ValueError(
                f"covariance: expected {inputs} inputs, got a factor of {covariance.in_features}"
            )
        diagonal = _as_double("covariance", covariance.diagonal, device)
        factor = _as_double("covariance", covariance.factor, device)
        return Gaussian(m, LowRankCovariance(factor, diagonal.expand(inputs).clone()))
    c = _as_double("covariance", 1.0 if covariance is None else covariance, device)
    if c.shape not in ((), (inputs,), (inputs, inputs)):
        raise ValueError(
            f"covariance: expected a number, variances ({inputs},), a matrix ({inputs}, {inputs}) "
            f"or a LowRankCovariance, got shape {tuple(c.shape)}"
        )
    _check_finite("covariance", c)
    if c.ndim < 2:
        if (c < 0).any():
            raise ValueError(f"covariance: a variance is negative ({c.min().item():.4g})")
        return Gaussian(m, c.expand(inputs).clone())
    return Gaussian(m, _symmetric_semidefinite(c))


def _as_double(name: str, value: Tensor | float, device: torch.device) -> Tensor:
    try:
        tensor = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected numbers, got {value!r}") from None
    return tensor.detach().to(device, copy=True)


def _symmetric_semidefinite(c: Tensor) -> Tensor:
    off = (c - c.T).abs().amax() if c.numel() else c.new_zeros(())
    if off > 1e-5 * c.abs().amax():  # the rounding of a covariance estimated in float32
        raise ValueError(f"covariance: not symmetric, entries differ by {off.item():.4g}")
    c = (c + c.T) / 2
    slack = 1e-6 * c.diagonal().mean().clamp_min(0) + 1e-300
    shifted = c.clone()
    shifted.diagonal().add_(slack)
    if torch.linalg.cholesky_ex(shifted).info:  # ten times faster than eigenvalues
        lowest = torch.linalg.eigvalsh(c)[0].item()
        raise ValueError(
            f"covariance: not positive semi-definite, its lowest eigenvalue is {lowest:.4g}"
        )
    return c


def estimate_gaussian(
    batches: Iterable[Float[Tensor, "batch inputs"]] | Float[Tensor, "batch inputs"],
    covariance: Literal["full", "diagonal"] | int = "full",
) -> Gaussian:
    """Estimate mean and covariance in one pass, in float64, without holding the batches.

    Batches are merged by the update of Chan, Golub and LeVeque, which does not cancel when the
    mean is large. The covariance divides by the number of samples.

    Args:
        batches: real inputs, in one tensor or in several, of any sizes.
        covariance: "full"; "diagonal", variances only; or a rank, whose `LowRankCovariance` keeps
            the leading directions (an incremental singular value decomposition, in memory
            inputs x (rank + batch)) and puts what they leave of each variance on its diagonal.

    Raises:
        ValueError: no samples, shapes that differ, numbers that are not finite, or an unknown
            kind of covariance.
    """
    rank = covariance if isinstance(covariance, int) else 0
    if isinstance(covariance, bool) or rank < 0 or not (rank or covariance in ("full", "diagonal")):
        raise ValueError(
            f"covariance: expected 'full', 'diagonal' or a positive rank, got {covariance!r}"
        )
    count = 0
    mean = scatter = factor = torch.zeros(0)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches: expected tensors, got {type(batches).__name__}")
    for batch in [batches] if isinstance(batches, Tensor) else batches:
        if not isinstance(batch, Tensor):
            raise TypeError(f"batches: expected tensors, got {type(batch).__name__}")
        if batch.ndim != 2 or (count and batch.shape[1] != len(mean)):
            expected = len(mean) if count else "inputs"
            raise ValueError(f"batches: expected (batch, {expected}), got {tuple(batch.shape)}")
        if not len(batch):
            continue
        x = to_double(batch)
        _check_finite("batches", x)
        if not count:
            inputs = x.shape[1]
            mean = x.new_zeros(inputs)
            scatter = x.new_zeros((inputs, inputs) if covariance == "full" else (inputs,))
            factor = x.new_zeros(inputs, 0)
        here = x.mean(0)
        x = x - here
        shift = (here - mean) * (count * len(x) / (count + len(x))) ** 0.5
        rows = torch.cat([x, shift[None]])
        scatter = scatter + (rows.T @ rows if scatter.ndim == 2 else rows.square().sum(0))
        if rank:
            factor = _leading(torch.cat([factor, rows.T], 1), rank)
        count += len(x)
        mean = mean + (here - mean) * len(x) / count
    if not count:
        raise ValueError("batches: no samples to estimate from")
    if not rank:
        return Gaussian(mean, scatter / count)
    factor = factor / count**0.5
    left = (scatter / count - factor.square().sum(1)).clamp_min(0)
    return Gaussian(mean, LowRankCovariance(factor, left))


def _leading(columns: Float[Tensor, "inputs n"], rank: int) -> Float[Tensor, "inputs rank"]:
    """Return the best approximation of ``columns columnsᵀ`` of that rank, as a factor."""
    left, values, _ = torch.linalg.svd(columns, full_matrices=False)
    return (left * values)[:, :rank]


def _check_finite(name: str, *tensors: Tensor) -> None:
    if not all(torch.isfinite(t).all() for t in tensors):
        raise ValueError(f"{name}: expected finite numbers, got nan or infinity")
