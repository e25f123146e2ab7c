"""The data of a polynomial in factors: hidden units, and a polynomial of one number for each."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from rlbilinear.gaussian import Gaussian, LowRankCovariance
from rlbilinear.moments import Activation
from rlbilinear.one_hidden_layer import ConvGeometry

_FACTORS = ("values", "products", "down", "bias")


@dataclass(frozen=True, eq=False)
class Factor:
    """The linear factor of gated units, ``mean + slope t + xi``.

    ``xi = weight x - shift - slope t`` is what it has beyond the unit's ``t``: of mean zero, and
    uncorrelated with it.
    """

    weight: Float[Tensor, "hidden patch"]
    shift: Float[Tensor, "units"]
    mean: Float[Tensor, "units"]
    slope: Float[Tensor, "units"]


@dataclass(frozen=True, eq=False)
class Units:
    """Hidden units seen from the Gaussian, and their linear factor where they are gated.

    ``t = (weight x - shift) inverse_std`` has mean zero and variance one; it is zero for a unit
    that does not vary.
    """

    weight: Float[Tensor, "hidden patch"]
    shift: Float[Tensor, "units"]
    mean: Float[Tensor, "units"]
    """mean of ``weight x + bias``"""
    std: Float[Tensor, "units"]
    factor: Factor | None = None

    @property
    def inverse_std(self) -> Float[Tensor, "units"]:
        """One over the width; zero for a unit that does not vary."""
        return torch.where(self.std > 0, 1 / self.std, 0.0)


class Expansion(NamedTuple):
    """Hermite coefficients of units: ``sum_n values_n he_n(t) + products_n he_n(t) xi``."""

    values: Float[Tensor, "orders units"]
    products: Float[Tensor, "orders units"] | None


@dataclass(frozen=True, eq=False)
class PolynomialTerms:
    """``x -> down (sum_n values_n he_n(t) + sum_n products_n he_n(t) xi) + bias``, as data.

    `rlbilinear.polynomial.Polynomial` is one with everything that can be asked of it.
    """

    units: Units
    values: Float[Tensor, "orders units"]
    products: Float[Tensor, "factor_orders units"] | None
    """for gated units; the term of row n is of order n + 1"""
    down: Float[Tensor, "outputs units"] | None
    bias: Float[Tensor, "outputs"]
    gaussian: Gaussian
    geometry: ConvGeometry | None
    activation: Activation | None
    """the network's own; None when its function is not known any more"""
    known_variance: Float[Tensor, "outputs"] | None = None
    """the network's variance for each output, where it was computed before"""
    best: Expansion | None = None
    """the values and products that are best under the Gaussian, where these are others"""

    @property
    def degree(self) -> int:
        """The highest order."""
        return len(self.values) - 1

    @property
    def in_features(self) -> int:
        """The number of inputs; of a convolution, the numbers in a receptive field."""
        return len(self.gaussian.mean)

    @property
    def out_features(self) -> int:
        """The number of outputs; of a convolution, its channels."""
        return len(self.bias)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor it is made of, by name."""
        covariance = self.gaussian.covariance
        found: dict[str, Tensor | None] = {
            f"units.{k}": v for k, v in vars(self.units).items() if k != "factor"
        }
        if self.units.factor is not None:
            found |= {f"factor.{k}": v for k, v in vars(self.units.factor).items()}
        found |= {k: getattr(self, k) for k in (*_FACTORS, "known_variance")}
        if self.best is not None:
            found |= {f"best.{k}": v for k, v in self.best._asdict().items()}
        found["mean"] = self.gaussian.mean
        if isinstance(covariance, LowRankCovariance):
            found["covariance.factor"] = covariance.factor
            found["covariance.diagonal"] = torch.as_tensor(covariance.diagonal)
        else:
            found["covariance"] = covariance
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """Return it with these tensors in place of its own, named as `tensors` names them."""
        return self.from_tensors(tensors, self.geometry, self.activation)

    @classmethod
    def from_tensors(
        cls,
        tensors: dict[str, Tensor],
        geometry: ConvGeometry | None,
        activation: Activation | None,
    ) -> Self:
        """Put one together from what `tensors` gave."""
        units, factor, best = (
            {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}
            for part in ("units.", "factor.", "best.")
        )
        covariance = (
            LowRankCovariance(tensors["covariance.factor"], tensors["covariance.diagonal"])
            if "covariance.factor" in tensors
            else tensors["covariance"]
        )
        return cls(
            Units(**units, factor=Factor(**factor) if factor else None),
            **{k: tensors.get(k) for k in (*_FACTORS, "known_variance")},  # type: ignore[arg-type]
            gaussian=Gaussian(tensors["mean"], covariance),
            geometry=geometry,
            activation=activation,
            best=Expansion(best["values"], best.get("products")) if best else None,
        )

    def rows(self) -> tuple[Float[Tensor, "units inputs"], Float[Tensor, "units inputs"] | None]:
        """Return the vectors with ``t = rows . (x - mean)`` and, for gated units, ``xi``."""
        t = self.lay_out(self.units.weight) * self.units.inverse_std[:, None]
        factor = self.units.factor
        if factor is None:
            return t, None
        return t, self.lay_out(factor.weight) - factor.slope[:, None] * t

    def lay_out(self, weight: Float[Tensor, "hidden patch"]) -> Float[Tensor, "units inputs"]:
        """Return hidden weights as vectors over the inputs; of a convolution, the field's."""
        return weight if self.geometry is None else self.geometry.rows(weight)
