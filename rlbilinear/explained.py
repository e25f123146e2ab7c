"""R² of approximants under the Gaussian: the share of the variance that each order explains.

Orders are uncorrelated, and those of two units meet only in the same order: with the correlation
``rho`` of their ``t``, ``E[he_n(t) he_n(t')] = rho^n``. So the variance of order n of output k is
``sum_hh' P_kh P_kh' c_n(h) c_n(h') rho_hh'^n / n!``, and the network's own is the sum over every
order, whose diagonal ``Var g(y_h)`` is an integral.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear import evaluation
from rlbilinear.moments import Activation, expand
from rlbilinear.polynomial_terms import Expansion, PolynomialTerms, Units
from rlbilinear.quadrature import adaptive_nodes, gaussian_nodes


class R2(NamedTuple):
    """Share of each output's variance explained by the best polynomial of each degree from 0 on.

    Centred, output by output; NaN for an output that does not vary. ``measured`` may be negative:
    no least squares was done on those inputs.
    """

    gaussian: Float[Tensor, "orders outputs"]
    """in closed form, under the Gaussian"""
    measured: Float[Tensor, "orders outputs"]
    """on the inputs given"""

    def table(self) -> pd.DataFrame:
        """Return a row for each output and degree: output, degree, gaussian_r2, measured_r2."""
        orders, outputs = self.gaussian.shape
        return pd.DataFrame(
            {
                "output": np.tile(np.arange(outputs), orders),
                "degree": np.repeat(np.arange(orders), outputs),
                "gaussian_r2": self.gaussian.flatten().cpu().numpy(),
                "measured_r2": self.measured.flatten().cpu().numpy(),
            }
        )


def expansion(activation: Activation, units: Units, degree: int) -> Expansion:
    """Expand ``g(m + s t) (factor.mean + slope t + xi)`` up to ``degree``, orthonormal.

    From ``t he_n = sqrt(n + 1) he_{n+1} + sqrt(n) he_{n-1}``; one row of products less, as theirs
    are of one order more.
    """
    if units.factor is None:
        return Expansion(expand(activation, units.mean, units.std, degree), None)
    g = expand(activation, units.mean, units.std, degree + 1)
    n = torch.arange(degree + 1).to(g)[:, None]
    below = torch.cat([torch.zeros_like(g[:1]), g[:-2]])
    times_t = (n + 1).sqrt() * g[1:] + n.sqrt() * below
    values = units.factor.mean * g[:-1] + units.factor.slope * times_t
    return Expansion(values, g[:degree])


def explained_shares(
    p: PolynomialTerms, variance: Float[Tensor, "outputs"]
) -> Float[Tensor, "orders outputs"]:
    """Return what each order, from 0 on, takes off the expected squared error of each output.

    As a share of the output's variance; NaN for one that does not vary. Of the best coefficients
    ``a`` it is the share of the variance that is in the order. Others, ``c``, leave the variance of
    ``a - c`` besides; for order 0 its square.
    """
    varies = variance > 0
    p = _standardised(p, variance)
    own = Expansion(p.values, p.products)
    if p.best is None:
        return torch.where(varies, _order_variance(p, own), torch.nan)
    away = Expansion(
        p.best.values - own.values,
        None if p.best.products is None or own.products is None else p.best.products - own.products,
    )
    total = _order_variance(p, p.best) - _order_variance(p, away)
    shift = away.values[0] if p.down is None else p.down @ away.values[0]
    return torch.where(varies, torch.cat([-shift.square()[None], total[1:]]), torch.nan)


def _standardised(p: PolynomialTerms, variance: Float[Tensor, "outputs"]) -> PolynomialTerms:
    """Scale outputs to variance one and units to size one, as squares of far tails underflow."""
    width = torch.where(variance > 0, variance, 1.0).sqrt()
    if p.down is None:
        size, down = width, None
    else:
        size = p.values.abs().amax(0)
        size = torch.where(size > 0, size, 1.0)
        down = p.down * size / width[:, None]

    def scaled(of: Expansion) -> Expansion:
        return Expansion(of.values / size, None if of.products is None else of.products / size)

    own, best = scaled(Expansion(p.values, p.products)), None if p.best is None else scaled(p.best)
    return replace(p, values=own.values, products=own.products, best=best, down=down)


def _order_variance(p: PolynomialTerms, of: Expansion) -> Float[Tensor, "orders outputs"]:
    """Return the variance of each order of an expansion of the units, weighed; 0 of order 0."""
    degree = len(of.values) - 1
    variance = p.bias.new_zeros(degree + 1, p.out_features)
    if p.down is None:  # every output is one unit
        variance[1:] = _energy(p, of)[1:]
        return variance
    if degree:
        t, xi = p.rows()
        linear = (p.down * of.values[1]) @ t
        if xi is not None and of.products is not None:
            linear = linear + (p.down * of.products[0]) @ xi
        variance[1] = p.gaussian.cross(linear, linear)
    if degree > 1:
        for block in _blocks(p):
            for n, covariance in enumerate(block.orders(of, 2, degree), 2):
                variance[n] += _sandwich(p.down, block.start, covariance)
    return variance


def total_variance(p: PolynomialTerms) -> Float[Tensor, "outputs"]:
    """Return the variance of the network itself, for each output.

    That of each unit by quadrature; of two units the sum over orders, up to where what is left,
    at most ``|rho|^(n+1)`` times what the two units have left, is below 1e-10 of their own; pairs
    not settled by order 96, almost copies of each other, by quadrature in two dimensions.

    Raises:
        ValueError: the polynomial does not hold the network's function nor its variance.
    """
    if p.known_variance is not None:
        return p.known_variance
    if p.activation is None:
        raise ValueError("this polynomial holds neither the network's function nor its variance")
    own = unit_variance(p.activation, p.units, _xi_variance(p))
    # Widths of 1e-13 of the mean drown in rounding there, but not in a closed form's orders.
    own = torch.maximum(own, _energy(p, p.best or Expansion(p.values, p.products))[1:].sum(0))
    if p.down is None:
        return own
    total = p.down.square() @ own
    series = _Series(p, own)
    for block in _blocks(p):
        covariance = series.covariance(block).triu(block.start + 1)
        total += 2 * _sandwich(p.down, block.start, covariance)
    return total


def unit_variance(
    activation: Activation, units: Units, xi_variance: Float[Tensor, "units"] | None
) -> Float[Tensor, "units"]:
    """Return ``Var g(m + s t)``, times its linear factor for gated units, by quadrature."""
    parts = []
    every = torch.arange(len(units.mean), device=units.mean.device)
    for index in every.split(512):
        nodes = gaussian_nodes(activation, units.mean[index], units.std[index])
        value = nodes.value
        if units.factor is not None:
            factor = units.factor.mean[index], units.factor.slope[index]
            value = value * (factor[0][nodes.unit] + factor[1][nodes.unit] * nodes.z)
        mean = nodes.mean(value)
        variance = nodes.mean((value - mean[nodes.unit]) ** 2)
        variance = torch.where(units.std[index] > 0, variance, 0.0)  # not its rounding error
        if xi_variance is not None:
            variance = variance + nodes.mean(nodes.value**2) * xi_variance[index]
        parts.append(variance)
    return torch.cat(parts)


def measured_r2(
    p: PolynomialTerms,
    inputs: Tensor | Iterable[Tensor],
    network: Callable[[Tensor], Tensor] | None,
) -> Float[Tensor, "orders outputs"]:
    """Return R² of each truncation on real inputs, in one pass over their batches."""
    batches = inputs.split(1024) if isinstance(inputs, Tensor) else inputs
    count = 0
    mean = scatter = p.bias.new_zeros(p.out_features)
    residual = p.bias.new_zeros(p.degree + 1, p.out_features)
    with torch.no_grad():
        for x in batches:
            own = evaluation.network(p, x) if network is None else network(x)
            y = _by_output(own, p).to(p.bias)
            fitted = torch.zeros_like(y)
            for n, order in enumerate(evaluation.orders(p, x)):
                fitted = fitted + _by_output(order, p).to(p.bias)
                residual[n] += (y - fitted).square().sum(0)
            here, total = y.mean(0), count + len(y)
            scatter = scatter + (y - here).square().sum(0)
            scatter = scatter + (here - mean).square() * count * len(y) / total
            mean = mean + (here - mean) * len(y) / total
            count = total
    if count < 2:
        raise ValueError(f"inputs: R² needs at least two samples, got {count}")
    return 1 - residual / torch.where(scatter > 0, scatter, torch.nan)


def _by_output(y: Tensor, p: PolynomialTerms) -> Float[Tensor, "samples outputs"]:
    axis = -1 if p.geometry is None else 1
    if y.ndim <= axis or y.shape[axis] != p.out_features:
        raise ValueError(
            f"network: expected {p.out_features} outputs on axis {axis}, got {tuple(y.shape)}"
        )
    return y.movedim(axis, -1).reshape(-1, p.out_features)


class _Block(NamedTuple):
    """Covariances of some units, from ``start`` on, with all units."""

    start: int
    rho: Float[Tensor, "block units"]
    """of t and t'"""
    xi: "tuple[Tensor, Tensor, Tensor] | None"
    """for gated units: of t and xi', of xi and t', of xi and xi', each (block, units)"""

    def orders(
        self, of: Expansion, first: int, last: int
    ) -> Iterator[Float[Tensor, "block units"]]:
        """Yield the covariances of the units' terms of each order from ``first``, at least 1."""
        here = slice(self.start, self.start + len(self.rho))
        before, below = self.rho ** max(first - 2, 0), self.rho ** (first - 1)
        for n in range(first, last + 1):
            power = below * self.rho
            a = of.values[n]
            total = a[here, None] * power * a
            if of.products is not None and self.xi is not None:
                t_xi, xi_t, xi_xi = self.xi
                b = of.products[n - 1]
                mixed = a[here, None] * t_xi * b + b[here, None] * xi_t * a
                both = below * xi_xi + (n - 1) * before * t_xi * xi_t
                total += n**0.5 * below * mixed + b[here, None] * both * b
            yield total
            before, below = below, power


def _blocks(p: PolynomialTerms, entries: int = 2**22) -> Iterator[_Block]:
    t, xi = p.rows()
    size = max(1, entries // max(len(t), 1))
    for start in range(0, len(t), size):
        here = slice(start, start + size)
        t_here = p.gaussian.times(t[here])
        rho = (t_here @ t.T).clamp(-1, 1)
        if xi is None:
            yield _Block(start, rho, None)
        else:
            xi_here = p.gaussian.times(xi[here])
            yield _Block(start, rho, (t_here @ xi.T, xi_here @ t.T, xi_here @ xi.T))


def _sandwich(down: Tensor, start: int, covariance: Tensor) -> Float[Tensor, "outputs"]:
    """Return ``sum_hh' down_h covariance_hh' down_h'`` over a block of rows."""
    return ((down @ covariance.T) * down[:, start : start + len(covariance)]).sum(1)


def _xi_variance(p: PolynomialTerms) -> Tensor | None:
    xi = p.rows()[1]
    return None if xi is None else p.gaussian.cross(xi, xi).clamp_min(0)


def _energy(p: PolynomialTerms, of: Expansion) -> Float[Tensor, "orders units"]:
    """Return the variance of each order of each unit (of order 0, the square of its mean)."""
    energy = of.values**2
    xi_variance = _xi_variance(p)
    if of.products is not None and xi_variance is not None:
        energy[1:] += of.products[: len(energy) - 1] ** 2 * xi_variance
    return energy


class _Series:
    """Covariances of units as sums over orders, taken as far as they must be."""

    first, last = 24, 96
    tolerance = 1e-10

    def __init__(self, p: PolynomialTerms, own: Float[Tensor, "units"]) -> None:
        self.p, self.own = p, own
        self.expansions: dict[int, tuple[Expansion, Tensor]] = {}

    def covariance(self, block: _Block) -> Float[Tensor, "block units"]:
        total = torch.zeros_like(block.rho)
        done = 0
        for degree in (self.first, self.last):
            expansion_, left = self._expansion(degree)
            for n, covariance in enumerate(block.orders(expansion_, done + 1, degree), done + 1):
                total += covariance
                if n % 4 == 0 and not (unsettled := self._unsettled(block, n, left)).any():
                    return total
            done = degree
        rows, columns = unsettled.nonzero(as_tuple=True)
        for pairs in torch.arange(len(rows)).split(4096):
            i, j = rows[pairs], columns[pairs]
            total[i, j] = self._integrate(block, i, j)
        return total

    def _expansion(self, degree: int) -> tuple[Expansion, Tensor]:
        """Coefficients, and the standard deviation that each unit has left above each order."""
        if degree not in self.expansions:
            assert self.p.activation is not None
            of = expansion(self.p.activation, self.p.units, degree)
            explained = _energy(self.p, of)[1:].cumsum(0)
            left = (self.own - explained).clamp_min(0).sqrt()
            self.expansions[degree] = of, torch.cat([self.own.sqrt()[None], left])
        return self.expansions[degree]

    def _unsettled(self, block: _Block, n: int, left: Tensor) -> Tensor:
        here = slice(block.start, block.start + len(block.rho))
        rho = block.rho.abs()
        # xi' may be correlated with t, which costs a power of rho for each
        size = rho ** (n + 1) if block.xi is None else ((n + 1) * rho ** (n - 1)).clamp_max(1)
        bound = left[n][here, None] * size * left[n]
        allowed = self.tolerance * (self.own[here].sqrt()[:, None] * self.own.sqrt())
        return (bound > allowed).triu(block.start + 1)

    def _integrate(self, block: _Block, row: Tensor, j: Tensor) -> Float[Tensor, "pairs"]:
        """``Cov(f_i, f_j)``: over ``t_i`` by adaptive panels, over ``t_j`` given ``t_i`` exactly.

        Given ``t_i``, ``t_j = rho t_i + root u`` with ``u`` standard normal and ``root² = 1 -
        rho²``: the inner expectation is that of the activation under a narrower Gaussian.
        """
        p, u = self.p, self.p.units
        assert p.activation is not None
        activation = p.activation
        i = row + block.start
        rho = block.rho[row, j]
        square = 1 - rho**2
        root = torch.where(square > 1e-14, square, 0.0).sqrt()  # below is the rounding of rho
        mean = self._expansion(self.last)[0].values[0]

        def inner(pair: Tensor, t: Tensor, degree: int) -> Tensor:
            jj = j[pair][:, None]
            m = u.mean[jj] + u.std[jj] * rho[pair][:, None] * t
            s = (u.std[jj] * root[pair][:, None]).expand_as(m)
            coefficients = expand(activation, m.flatten(), s.flatten(), degree)
            return coefficients.reshape(-1, *m.shape)

        def plain(pair: Tensor, t: Tensor) -> Tensor:
            ii, jj = i[pair][:, None], j[pair][:, None]
            f = activation(u.mean[ii] + u.std[ii] * t)
            return (f - mean[ii]) * (inner(pair, t, 0)[0] - mean[jj])

        def gated(pair: Tensor, t: Tensor) -> Tensor:
            assert u.factor is not None and block.xi is not None
            ii, jj, r, z = i[pair], j[pair], rho[pair], root[pair]
            t_xi, xi_t, xi_xi = (covariance[row[pair], jj] for covariance in block.xi)
            over = torch.where(z > 0, 1 / z, 0.0)
            alpha, delta = xi_t * over, t_xi * over
            # factor i is p0 + p1 u, factor j is q0 + q1 u; rest is the covariance both have left
            p0 = u.factor.mean[ii, None] + u.factor.slope[ii, None] * t
            q0 = u.factor.mean[jj, None] + (u.factor.slope[jj] * r + t_xi)[:, None] * t
            p1, q1 = alpha[:, None], (u.factor.slope[jj] * z - r * delta)[:, None]
            rest = (xi_xi + alpha * r * delta)[:, None]
            a = inner(pair, t, 2)
            product = (
                (p0 * q0 + p1 * q1 + rest) * a[0]
                + (p0 * q1 + p1 * q0) * a[1]
                + 2**0.5 * p1 * q1 * a[2]
            )
            return activation(u.mean[ii, None] + u.std[ii, None] * t) * product

        scale = torch.where(rho.abs() * u.std[j] > 0, rho * u.std[j], 1.0)
        cuts = torch.stack([-u.mean[i] / u.std[i].clamp_min(1e-300), -u.mean[j] / scale], 1)
        nodes = adaptive_nodes(plain if u.factor is None else gated, cuts)
        covariance = nodes.mean(nodes.value)
        return covariance if u.factor is None else covariance - mean[i] * mean[j]
