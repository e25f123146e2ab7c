"""Moments of activations under Gaussians: the one-dimensional integrals behind every approximant.

An activation ``g`` of ``y ~ N(m, s²)`` is expanded in Hermite polynomials of ``Z = (y - m) / s``:

    ``g(m + s Z) = sum_n c_n / n! He_n(Z)``,   ``c_n = E[g(m + s Z) He_n(Z)] = s^n E[g^(n)(y)]``.

Inside the package the coefficients are orthonormal, ``c_n / sqrt(n!)``, with the polynomials
``he_n = He_n / sqrt(n!)``: they stay of the size of ``g`` at any degree, and their squares add up
to the variance.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.normal import tail_moments
from rlbilinear.quadrature import Nodes, gaussian_nodes

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """An elementwise function of one number.

    Wrap a function of your own, or a module of torch that is elementwise, to say that it is one:
    ``Activation(torch.sin)``, ``Activation(nn.ELU())``. It is integrated numerically, to about
    1e-14 of its size, kinks and jumps included; it must not grow faster than an exponential.

    Raises:
        TypeError: ``function`` cannot be called.
    """

    function: Function
    name: str = ""
    """one of `ACTIVATIONS`; empty for a function of your own"""
    parameters: tuple[float, ...] = ()
    """what `ACTIVATIONS` takes to make it again: the slope of leaky_relu, the beta of softplus"""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                f"activation must be a function of a tensor, got {type(self.function).__name__}"
            )

    def __call__(self, y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply it elementwise."""
        return self.function(y)

    def __str__(self) -> str:
        """Its name, or its function's."""
        name = self.name or getattr(self.function, "__name__", repr(self.function))
        return f"{name}({', '.join(map(str, self.parameters))})" if self.parameters else name


def _identity() -> Activation:
    return Activation(lambda y: y, "identity")


def _leaky_relu(slope: float = 0.01) -> Activation:
    return Activation(partial(F.leaky_relu, negative_slope=slope), "leaky_relu", (slope,))


def _gelu(y: Tensor) -> Tensor:
    # torch's own, y (1 + erf) / 2, is 0 from -9 on; but where a network is evaluated, it is that
    return y * torch.special.erfc(-y / 2**0.5) / 2 if y.dtype == torch.float64 else F.gelu(y)


def _gelu_tanh(y: Tensor) -> Tensor:
    # (1 + tanh z) / 2 = sigmoid(2 z), which far below 0 is not rounded to 0
    if y.dtype != torch.float64:
        return F.gelu(y, approximate="tanh")
    return y * torch.sigmoid((8 / math.pi) ** 0.5 * (y + 0.044715 * y**3))


def _softplus(beta: float = 1.0) -> Activation:
    # torch's own is linear from 20 on, a jump of 2e-9 that the function itself has not
    def function(y: Tensor) -> Tensor:
        return torch.logaddexp(beta * y, torch.zeros_like(y)) / beta

    return Activation(function, "softplus", (beta,))


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    "relu": lambda: Activation(F.relu, "relu"),
    "leaky_relu": _leaky_relu,
    "gelu": lambda: Activation(_gelu, "gelu"),
    "gelu_tanh": lambda: Activation(_gelu_tanh, "gelu_tanh"),
    "silu": lambda: Activation(F.silu, "silu"),
    "sigmoid": lambda: Activation(torch.sigmoid, "sigmoid"),
    "tanh": lambda: Activation(torch.tanh, "tanh"),
    "softplus": _softplus,
    "identity": _identity,
}
"""Activations known by name."""

_MODULES: dict[type[nn.Module], Callable[..., Activation]] = {
    nn.ReLU: lambda module: ACTIVATIONS["relu"](),
    nn.LeakyReLU: lambda module: _leaky_relu(module.negative_slope),
    nn.GELU: lambda module: ACTIVATIONS["gelu" if module.approximate == "none" else "gelu_tanh"](),
    nn.SiLU: lambda module: ACTIVATIONS["silu"](),
    nn.Sigmoid: lambda module: ACTIVATIONS["sigmoid"](),
    nn.Tanh: lambda module: ACTIVATIONS["tanh"](),
    nn.Softplus: lambda module: _softplus(float(module.beta)),
    nn.Identity: lambda module: _identity(),
}

_FUNCTIONS: tuple[tuple[str, Function], ...] = (
    ("relu", torch.relu),
    ("relu", F.relu),
    ("gelu", F.gelu),
    ("silu", F.silu),
    ("sigmoid", torch.sigmoid),
    ("sigmoid", F.sigmoid),
    ("tanh", torch.tanh),
    ("tanh", F.tanh),
)


def as_activation(activation: "str | nn.Module | Function | Activation") -> Activation:
    """Return an activation given by name, as a module of torch, or as a function.

    Raises:
        ValueError: unknown name or module; the message lists what is known.
        TypeError: nothing that can be called.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation in ACTIVATIONS:
            return ACTIVATIONS[activation]()
        raise ValueError(f"unknown activation {activation!r}; choose from {_choices()}")
    if isinstance(activation, nn.Module):
        if type(activation) in _MODULES:
            return _MODULES[type(activation)](activation)
        raise ValueError(
            f"unknown activation {activation!r}; known are {_choices()}; if it is elementwise, "
            "wrap it: Activation(module)"
        )
    if not callable(activation):
        raise TypeError(
            f"activation must be a name ({_choices()}), a module, or a function of a tensor; "
            f"got {type(activation).__name__}"
        )
    for name, function in _FUNCTIONS:
        if activation is function:
            return ACTIVATIONS[name]()
    return Activation(activation)


def hermite_coefficients(
    activation: "str | nn.Module | Function | Activation",
    degree: int,
    mean: Float[Tensor, "*units"] | float = 0.0,
    std: Float[Tensor, "*units"] | float = 1.0,
) -> Float[Tensor, "orders *units"]:
    """Return ``c_n = E[g(m + s Z) He_n(Z)]`` for n = 0 to ``degree``, in float64.

    In closed form for relu, leaky_relu, exact gelu and identity, to 1e-12 of the terms that make
    up ``c_n`` as far out as ``mean / std = -37``; else by quadrature to about 1e-14 of ``E|g|``.
    What lies below 2^-1022 on the way, where float64 has fewer digits, is exact only up to some
    multiples of its smallest number, 2^-1074, times ``std sqrt(n!)``.

    Args:
        activation: a name of `ACTIVATIONS`, a module, or an elementwise function.
        degree: the highest order.
        mean: m, of any shape.
        std: s, not negative; of the shape of ``mean``, or one number.

    Raises:
        ValueError: unknown activation, degree or widths negative, a number that is not finite.
    """
    check_degree(degree)
    m, s = _mean_and_std(mean, std)
    orthonormal = expand(as_activation(activation), m.flatten(), s.flatten(), degree)
    return (orthonormal * sqrt_factorials(degree, m)[:, None]).reshape(degree + 1, *m.shape)


def gaussian_moment(
    activation: "str | nn.Module | Function | Activation",
    power: int,
    mean: Float[Tensor, "*units"] | float = 0.0,
    std: Float[Tensor, "*units"] | float = 1.0,
) -> Float[Tensor, "*units"]:
    """Return ``E[y^power g(y)]`` for ``y ~ N(mean, std²)``, in float64.

    As `hermite_coefficients`, in closed form or by quadrature; never as a sum of coefficients,
    which cancels far out in a tail.

    Raises:
        ValueError: as `hermite_coefficients`.
    """
    check_degree(power)
    g = as_activation(activation)
    m, s = _mean_and_std(mean, std)
    if g.name in _CLOSED_MOMENTS:
        return _CLOSED_MOMENTS[g.name](m, s, power, *g.parameters)
    weighted = Activation(lambda y: y**power * g(y))
    return expand(weighted, m.flatten(), s.flatten(), 0).reshape(m.shape)


def _mean_and_std(
    mean: Tensor | float, std: Tensor | float
) -> tuple[Float[Tensor, "*units"], Float[Tensor, "*units"]]:
    m, s = torch.broadcast_tensors(*(torch.as_tensor(t, dtype=torch.float64) for t in (mean, std)))
    if not (torch.isfinite(m).all() and torch.isfinite(s).all() and (s >= 0).all()):
        raise ValueError("mean and std must be finite, and std not negative")
    return m, s


def expand(
    activation: Activation, m: Float[Tensor, "units"], s: Float[Tensor, "units"], degree: int
) -> Float[Tensor, "orders units"]:
    """Return the orthonormal coefficients ``c_n / sqrt(n!)`` for n = 0 to ``degree``."""
    if activation.name in _CLOSED:
        return _CLOSED[activation.name](m, s, degree, *activation.parameters)
    rows = m.new_zeros(degree + 1, len(m))
    for units in (s > 0).nonzero()[:, 0].split(_UNITS):
        if len(units):
            rows[:, units] = project(gaussian_nodes(activation, m[units], s[units], degree), degree)
    return _constant_without_width(rows, activation, m, s)


_UNITS = 512
"""units whose quadrature points are held at once"""


def project(nodes: Nodes, degree: int) -> Float[Tensor, "orders units"]:
    """Return the orthonormal coefficients of the function at the points."""
    return torch.stack([nodes.mean(nodes.value * h) for h in hermite(nodes.z, degree)])


def hermite(z: Float[Tensor, "*shape"], degree: int) -> Iterator[Float[Tensor, "*shape"]]:
    """Yield ``he_n(z) = He_n(z) / sqrt(n!)`` for n = 0 to ``degree``, by their recurrence."""
    before, last = torch.zeros_like(z), torch.ones_like(z)
    yield last
    for n in range(degree):
        before, last = last, (z * last - n**0.5 * before) / (n + 1) ** 0.5
        yield last


def _identity_coefficients(m: Tensor, s: Tensor, degree: int) -> Tensor:
    rows = [m, s, *[torch.zeros_like(m)] * max(degree - 1, 0)]
    return torch.stack(rows[: degree + 1])


def _relu_coefficients(m: Tensor, s: Tensor, degree: int) -> Tensor:
    """c_0 = m Phi(t) + s phi(t), c_1 = s Phi(t), c_n = s (-1)^n He_{n-2}(t) phi(t), t = m / s."""
    t = m / torch.where(s > 0, s, 1)
    mean, probability = _positive_part(m, s)
    rows = [mean, s * probability]
    for n, h in enumerate(_damped_hermite(t, degree - 2), 2):
        rows.append((-1) ** n * s * h / (n * (n - 1)) ** 0.5)
    return _constant_without_width(torch.stack(rows[: degree + 1]), F.relu, m, s)


def _positive_part(m: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``E max(y, 0) = m Phi(t) + s phi(t)``, without its cancellation, and ``Phi(t)``."""
    t = m / torch.where(s > 0, s, 1)
    tail, excess = tail_moments(t.abs(), 1)
    return m.clamp_min(0) + s * excess, torch.where(t < 0, tail, 1 - tail)


def _leaky_relu_coefficients(m: Tensor, s: Tensor, degree: int, slope: float) -> Tensor:
    linear = _identity_coefficients(m, s, degree)
    return slope * linear + (1 - slope) * _relu_coefficients(m, s, degree)


def _gelu_coefficients(m: Tensor, s: Tensor, degree: int) -> Tensor:
    """With D = sqrt(1 + s²), u = m / D: E g = m Phi(u) + (s²/D) phi(u), E g' = Phi + u phi / D².

    E g^(n) = (-1)^n D^-n (D He_{n-2}(u) - He_n(u) / D) phi(u) for n >= 2. They are the derivatives
    of the first, as y Phi(y) = E[max(y + Z, 0)] - phi(y) with Z standard normal.
    """
    d = (1 + s**2).sqrt()
    u = m / d
    h = list(_damped_hermite(u, degree))
    mean, probability = _positive_part(m, d)  # of y + Z
    rows = [(s / d) ** 2 * mean + m / d**2 * probability, s * (probability + u / d**2 * h[0])]
    for n in range(2, degree + 1):
        terms = d * h[n - 2] / (n * (n - 1)) ** 0.5 - h[n] / d
        rows.append((-1) ** n * (s / d) ** n * terms)
    return torch.stack(rows[: degree + 1])


_CLOSED: dict[str, Callable[..., Tensor]] = {
    "identity": _identity_coefficients,
    "relu": _relu_coefficients,
    "leaky_relu": _leaky_relu_coefficients,
    "gelu": _gelu_coefficients,
}


def _identity_moment(m: Tensor, s: Tensor, power: int) -> Tensor:
    return _raw_moment(m, s, power + 1)


def _relu_moment(m: Tensor, s: Tensor, power: int) -> Tensor:
    return _positive_moment(m, s, power + 1)


def _leaky_relu_moment(m: Tensor, s: Tensor, power: int, slope: float) -> Tensor:
    k = power + 1
    return _positive_moment(m, s, k) + slope * (-1) ** k * _positive_moment(-m, s, k)


def _gelu_moment(m: Tensor, s: Tensor, power: int) -> Tensor:
    """E[y^k Phi(y)] = E[y^k; w > 0] with w = y + Z and Z standard normal: w ~ N(m, D²).

    Given w, y ~ N((s² w + m) / D², s² / D²), D² = 1 + s².
    """
    k, d = power + 1, (1 + s**2).sqrt()
    terms = [
        float(math.comb(k, j))
        * (s / d) ** (2 * j)
        * _raw_moment(m / d**2, s / d, k - j)
        * _positive_moment(m, d, j)
        for j in range(k + 1)
    ]
    return torch.stack(terms).sum(0)


_CLOSED_MOMENTS: dict[str, Callable[..., Tensor]] = {
    "identity": _identity_moment,
    "relu": _relu_moment,
    "leaky_relu": _leaky_relu_moment,
    "gelu": _gelu_moment,
}


def _raw_moment(m: Tensor, s: Tensor, k: int) -> Tensor:
    """Return ``E y^k``, from ``E y^k = m E y^(k-1) + (k - 1) s² E y^(k-2)``."""
    before, last = torch.zeros_like(m), torch.ones_like(m)
    for j in range(k):
        before, last = last, m * last + j * s**2 * before
    return last


def _positive_moment(m: Tensor, s: Tensor, k: int) -> Tensor:
    """Return ``E[y^k; y > 0]``: for a negative mean ``s^k E[(Z - x)^k; Z > x]``, ``x = -m / s``."""
    x = (m / torch.where(s > 0, s, 1)).abs()
    away = s**k * tail_moments(x, k)[k]  # from the mean, beyond 0
    return torch.where(m > 0, _raw_moment(m, s, k) - (-1) ** k * away, away)


def _damped_hermite(t: Tensor, degree: int) -> Iterator[Tensor]:
    """Yield ``he_n(t) phi(t)`` without overflow: ``he_n(t) exp(-t² / 4)`` is of size one."""
    if degree < 0:
        return
    damping = torch.exp(-(t**2) / 4)
    before, last = torch.zeros_like(t), damping
    for n in range(degree + 1):
        yield last * damping / (2 * math.pi) ** 0.5
        before, last = last, (t * last - n**0.5 * before) / (n + 1) ** 0.5


def _constant_without_width(rows: Tensor, function: Function, m: Tensor, s: Tensor) -> Tensor:
    """Set units of zero width to the constants they are."""
    constant = torch.zeros_like(rows)
    constant[0] = function(m)
    return torch.where(s > 0, rows, constant)


def sqrt_factorials(degree: int, like: Tensor) -> Float[Tensor, "orders"]:
    """Return sqrt(n!) for n = 0 to ``degree``."""
    return torch.exp(torch.lgamma(torch.arange(1.0, degree + 2.0).to(like)) / 2)


def check_degree(degree: int) -> None:
    """Refuse a degree that is not a whole number from 0 on."""
    if not isinstance(degree, Integral) or isinstance(degree, bool) or degree < 0:
        raise ValueError(f"degree must be a whole number from 0 on, got {degree!r}")


def _choices() -> str:
    return ", ".join(ACTIVATIONS)
