import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear.normal import cumulative, density, tail_moments


def parabolic_cylinder(n, x):
    """E[(Z - x)^n; Z > x] by Abramowitz and Stegun 19.14, a route of its own, to 50 digits."""
    with mpmath.workdps(50):
        x = mpmath.mpf(x)
        u = mpmath.pcfu(n + mpmath.mpf(1) / 2, x)
        return mpmath.factorial(n) * mpmath.exp(-(x**2) / 4) * u / mpmath.sqrt(2 * mpmath.pi)


@given(t=st.floats(-37, 37))
def test_density_and_probability_are_relatively_accurate(t):
    y = torch.tensor(t, dtype=torch.float64)
    with mpmath.workdps(50):
        assert abs(density(y).item() / mpmath.npdf(t) - 1) < 1e-12
        assert abs(cumulative(y).item() / mpmath.ncdf(t) - 1) < 1e-12


@given(x=st.floats(0, 37), order=st.integers(0, 24))
def test_moments_of_the_tail_are_relatively_accurate(x, order):
    found = tail_moments(torch.tensor([x, 1.0], dtype=torch.float64), order)[:, 0]
    assert len(found) == order + 1
    for n in {0, order // 2, order}:
        exact = parabolic_cylinder(n, x)
        # Below 2^-1022 float64's numbers are multiples of 2^-1074; n products round to one each.
        assert abs(found[n].item() - exact) <= 1e-12 * exact + (n + 1) * mpmath.mpf(2) ** -1074


def test_beyond_what_can_be_written():
    x = torch.tensor([40.0, 1e8, 1e200, math.inf], dtype=torch.float64)
    assert (tail_moments(x, 4) == 0).all()
    assert (cumulative(-x) == 0).all() and (cumulative(x) == 1).all() and (density(x) == 0).all()


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_shapes(shape):
    assert tail_moments(torch.ones(shape, dtype=torch.float64), 2).shape == (3, *shape)
