"""Units that are almost never active, against mpmath: relative accuracy, not absolute."""

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf
from torch import nn

from rlbilinear import approximate
from rlbilinear.moments import ACTIVATIONS, gaussian_moment, hermite_coefficients

EXACT = {
    "relu": lambda y: max(y, mpf(0)),
    "leaky_relu": lambda y: y if y > 0 else mpf(0.01) * y,
    "gelu": lambda y: y * mpmath.erfc(-y / mpmath.sqrt(2)) / 2,
    "gelu_tanh": lambda y: y * logistic(mpmath.sqrt(8 / mpmath.pi) * (y + mpf("0.044715") * y**3)),
    "silu": lambda y: y * logistic(y),
    "sigmoid": lambda y: logistic(y),
    "tanh": lambda y: mpmath.tanh(y),
    "softplus": lambda y: mpmath.log1p(mpmath.exp(y)),
    "identity": lambda y: y,
}


def logistic(y):
    return 1 / (1 + mpmath.exp(-y))


def expectation(function, m, s):
    """E f(m + s Z) and E |f(m + s Z)| in panels around where the integrand is, to 20 digits."""
    with mpmath.workdps(20):
        m, s = mpf(m), mpf(s)

        def log_size(z):
            return mpmath.log(abs(function(m + s * z)) + mpf(10) ** -2000) - z**2 / 2

        ends = sorted({mpf(z) for z in range(-42, 43)} | {-m / s})
        sizes = [log_size(z + mpf(1) / 1000) for z in ends]
        near = [i for i in range(len(ends) - 1) if max(sizes[i : i + 2]) > max(sizes) - 40]
        scale = mpmath.exp(max(sizes))
        parts = [
            mpmath.quad(lambda z: function(m + s * z) * mpmath.npdf(z) / scale, ends[i : i + 2])
            for i in near
        ]
        return scale * sum(parts), scale * sum(abs(part) for part in parts)


SMALLEST = mpf(2) ** -1074
"""Float64's smallest number: below 2^-1022 its numbers are multiples of it, with fewer digits."""


def relatively(found, exact, size=None, *, floor=SMALLEST):
    """Whether found is exact up to 1e-12 of the size, its own when none is given, or the floor."""
    return abs(mpf(found) - exact) <= 1e-12 * abs(exact if size is None else size) + floor


def rounded_below(n, s):
    """What the numbers below 2^-1022 on the way to c_n cost: n steps, times s sqrt(n!) at the end.

    Each step rounds to a multiple of the smallest number and passes on less than it is given times
    sqrt(n): together fewer than (n + 1)² of them.
    """
    return (n + 1) ** 2 * SMALLEST * max(s, 1) * mpmath.sqrt(mpmath.factorial(n))


def test_the_tails_are_not_lost():
    assert gaussian_moment("relu", 0, -2.0, 0.25).item() == pytest.approx(1.8876e-17, rel=1e-4)
    assert hermite_coefficients("relu", 1, -9.0)[1].item() == pytest.approx(1.12859e-19, rel=1e-5)
    assert hermite_coefficients("gelu", 0, -30.0)[0].item() == pytest.approx(-5.39778e-99, rel=1e-5)


@given(t=st.floats(-37, 37), s=st.floats(1e-3, 1e3), n=st.integers(0, 12))
def test_coefficients_of_relu(t, s, n):
    m = t * s
    found, floor = hermite_coefficients("relu", n, m, s)[n].item(), rounded_below(n, s)
    with mpmath.workdps(60):
        m, s = mpf(m), mpf(s)
        t = m / s
        if n < 2:
            mean, slope = m * mpmath.ncdf(t) + s * mpmath.npdf(t), s * mpmath.ncdf(t)
            assert relatively(found, (mean, slope)[n], floor=floor)
        else:
            he, terms = hermite(n - 2, t)
            scale = s * mpmath.npdf(t)
            assert relatively(found, (-1) ** n * he * scale, terms * scale, floor=floor)


@given(u=st.floats(-37, 10), s=st.floats(1e-3, 1e3), n=st.integers(0, 8))
def test_coefficients_of_gelu(u, s, n):
    """Up to 1e-12 of the two terms that every coefficient has, which cancel where it is zero."""
    m = u * (1 + s**2) ** 0.5
    found, floor = hermite_coefficients("gelu", n, m, s)[n].item(), rounded_below(n, 1 + s)
    with mpmath.workdps(60):
        m, s = mpf(m), mpf(s)
        d = mpmath.sqrt(1 + s**2)
        u = m / d
        below, density = mpmath.ncdf(u), mpmath.npdf(u)
        if n == 0:
            exact, size = m * below + s**2 / d * density, d * (u * below + density) + density / d
        elif n == 1:
            terms = below, density * m / d, -density * m * s**2 / d**3
            exact, size = s * sum(terms), s * (below + abs(u) * density / d**2)
        else:
            he, sizes = zip(*(hermite(i, u) for i in range(n + 1)), strict=True)
            terms = u * d * he[n - 1], -n * d * he[n - 2], -(s**2) / d * he[n]
            scale = density * (s / d) ** n
            exact = scale * (-1) ** (n - 1) * sum(terms)
            size = scale * (d * sizes[n - 2] + sizes[n] / d)
        assert relatively(found, exact, size, floor=floor)


def hermite(n, t):
    """He_n(t), and the sum of its terms' sizes."""
    terms = [
        mpmath.factorial(n)
        / (mpmath.factorial(i) * mpmath.factorial(n - 2 * i))
        * (mpf(-1) / 2) ** i
        * t ** (n - 2 * i)
        for i in range(n // 2 + 1)
    ]
    return sum(terms), sum(abs(term) for term in terms)


def test_every_known_activation_is_tested():
    assert set(EXACT) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(
    ("m", "s", "power"),
    [(-2.0, 0.25, 0), (-9.0, 1.0, 1), (-30.0, 1.0, 2), (-120.0, 10.0, 4), (12.0, 0.4, 3)],
)
def test_moments(name, m, s, power):
    exact, size = expectation(lambda y: y**power * EXACT[name](y), m, s)
    assert relatively(gaussian_moment(name, power, m, s).item(), exact, size)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "gelu", "identity"])
def test_a_high_moment(name):
    exact, size = expectation(lambda y: y**40 * EXACT[name](y), -3.0, 0.7)
    assert relatively(gaussian_moment(name, 40, -3.0, 0.7).item(), exact, size)


def one_unit(activation, bias, head):
    first = nn.Linear(1, 1).double()
    nn.init.ones_(first.weight)
    nn.init.constant_(first.bias, bias)
    return (first, activation, nn.Linear(1, 2).double()) if head else (first, activation)


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("bias", [-9.0, -20.0, -30.0, -36.0, 0.5])
def test_r2_of_a_relu_that_is_almost_never_active(bias, head):
    with mpmath.workdps(60):
        t = mpf(bias)
        below, density = mpmath.ncdf(t), mpmath.npdf(t)
        variance = (t**2 + 1) * below + t * density - (t * below + density) ** 2
        exact = [below**2 / variance, density**2 / 2 / variance]
    found = approximate(one_unit("relu", bias, head), 2).r2_by_order
    for order, share in zip(found, exact, strict=True):
        assert all(relatively(r2, share) for r2 in order.tolist())


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "softplus"])
@pytest.mark.parametrize("bias", [-9.0, -24.0])
def test_r2_of_smooth_units_that_are_almost_never_active(name, bias):
    mean, _ = expectation(EXACT[name], bias, 1.0)
    slope, _ = expectation(lambda y: (y - mpf(bias)) * EXACT[name](y), bias, 1.0)
    square, _ = expectation(lambda y: EXACT[name](y) ** 2, bias, 1.0)
    found = approximate(one_unit(name, bias, False), 1).r2.item()
    assert relatively(found, slope**2 / (square - mean**2))


@pytest.mark.parametrize("rho", [0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("bias", [-9.0, -20.0])
def test_variance_of_two_relus_that_are_almost_never_active(bias, rho):
    """Given the first unit's input the second's is Gaussian: one integral is left."""
    first, last = nn.Linear(2, 2).double(), nn.Linear(2, 1).double()
    rows = [[1.0, 0.0], [rho, (1 - rho**2) ** 0.5]]
    first.weight.data = torch.tensor(rows, dtype=torch.float64)
    nn.init.constant_(first.bias, bias)
    nn.init.ones_(last.weight)
    slope, rest = mpf(first.weight[1, 0].item()), mpf(first.weight[1, 1].item())

    def product(y):
        mean = slope * (y - mpf(bias)) + mpf(bias)
        if not rest:
            return EXACT["relu"](y) * EXACT["relu"](mean)
        below, density = mpmath.ncdf(mean / rest), mpmath.npdf(mean / rest)
        return EXACT["relu"](y) * (mean * below + rest * density)

    mean, _ = expectation(EXACT["relu"], bias, 1.0)
    square, _ = expectation(lambda y: EXACT["relu"](y) ** 2, bias, 1.0)
    both, _ = expectation(product, bias, 1.0)
    exact = 2 * (square + both) - 4 * mean**2
    found = approximate((first, "relu", last), 1).variance.item()
    assert abs(found / exact - 1) < 1e-9  # what the sum over orders is taken to
