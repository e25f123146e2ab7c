"""Fit the best polynomial to a network with one hidden layer, in closed form."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.evaluation import terms_and_units
from rlbilinear.explained import expansion
from rlbilinear.gaussian import Covariance, Gaussian, GaussianMixture, as_gaussian
from rlbilinear.moments import as_activation, check_degree
from rlbilinear.one_hidden_layer import HiddenLayer, Network, as_hidden_layer
from rlbilinear.polynomial import Polynomial
from rlbilinear.polynomial_terms import Expansion, Factor, Units


def approximate(
    network: Network,
    degree: int,
    mean: Float[Tensor, "inputs"] | float | None = None,
    covariance: Covariance | float | None = None,
    *,
    mixture: GaussianMixture | None = None,
) -> Polynomial:
    """Return the least-squares polynomial of a network with one hidden layer, in closed form.

    Args:
        network: dense, gated or convolutional; see `one_hidden_layer.ACCEPTED`. It is not kept.
        degree: degree of the polynomial, from 0 on.
        mean: mean of the inputs; zero when None. Of a convolution, of its receptive fields,
            flattened from (channels, height, width): see `receptive_fields`.
        covariance: of the inputs: a matrix, a vector of variances, one variance, or a
            `LowRankCovariance`; it may be singular. The identity when None.
        mixture: a mixture of Gaussians in place of mean and covariance; degree at most 1.

    Returns:
        The polynomial, with its R² under the Gaussian in ``.r2``; in float64, on the device of
        the network's weights.

    Raises:
        TypeError: the network is none of those accepted, or an argument is not numbers.
        ValueError: an argument that does not fit; the message names it.
    """
    check_degree(degree)
    layer = as_hidden_layer(network)
    if mixture is not None:
        if not isinstance(mixture, GaussianMixture):
            raise TypeError(f"mixture: expected a GaussianMixture, got {type(mixture).__name__}")
        if mean is not None or covariance is not None:
            raise ValueError("mixture: give either a mixture or a mean and covariance")
        return _approximate_mixture(layer, degree, mixture)
    gaussian = as_gaussian(mean, covariance, layer.inputs, layer.weight.device)
    return _approximate(layer, degree, gaussian)


def refit(
    polynomial: Polynomial,
    inputs: Float[Tensor, "*batch inputs"] | Iterable[Float[Tensor, "*batch inputs"]],
) -> Polynomial:
    """Fit every hidden unit's polynomial anew, by least squares on real inputs.

    A unit is a function of the one number ``t``, and under the Gaussian its Hermite expansion is
    its least-squares polynomial. Of real inputs with other tails it is not; its least squares on
    them takes the moments of ``t``, gathered in one pass. Units are fitted one by one and weighed
    as before, so that it costs no more than an evaluation; on Gaussian inputs it tends to the
    closed form.

    Args:
        polynomial: polynomial of any degree, of a network whose function it holds.
        inputs: in one tensor, or in batches read once; images for a convolution, whose hidden
            places count as samples.

    Returns:
        The polynomial with other ``values`` and ``products``. Its R² under the Gaussian is, in
        closed form, that of what it now is.

    Raises:
        ValueError: the network's function is not known, or there are no inputs.
    """
    if polynomial.activation is None:
        raise ValueError("polynomial: it does not hold the network's own function")
    moments: Tensor | float = 0.0
    wanted: Tensor | float = 0.0
    for x in inputs.split(1024) if isinstance(inputs, Tensor) else inputs:
        with torch.no_grad():
            terms, own = terms_and_units(polynomial, x)
        moments = moments + torch.einsum("niu,nju->uij", terms, terms)
        wanted = wanted + torch.einsum("niu,nu->ui", terms, own)
    if not isinstance(moments, Tensor) or not isinstance(wanted, Tensor):
        raise ValueError("inputs: expected at least one batch")
    # Moments of heavy tails differ by many orders of magnitude; a unit that does not vary has
    # some that are zero.
    size = moments.diagonal(dim1=1, dim2=2).sqrt()
    size = torch.where(size > 0, size, 1.0)
    scaled = moments / size[:, :, None] / size[:, None]
    inverse = torch.linalg.pinv(scaled, hermitian=True)
    found = torch.einsum("uij,uj->iu", inverse, wanted / size) / size.T
    orders = polynomial.degree + 1
    products = None if polynomial.products is None else found[orders:]
    best = polynomial.best or Expansion(polynomial.values, polynomial.products)
    return replace(polynomial, values=found[:orders], products=products, best=best)


def _approximate(layer: HiddenLayer, degree: int, gaussian: Gaussian) -> Polynomial:
    units = _units(layer, gaussian)
    values, products = expansion(layer.activation, units, degree)
    return Polynomial(
        units,
        values,
        products,
        layer.down,
        layer.down_bias,
        gaussian,
        layer.geometry,
        layer.activation,
    )


def _units(layer: HiddenLayer, gaussian: Gaussian) -> Units:
    taps = 1 if layer.geometry is None else layer.geometry.taps
    rows = layer.weight if layer.geometry is None else layer.geometry.rows(layer.weight)
    shift, std = rows @ gaussian.mean, gaussian.variance(rows).sqrt()
    units = Units(layer.weight, shift, shift + layer.bias.repeat_interleave(taps), std)
    if layer.value is None:
        return units
    value, value_bias = layer.value
    value_rows = value if layer.geometry is None else layer.geometry.rows(value)
    value_shift = value_rows @ gaussian.mean
    factor = Factor(
        value,
        value_shift,
        value_shift + value_bias.repeat_interleave(taps),
        gaussian.cross(rows, value_rows) * units.inverse_std,
    )
    return replace(units, factor=factor)


def _approximate_mixture(layer: HiddenLayer, degree: int, mixture: GaussianMixture) -> Polynomial:
    """Regress on the inputs: their covariance with the outputs, by the law of total covariance."""
    if degree > 1:
        raise ValueError(
            f"degree: a mixture of Gaussians has a closed form up to degree 1, got {degree}; "
            "approximate under one Gaussian, or under each component"
        )
    if layer.geometry is not None and layer.geometry.taps > 1:
        raise ValueError(
            "mixture: not for a convolution after a convolution; approximate under one Gaussian"
        )
    device = layer.weight.device
    weights = torch.tensor(mixture.weights, dtype=torch.float64, device=device)
    gaussians = [as_gaussian(*g, layer.inputs, device) for g in mixture.components]
    fits = [_approximate(layer, 1, g) for g in gaussians]
    output_means = torch.stack([fit.coefficients(0) for fit in fits])
    input_means = torch.stack([g.mean for g in gaussians])
    mean, output_mean = weights @ input_means, weights @ output_means
    between = input_means - mean
    covariance = (between.T * weights) @ between
    crossed = (between.T * weights) @ (output_means - output_mean)
    for weight, g, fit in zip(weights, gaussians, fits, strict=True):
        covariance += weight * g.matrix()
        crossed += weight * g.times(fit.coefficients(1)).T
    beta = (torch.linalg.pinv(covariance, hermitian=True) @ crossed).T
    variance = weights @ torch.stack([fit.variance for fit in fits])
    variance = variance + weights @ (output_means - output_mean) ** 2
    linear = replace(
        layer,
        weight=beta,
        bias=output_mean - beta @ mean,
        activation=as_activation("identity"),
        value=None,
        down=None,
        down_bias=torch.zeros_like(output_mean),
    )
    fitted = _approximate(linear, degree, Gaussian(mean, covariance))
    return replace(fitted, activation=None, known_variance=variance)
