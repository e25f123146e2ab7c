"""Identities of polynomial approximants, against quadrature, kernels and cubature.

A layer's ``left`` gives the first weights of the networks, and its inputs the Gaussian. Quadrature
is scipy's; expectations of whole networks are taken along two directions, in a product of
Gauss-Hermite nodes that is exact for the smooth ones.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch
from scipy import integrate, special, stats
from torch import Tensor, nn

from rlbilinear import BilinearConv2d, Polynomial, approximate, eigenfilters, estimate_gaussian
from rlbilinear.convert import to_module
from rlbilinear.moments import ACTIVATIONS, expand
from rlbilinear.one_hidden_layer import receptive_fields
from rlbilinear.testing.identities.identity import Identity, worst

DEGREE = 4
UNITS = 1
"""hidden units of which integrals are taken, for each layer"""


def _own_quadratic(layer: Any, x: Tensor) -> float:
    p = approximate(layer, 2, *_gaussian(layer, x))
    return max(worst(p(x), layer(x)), worst(p.r2.nan_to_num(1.0), torch.ones_like(p.r2)))


def _coefficients(layer: Any, x: Tensor) -> float:
    """Compare a unit's Hermite coefficients, of every activation, with scipy's integrals."""
    p = approximate((layer.left, "relu"), 0, *_gaussian(layer, x))
    m, s = p.units.mean[:UNITS], p.units.std[:UNITS]
    errors = []
    for activation in (make() for make in ACTIVATIONS.values()):
        found = expand(activation, m, s, DEGREE)

        def value(y: float, g: Any = activation) -> float:
            return float(g(torch.tensor([y], dtype=torch.float64))[0])

        expected = torch.zeros_like(found)
        for unit, n in itertools.product(range(len(m)), range(DEGREE + 1)):
            expected[n, unit] = _integral(value, n, m[unit].item(), s[unit].item())
        errors.append(worst(found, expected))
    return max(errors)


def _arc_cosine(layer: Any, x: Tensor) -> float:
    """Compare the variance of a ReLU network without biases with the arc-cosine kernel's."""
    covariance = _gaussian(layer, x).covariance
    weight = layer.left.weight.flatten(1)
    first = nn.Linear(weight.shape[1], len(weight), bias=False).to(x)
    last = nn.Linear(len(weight), 3).to(x)
    first.load_state_dict({"weight": weight})
    p = approximate((first, "relu", last), 1, None, covariance)
    second = weight @ covariance @ weight.T
    width = second.diagonal().sqrt()
    cosine = (second / (width[:, None] * width)).clamp(-1, 1)
    angle = cosine.arccos()
    products = (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi)
    moments = products * width[:, None] * width
    means = width / math.sqrt(2 * math.pi)
    kernel = moments - means[:, None] * means
    expected = ((last.weight @ kernel) * last.weight).sum(1)
    half = 0.5 * last.weight @ weight  # the regression of a ReLU network without biases
    return max(worst(p.variance, expected), worst(p.coefficients(1), half))


def _cubature(layer: Any, x: Tensor) -> float:
    """Compare coefficients and R² of a smooth network on a plane with weighted least squares."""
    plane = torch.randn(2, layer.left.weight[0].numel()).to(x)
    weight = layer.left.weight.flatten(1)[:5] @ plane.T
    first, last = nn.Linear(2, len(weight)).to(x), nn.Linear(len(weight), 2).to(x)
    with torch.no_grad():
        first.weight.copy_(weight / weight.norm())
    network = nn.Sequential(first, nn.GELU(), last)
    p = approximate(network, 2)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(160))
    points = torch.cartesian_prod(nodes, nodes)
    mass = torch.cartesian_prod(weights, weights).prod(1) / (2 * math.pi)
    a, b = points.T
    features = torch.stack([torch.ones_like(a), a, b, a * a, a * b, b * b], 1)
    root = mass.sqrt()[:, None]
    with torch.no_grad():
        y = network(points)
    solution = torch.linalg.lstsq(features * root, y * root).solution
    fitted = features @ solution
    whole, left = (mass @ (y - other) ** 2 for other in (mass @ y, fitted))
    # The series behind a variance stops at a share of its units' own, which may cancel in it.
    with torch.no_grad():
        hidden = network[:2](points)
    own = (mass @ (hidden - mass @ hidden) ** 2).sqrt()
    scale = (last.weight.detach().abs() @ own) ** 2
    inner = mass > 1e-12
    return max(
        worst(p(points)[inner], fitted[inner]),
        ((p.variance - whole) / scale).abs().max().item(),
        ((p.r2 * p.variance - (whole - left)) / scale).abs().max().item(),
    )


def _of_degree(layer: Any, x: Tensor) -> float:
    """Compare a network of cubes with its approximant of degree three."""
    network = _network(layer, lambda y: y**3 - y)
    p = approximate(network, 3, *_gaussian(layer, x))
    return worst(p(x), p.network(x))


def _form(layer: Any, x: Tensor) -> float:
    """Compare a direction's form, of a convolution its eigenfilters, with the approximant."""
    p = _approximant(layer, x)
    u = torch.randn(p.out_features).to(x)
    y = torch.tensordot(p(x), u, dims=([1], [0]))
    if p.geometry is None:
        return worst(p.quadratic_form(u)(x), y)
    return worst(p.eigenfilters(u).total(x), y)


def _module(layer: Any, x: Tensor) -> float:
    """Compare the bilinear layer that an approximant is with it, and its eigenfilters."""
    p = _approximant(layer, x)
    module = to_module(p, torch.float64)
    error = worst(module(x), p(x))
    if not isinstance(module, BilinearConv2d):
        return error
    u = torch.randn(p.out_features).to(x)
    return max(error, worst(eigenfilters(module, u, 1).values, p.eigenfilters(u, 1).values))


def _orders(layer: Any, x: Tensor) -> float:
    """Compare orders with the Wick powers of their coefficients."""
    gaussian = _gaussian(layer, x)
    p = approximate(_network(layer, "silu"), 2, *gaussian)
    fields = _fields(layer, x)
    centred = fields - gaussian.mean
    second = torch.einsum("ni,oij,nj->no", centred, p.coefficients(2), centred)
    trace = torch.einsum("oij,ij->o", p.coefficients(2), gaussian.matrix())
    first = p.coefficients(0) + centred @ p.coefficients(1).T
    zero, one, two = (o if o.ndim == 2 else o.movedim(1, -1).flatten(0, -2) for o in p.orders(x))
    # side by side: of two observations the second order is zero
    return worst(torch.cat([zero + one, two], 1), torch.cat([first, second - trace], 1))


IDENTITIES = [
    Identity(name, of, error)
    for of in ("dense", "convolution")
    for name, error in (
        ("approximants: a bilinear layer is its own quadratic, R² 1", _own_quadratic),
        ("approximants: coefficients 0 to 4 of every activation, scipy", _coefficients),
        ("approximants: ReLU network's variance and slope, kernel", _arc_cosine),
        ("approximants: GELU network's fit and R², cubature", _cubature),
        ("approximants: degree 3 of a cubic network", _of_degree),
        ("approximants: orders are Wick powers of coefficients", _orders),
        ("approximants: a direction's form, eigenfilters", _form),
        ("approximants: as a bilinear layer", _module),
    )
]


def _gaussian(layer: Any, x: Tensor) -> Any:
    return estimate_gaussian(_fields(layer, x))


def _fields(layer: Any, x: Tensor) -> Tensor:
    return receptive_fields(layer, x) if x.ndim == 4 else x


def _network(layer: Any, activation: Any) -> tuple[Any, ...]:
    """Put a layer of the right kind after an activation after the layer's ``left``."""
    hidden = layer.left.weight.shape[0]
    last: nn.Module = nn.Linear(hidden, 3) if _is_dense(layer) else nn.Conv2d(hidden, 3, 1)
    return layer.left, activation, last.to(layer.left.weight)


def _approximant(layer: Any, x: Tensor) -> Polynomial:
    return approximate(_network(layer, "relu"), 2, *_gaussian(layer, x))


def _is_dense(layer: Any) -> bool:
    return not isinstance(layer, BilinearConv2d)


def _integral(function: Any, order: int, m: float, s: float) -> float:
    """``E he_order(Z) g(m + s Z)`` by scipy, in pieces."""
    bends = (np.array([-4, -1, 0, 1, 4.0]) - m) / s
    pieces = np.unique(np.concatenate([np.linspace(-12, 12, 7), bends[abs(bends) < 12]]))

    def integrand(z: float) -> float:
        value = function(m + s * z) * special.eval_hermitenorm(order, z)
        return float(value * stats.norm._pdf(z))

    total = sum(
        integrate.quad(integrand, low, high, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
        for low, high in itertools.pairwise(pieces)
    )
    return total / math.sqrt(math.factorial(order))
