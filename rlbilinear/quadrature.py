"""Expectations of any function of a Gaussian, by Gauss-Lobatto panels halved where needed."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlbilinear.normal import density

POINTS = 16
"""Gauss-Lobatto points in a panel: exact for polynomials of degree 29."""

REACH = 13.0
"""Standard deviations to either side of the mean; the density beyond is below 1e-37."""

FAR = 38.5
"""The reach where a function is next to nothing within `REACH`, as of a unit that is almost never
active; the density beyond underflows."""

_HALVINGS = 54
_TOLERANCE = 1e-15
_MOST_PANELS = 4096  # for a unit: fifty or so do for a smooth function, a hundred for a jump
_SMALL = 1e-2  # the mean square below which a unit may be one that is almost never active
# Where to start: every activation in use changes near 0 and on a scale of about 1, which a wide
# Gaussian would step over.
_LANDMARKS = (-64.0, -16.0, -4.0, -1.0, 0.0, 1.0, 4.0, 16.0, 64.0)


class Nodes(NamedTuple):
    """Points of all units in one flat list: ``E f(m + s Z) = sum of weight * f`` unit by unit."""

    unit: Int[Tensor, "points"]
    z: Float[Tensor, "points"]
    weight: Float[Tensor, "points"]
    """quadrature weight times the standard normal density"""
    value: Float[Tensor, "points"]
    """the function at ``mean + std * z``"""
    units: int
    far: Bool[Tensor, "units"]
    """whose points go on from `REACH` to `FAR`"""

    def mean(self, values: Float[Tensor, "points"]) -> Float[Tensor, "units"]:
        """Return the expectation of values given at the points."""
        total = values.new_zeros(self.units)
        return total.index_add(0, self.unit, self.weight * values)


def gaussian_nodes(
    function: Callable[[Tensor], Tensor],
    mean: Float[Tensor, "units"],
    std: Float[Tensor, "units"],
    degree: int = 0,
) -> Nodes:
    """Find points that integrate a function against Gaussians, each with its mean and width.

    A panel is halved until a Gauss-Lobatto rule of 16 points on it agrees with the rule on its two
    halves, for the function, its square, and the function times the normalised Hermite polynomials
    of the two highest degrees. Kinks and jumps are thus closed in on, and widths from 1e-6 to 1e6
    cost about the same. The error is about 1e-14 of E|f|; next to a function whose values are
    rounded to eps, that is all there is to know. Where there is next to nothing within `REACH`, as
    of a unit that is almost never active, points go on to `FAR`.

    Args:
        function: elementwise, on float64 tensors of one axis.
        mean: mean of each Gaussian.
        std: of each, not negative; a width of zero gives one point.
        degree: highest Hermite polynomial that the points must resolve.

    Raises:
        ValueError: the function is not elementwise, not finite, or grows too fast.
    """
    landmarks = (torch.tensor(_LANDMARKS).to(mean) - mean[:, None]) / std.clamp_min(1e-300)[:, None]

    def values(unit: Int[Tensor, "panels"], z: Float[Tensor, "panels points"]) -> Tensor:
        y = mean[unit, None] + std[unit, None] * z
        return _apply(function, y.flatten()).reshape(y.shape)

    nodes = adaptive_nodes(values, landmarks, degree, mean, std)
    _check_growth(function, mean, std, degree, nodes)
    return nodes


def adaptive_nodes(
    values: Callable[[Int[Tensor, "panels"], Float[Tensor, "panels points"]], Tensor],
    cuts: Float[Tensor, "units cuts"],
    degree: int = 0,
    mean: Float[Tensor, "units"] | None = None,
    std: Float[Tensor, "units"] | None = None,
) -> Nodes:
    """Find points for functions of a standard normal number, one for each unit.

    Args:
        values: the unit of each panel and the panel's points, to the values there.
        cuts: where a unit's first panels begin and end, beside a regular grid.
        degree: as for `gaussian_nodes`.
        mean: what the points are scaled by and added to before rounding, 0 and 1 when None.
        std: with ``mean``.

    Raises:
        ValueError: the values do not settle as the panels are halved.
    """
    units = len(cuts)
    mean = cuts.new_zeros(units) if mean is None else mean
    std = cuts.new_ones(units) if std is None else std
    x, w = (torch.as_tensor(array).to(cuts) for array in _lobatto(POINTS))

    def evaluate(a: Tensor, b: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = (b - a) / 2
        z = (a + b)[:, None] / 2 + half[:, None] * x
        return z, half[:, None] * w * density(z), values(unit, z)

    a, b, unit = _panels(cuts, _grid(degree).to(cuts))
    z, weight, value = evaluate(a, b, unit)
    scale = _sizes(units, unit, weight, value)
    first = torch.where(a == -REACH, value[:, 0].abs(), 0.0)
    last = torch.where(b == REACH, value[:, -1].abs(), 0.0)
    far = _is_far(scale, cuts.new_zeros(units).index_add(0, unit, first + last))
    if far.any():
        upper = torch.linspace(REACH, FAR, int(FAR - REACH) + 1).to(cuts)
        index = far.nonzero()[:, 0]
        for grid in (upper, -upper.flip(0)):
            c, d, beyond = _panels(cuts[index], grid)
            a, b, unit = torch.cat([a, c]), torch.cat([b, d]), torch.cat([unit, index[beyond]])
        z, weight, value = evaluate(a, b, unit)
        scale = _sizes(units, unit, weight, value)
    eps = torch.finfo(torch.float64).eps
    panels = len(unit)
    done: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for halving in range(_HALVINGS):
        middle = (a + b) / 2
        halves = [evaluate(a, middle, unit), evaluate(middle, b, unit)]
        whole, largest = _integrals(z, weight, value, degree)
        error = whole - sum(_integrals(*half, degree)[0] for half in halves)
        # A value is known up to rounding, its argument's and its own, which no halving removes.
        y = mean[unit].abs() + std[unit] * z.abs().amax(1)
        slope = (value.amax(1) - value.amin(1)) / (std[unit] * (b - a)).clamp_min(1e-300)
        noise = eps * (1 + y * (1 + 16 * slope)) * weight.sum(1)
        linear = _TOLERANCE * scale[0, unit] + noise
        square = _TOLERANCE * scale[1, unit] + 2 * value.abs().amax(1) * noise
        allowed = torch.stack([linear, square, linear * largest, linear * largest])
        keep = (error.abs() <= allowed).all(0)
        if halving == _HALVINGS - 1:
            keep[:] = True
        done.append((unit[keep, None].expand(-1, POINTS), z[keep], weight[keep], value[keep]))
        if keep.all():
            break
        split = ~keep
        panels += 2 * int(split.sum())
        if panels > _MOST_PANELS * units:
            raise ValueError(
                "the activation does not settle as it is looked at more closely: "
                "it must be computed in float64, with few kinks and jumps"
            )
        a, b = torch.cat([a[split], middle[split]]), torch.cat([middle[split], b[split]])
        unit = unit[split].repeat(2)
        z, weight, value = (
            torch.cat([first[split], second[split]]) for first, second in zip(*halves, strict=True)
        )
    unit, z, weight, value = (torch.cat([d[i].flatten() for d in done]) for i in range(4))
    return Nodes(unit, z, weight, value, units, far)


def _lobatto(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [-1, 1], ends included: a jump close to an end is seen from there."""
    legendre = np.polynomial.legendre.Legendre.basis(points - 1)
    x = np.concatenate([[-1.0], legendre.deriv().roots().real, [1.0]])
    return x, 2 / (points * (points - 1) * legendre(x) ** 2)


def _grid(degree: int) -> Float[Tensor, "ends"]:
    """Return the ends of panels within reach, no wider than a wave of the Hermite function."""
    count = max(16, int(REACH * (degree + 1) ** 0.5 / 2))
    return torch.linspace(-REACH, REACH, count + 1, dtype=torch.float64)


def _panels(
    cuts: Float[Tensor, "units cuts"], grid: Float[Tensor, "ends"]
) -> tuple[Float[Tensor, "panels"], Float[Tensor, "panels"], Int[Tensor, "panels"]]:
    """Return where panels begin and end, with ends at the grid and at the cuts; and their unit."""
    units = len(cuts)
    cuts = cuts.clamp(grid[0].item(), grid[-1].item())
    cuts = torch.cat([grid.expand(units, -1), cuts], 1).sort(1).values
    wide = cuts.diff(dim=1) > 0
    unit = torch.arange(units, device=cuts.device)[:, None].expand_as(wide)
    return cuts[:, :-1][wide], cuts[:, 1:][wide], unit[wide]


def _sizes(units: int, unit: Tensor, weight: Tensor, value: Tensor) -> Float[Tensor, "2 units"]:
    """Return ``E |f|`` and ``E f²`` of each unit."""
    sizes = [(weight * size).sum(1) for size in (value.abs(), value**2)]
    return torch.stack([weight.new_zeros(units).index_add(0, unit, size) for size in sizes])


def _is_far(scale: Float[Tensor, "2 units"], end: Float[Tensor, "units"]) -> Bool[Tensor, "units"]:
    """Tell which units have next to nothing within reach, and perhaps something beyond.

    Args:
        scale: what `_sizes` gives.
        end: ``|f|`` at the ends of the reach.
    """
    beyond = density(end.new_tensor(REACH)) * torch.stack([end, end**2])
    return (beyond >= 1e-17 * scale).any(0) & (scale[1] < _SMALL)


def _integrals(z: Tensor, weight: Tensor, value: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Integrals over each panel of f, f² and f times the two highest Hermite polynomials.

    With the largest size of the polynomials, at least one.
    """
    before, last = torch.zeros_like(z), torch.ones_like(z)
    for n in range(degree):
        before, last = last, (z * last - n**0.5 * before) / (n + 1) ** 0.5
    f = weight * value
    integrals = torch.stack([f.sum(1), (f * value).sum(1), (f * last).sum(1), (f * before).sum(1)])
    return integrals, torch.maximum(last.abs(), before.abs()).amax(1).clamp_min(1)


def _apply(function: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    value = function(y)
    if not isinstance(value, Tensor) or value.shape != y.shape:
        raise ValueError(
            f"the activation must be elementwise on tensors: {function} gave "
            f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__} "
            f"for an input of shape {tuple(y.shape)}"
        )
    bad = ~torch.isfinite(value)
    if bad.any():
        raise ValueError(
            f"the activation {function} is not finite at {y[bad][0].item():.6g}, "
            "which the inputs' Gaussian reaches"
        )
    return value.to(y)


def _check_growth(
    function: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor, degree: int, nodes: Nodes
) -> None:
    """Refuse a function whose integral is not all within reach."""
    if not len(mean):
        return
    reach = torch.where(nodes.far, FAR, REACH).to(mean)
    # |he_n(z)| is below both z^n / sqrt(n!) and exp(z² / 4).
    power = degree * reach.log() - math.lgamma(degree + 1) / 2
    hermite = torch.minimum(power, reach**2 / 4).exp()
    end = torch.maximum(
        _apply(function, mean + reach * std).abs(), _apply(function, mean - reach * std).abs()
    )
    left_out = density(reach) * torch.stack([hermite * end, end**2])
    square = nodes.mean(nodes.value**2)
    smallest = torch.where(nodes.far, 1e-300, _SMALL).to(mean)
    excess = (left_out / torch.stack([square.sqrt(), square]).maximum(smallest)).amax(0)
    worst = excess.argmax()
    if excess[worst] > 1e-12:
        raise ValueError(
            f"the activation {function} grows too fast for a Gaussian of mean "
            f"{mean[worst].item():.4g} and standard deviation {std[worst].item():.4g}: "
            f"its expectation is not within {reach[worst].item():g} standard deviations"
        )
