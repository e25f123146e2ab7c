"""The standard normal distribution, accurate in relative terms however far out in its tails.

To 1e-12 as long as it can be written in float64, to about 37 standard deviations; what is below
2^-1022, where float64 has fewer digits, to a few multiples of its smallest number, 2^-1074.
``torch.special.ndtr`` is accurate in absolute terms only: its value at -9 is 0.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def density(t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``phi(t)``."""
    return torch.exp(-(t**2) / 2) / (2 * math.pi) ** 0.5


def cumulative(t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``Phi(t)``, the probability below t."""
    tail = _tail(t.abs())
    return torch.where(t < 0, tail, 1 - tail)


def tail_moments(x: Float[Tensor, "*shape"], order: int) -> Float[Tensor, "orders *shape"]:
    """Return ``M_n(x) = E[(Z - x)^n; Z > x]`` of a standard normal Z, for n = 0 to ``order``.

    ``M_0 = Phi(-x)``, ``M_1 = phi(x) - x M_0``, ``M_n = (n - 1) M_{n-2} - x M_{n-1}``: up to a
    factor the repeated integrals of erfc (Abramowitz and Stegun, 7.2.5). Upwards the recurrence
    cancels unless x is small. For larger x the ratios ``r_n = M_n / M_{n-1}`` are taken downwards,
    ``r_{n-1} = (n - 1) / (r_n + x)``: there every term is positive, and where one starts from is
    forgotten.

    Args:
        x: not negative.
        order: the highest n.
    """
    rows = [_tail(x)]
    for n in range(1, order + 1):
        rows.append(((n - 1) * rows[-2] if n > 1 else density(x)) - x * rows[-1])
    edge = 5 * max(order, 1) ** -0.75  # up to it the cancellation costs a factor of 300 at most
    far = x >= edge
    if order and far.any():
        below = rows[0][far]
        for n, ratio in enumerate(_ratios(x[far], order, edge), 1):
            below = below * ratio
            rows[n][far] = below
    return torch.stack(rows)


def _ratios(x: Float[Tensor, "n"], order: int, least: float) -> list[Float[Tensor, "n"]]:
    """Return ``r_1, ..., r_order`` at places from ``least`` on."""
    # The error of the first ratio falls by exp(-2 x (sqrt(start) - sqrt(order))).
    start = math.ceil((19 / least + order**0.5) ** 2)
    ratio = 2 * start / (x + (x**2 + 4 * start).sqrt())
    ratios = []
    for n in range(start, 1, -1):
        if n <= order:
            ratios.append(ratio)
        ratio = (n - 1) / (ratio + x)
    return [ratio, *reversed(ratios)]


def _tail(x: Tensor) -> Tensor:
    """Return ``Phi(-x)`` for x from 0 on."""
    return torch.special.erfc(x / 2**0.5) / 2
