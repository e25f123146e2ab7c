"""Coefficients of a polynomial in factors, and the forms of its quadratic."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.convolution import Eigenfilters
from rlbilinear.moments import check_degree, sqrt_factorials
from rlbilinear.polynomial_terms import PolynomialTerms
from rlbilinear.quadratic import QuadraticForm, as_direction


class UnitQuadratics(NamedTuple):
    """Every unit's polynomial in ``y = w.x`` and ``z = v.x``: one number for each unit."""

    squares: Float[Tensor, "units"]
    """of ``y²``"""
    crossed: Float[Tensor, "units"]
    """of ``y z``"""
    linear: Float[Tensor, "units"]
    """of ``y``"""
    factor: Float[Tensor, "units"]
    """of ``z``"""
    constant: Float[Tensor, "units"]


def coefficients(p: PolynomialTerms, n: int) -> Float[Tensor, "outputs *inputs"]:
    """Build the symmetric tensor of order ``n``, as `Polynomial.coefficients` says."""
    check_degree(n)
    if n > p.degree:
        raise ValueError(f"n: at most the degree {p.degree}, got {n}")
    if p.out_features * p.in_features**n > 2**28:
        raise ValueError(
            f"n: the coefficients of order {n} of {p.in_features} inputs and "
            f"{p.out_features} outputs are too many to build; "
            "use quadratic_form, or evaluate the orders"
        )
    t, xi = p.rows()
    root = sqrt_factorials(max(n, 1), p.values)
    down = torch.eye(p.out_features).to(p.bias) if p.down is None else p.down
    total = _power_sum(down * (p.values[n] / root[n]), [t] * n)
    if xi is not None and p.products is not None and n:
        weight = down * (p.products[n - 1] / root[n - 1])
        # symmetric in the inputs: xi in each place in turn
        for place in range(n):
            factors = [t] * n
            factors[place] = xi
            total = total + _power_sum(weight / n, factors)
    return total + p.bias if n == 0 else total


def quadratic_form(p: PolynomialTerms, direction: Float[Tensor, "outputs"]) -> QuadraticForm:
    """Return ``x -> direction . p(x)``, as `Polynomial.quadratic_form` says."""
    if p.degree > 2:
        raise ValueError(
            f"a polynomial of degree {p.degree} is not a quadratic form; "
            "take .truncate(2).quadratic_form(direction), the best quadratic"
        )
    direction = as_direction(direction, p.out_features, "outputs").to(p.bias)
    weight = direction if p.down is None else direction @ p.down
    squares, crossed, linear, factor, constant = (weight * c for c in unit_quadratics(p))
    w = p.lay_out(p.units.weight)
    if p.units.factor is None:
        left, right, r = w, w, squares
        line = linear @ w
    else:
        v = p.lay_out(p.units.factor.weight)
        left, right = torch.cat([w, w]), torch.cat([w, v])
        r = torch.cat([squares, crossed])
        line = linear @ w + factor @ v
    used = r != 0
    return QuadraticForm(
        left[used], right[used], r[used], line, constant.sum() + direction @ p.bias
    )


def eigenfilters(
    p: PolynomialTerms, direction: Float[Tensor, "outputs"], k: int | None
) -> Eigenfilters:
    """Decompose a channel direction, as `Polynomial.eigenfilters` says."""
    g = p.geometry
    if g is None:
        raise TypeError("a dense polynomial has no eigenfilters; take quadratic_form().eigh()")
    form = quadratic_form(p, direction)
    values, vectors = form.eigh(k)
    field = (g.channels, *g.receptive)
    return Eigenfilters(
        values,
        vectors.reshape(-1, *field),
        form.linear.reshape(field),
        form.constant,
        g.field_stride,
        (
            g.padding[0] + g.stride[0] * g.down_padding[0],
            g.padding[1] + g.stride[1] * g.down_padding[1],
        ),
        g.spread,
    )


def unit_quadratics(p: PolynomialTerms) -> UnitQuadratics:
    """Return the coefficients of every unit's polynomial, up to degree two."""
    u, zero = p.units, torch.zeros_like(p.values[0])
    a0, a1, a2 = [*p.values[:3], zero, zero][:3]
    b0, b1 = (zero, zero) if p.products is None else [*p.products[:2], zero, zero][:2]
    slope, c = (zero, zero) if u.factor is None else (u.factor.slope, u.factor.shift)
    # in t and zeta = z - c: a0 + a1 t + a2 (t² - 1) / sqrt 2 + (b0 + b1 t) (zeta - slope t)
    root = 2**-0.5
    tt, t, one = a2 * root - b1 * slope, a1 - b0 * slope, a0 - a2 * root
    k, m = u.inverse_std, u.shift
    return UnitQuadratics(
        squares=tt * k**2,
        crossed=b1 * k,
        linear=t * k - 2 * tt * k**2 * m - b1 * k * c,
        factor=b0 - b1 * k * m,
        constant=one - t * k * m + tt * (k * m) ** 2 + b1 * k * m * c - b0 * c,
    )


def _power_sum(down: Tensor, factors: list[Tensor]) -> Tensor:
    """Return ``sum_h down_oh factors_0h (x) factors_1h (x) ...``: (outputs, inputs, ...)."""
    total = down.T  # (units, outputs)
    for factor in factors[:-1]:
        total = (total[:, :, None] * factor[:, None, :]).flatten(1)
    if not factors:
        return total.sum(0)
    inputs = factors[0].shape[1]
    return (total.T @ factors[-1]).reshape(down.shape[0], *[inputs] * len(factors))
