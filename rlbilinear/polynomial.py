"""The best polynomial approximation of a network, in closed form, of any degree, in factors.

For Gaussian inputs the least-squares polynomial of degree n is the network's Hermite (Wick)
expansion cut after order n: no normal equations, one term for each order, orders uncorrelated. A
hidden unit is a function of ``t = (w.x + b - m) / s``, a standard normal number, so every order is
a Hermite polynomial of ``t`` and the approximant costs what the network costs.

Formulas: Isserlis and Stein for the moments; the design's maths page, section 6.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear import coefficients, evaluation, explained
from rlbilinear.convolution import Eigenfilters
from rlbilinear.moments import check_degree
from rlbilinear.polynomial_terms import Expansion, PolynomialTerms
from rlbilinear.quadratic import QuadraticForm


@dataclass(frozen=True, eq=False)
class Polynomial(PolynomialTerms):
    """A polynomial in factors: hidden units, one polynomial of one number for each.

    ``x -> down (sum_n values_n he_n(t) + sum_n products_n he_n(t) xi) + bias``

    with the orthonormal Hermite polynomials ``he_n = He_n / sqrt(n!)``. Of a convolution it is a
    function of images, and everything but the call itself is about a receptive field, flattened
    from ``(channels, height, width)``. Made by `approximate`, read back by `load_polynomial`.
    """

    def __repr__(self) -> str:
        """Say what it is, without its numbers."""
        kind = "" if self.geometry is None else f", patches {self.geometry.receptive}"
        return (
            f"Polynomial(degree={self.degree}, {self.in_features} -> {self.out_features}, "
            f"{self.values.shape[1]} units of {self.activation or 'unknown activation'}{kind})"
        )

    # Values

    def __call__(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Evaluate it, in the dtype and on the device of ``x``; images for a convolution.

        Raises:
            ValueError: ``x`` is not floating-point or not of the shape of the network's inputs.
        """
        p = evaluation.like(self, x)
        hidden, size = evaluation.hidden_orders(p, x)
        total = next(hidden)
        for order in hidden:
            total = total + order
        return evaluation.outputs(p, total, size, constant=True)

    def orders(
        self, x: Float[Tensor, "*batch inputs"]
    ) -> Iterator[Float[Tensor, "*batch outputs"]]:
        """Yield the terms of each order at ``x``, from 0 to the degree: they add up to the value.

        Uncorrelated under the Gaussian, but for what zero padding does at an image's border.
        """
        return evaluation.orders(self, x)

    def network(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Evaluate the network that is approximated, from the same weights.

        Raises:
            ValueError: its function is not known any more (loaded from a file that could not hold
                it, or the fit of a mixture).
        """
        return evaluation.network(self, x)

    def truncate(self, degree: int) -> "Polynomial":
        """Keep the orders up to ``degree``: the best polynomial of that degree.

        Raises:
            ValueError: ``degree`` is not a whole number from 0 to the present one.
        """
        check_degree(degree)
        if degree > self.degree:
            raise ValueError(f"degree: at most {self.degree}, got {degree}")
        own, best = (
            of
            and Expansion(
                of.values[: degree + 1], None if of.products is None else of.products[:degree]
            )
            for of in (Expansion(self.values, self.products), self.best)
        )
        assert own is not None
        return replace(
            self,
            values=own.values,
            products=own.products,
            best=best,
            known_variance=self.__dict__.get("variance", self.known_variance),
        )

    def to(self, device: torch.device | str) -> "Polynomial":
        """Return it on a device."""
        return self.with_tensors({k: v.to(device) for k, v in self.tensors().items()})

    # Coefficients

    def coefficients(self, n: int) -> Float[Tensor, "outputs *inputs"]:
        """Build the symmetric tensor of order ``n``: for small inputs.

        It multiplies the Wick power ``:(x - mean)^n:`` (for n = 2, ``(x - mean)(x - mean)ᵀ -
        covariance``), so that it does not depend on the degree of the polynomial: 0 is the mean
        output, 1 the regression coefficients, 2 the matrices ``Gamma``.

        Returns:
            A tensor (outputs, inputs, ..., inputs) with ``n`` axes of inputs, in float64.

        Raises:
            ValueError: ``n`` is above the degree, or the tensor would have over 2^28 numbers.
        """
        return coefficients.coefficients(self, n)

    def quadratic_form(self, direction: Float[Tensor, "outputs"]) -> QuadraticForm:
        """Return ``x -> direction . polynomial(x)`` exactly, linear and constant parts included.

        Of a convolution, it is a form of the receptive field.

        Raises:
            ValueError: the degree is above two (truncate it), or the direction is not
                ``(outputs,)`` or not finite.
        """
        return coefficients.quadratic_form(self, direction)

    def eigenfilters(
        self, direction: Float[Tensor, "outputs"], k: int | None = None
    ) -> Eigenfilters:
        """Decompose a channel direction of a convolution's quadratic into eigenfilters.

        They cover the receptive field. After one convolution they are exact everywhere; after two,
        where the hidden positions lie on the map (the second one's zero padding is not theirs).

        Raises:
            TypeError: the polynomial is not of a convolution.
            ValueError: as `quadratic_form`, or k is negative.
        """
        return coefficients.eigenfilters(self, direction, k)

    # Variance explained

    @cached_property
    def variance(self) -> Float[Tensor, "outputs"]:
        """The network's variance under the Gaussian, for each output."""
        return explained.total_variance(self)

    @cached_property
    def _r2_orders(self) -> Float[Tensor, "orders outputs"]:
        return explained.explained_shares(self, self.variance)

    @property
    def r2_by_order(self) -> Float[Tensor, "degree outputs"]:
        """The share of each output's variance that is in orders 1, 2, ..., under the Gaussian.

        NaN for an output that does not vary. See `r2_on` for the same on real inputs. Of a
        `refit` polynomial, what each order takes off the squared error: perhaps a negative share,
        and an error of the mean counts in `r2` alone.
        """
        return self._r2_orders[1:]

    @property
    def r2(self) -> Float[Tensor, "outputs"]:
        """The share of each output's variance that is explained, under the Gaussian: centred."""
        return self._r2_orders.sum(0)

    def measured_r2(
        self,
        inputs: Float[Tensor, "*batch inputs"] | Iterable[Float[Tensor, "*batch inputs"]],
        network: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "outputs"]:
        """Return the share of each output's variance that is explained on real inputs: centred.

        Args:
            inputs: in one tensor, or in batches read once; images for a convolution, whose
                places count as samples.
            network: what is approximated; read back from the factors when None.

        Raises:
            ValueError: fewer than two samples, or the network is needed and not given.
        """
        return explained.measured_r2(self, inputs, network)[-1]

    def r2_on(
        self,
        inputs: Float[Tensor, "*batch inputs"] | Iterable[Float[Tensor, "*batch inputs"]],
        network: Callable[[Tensor], Tensor] | None = None,
    ) -> explained.R2:
        """Return both R² of every degree up to this one: under the Gaussian, and on real inputs.

        How far they are apart says how far the inputs are from the Gaussian. Arguments and errors
        as for `measured_r2`.
        """
        by_degree = self._r2_orders.cumsum(0)
        return explained.R2(by_degree, explained.measured_r2(self, inputs, network))
