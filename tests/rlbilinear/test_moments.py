import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import nn
from torch.nn import functional as F

from rlbilinear.explained import unit_variance
from rlbilinear.moments import (
    ACTIVATIONS,
    Activation,
    as_activation,
    gaussian_moment,
    hermite_coefficients,
)
from rlbilinear.polynomial_terms import Units
from rlbilinear.quadrature import gaussian_nodes

SMOOTH = {
    "gelu": lambda y: y * special.ndtr(y),
    "gelu_tanh": lambda y: y / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))),
    "silu": lambda y: y * special.expit(y),
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "softplus": lambda y: np.logaddexp(y, 0),
    "identity": lambda y: y,
}
FUNCTIONS = SMOOTH | {
    "relu": lambda y: np.maximum(y, 0),
    "leaky_relu": lambda y: np.where(y > 0, y, 0.01 * y),
}


def integral(function, m, s):
    """E f(m + s Z, Z) by scipy, in pieces: around where activations bend, and by the density."""
    bends = (np.array([-40, -10, -4, -2, -1, 0, 1, 2, 4, 10, 40.0]) - m) / s
    pieces = np.unique(np.concatenate([np.linspace(-12, 12, 9), bends[abs(bends) < 12]]))
    return sum(
        integrate.quad(
            lambda z: float(function(m + s * z, z)) * stats.norm._pdf(z),
            low,
            high,
            epsabs=1e-13,
            epsrel=1e-12,
            limit=200,
        )[0]
        for low, high in itertools.pairwise(pieces)
    )


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("m", "s"), [(0.3, 1e-3), (0.0, 1.0), (-1.5, 0.4), (2.0, 10.0), (-4.0, 30.0)]
)
def test_coefficients_against_scipy(name, m, s):
    orders = range(6)
    expected = [
        integral(lambda y, z, n=n: FUNCTIONS[name](y) * special.eval_hermitenorm(n, z), m, s)
        for n in orders
    ]
    found = hermite_coefficients(name, 5, m, s)
    size = max(1, abs(m) + s) * np.sqrt([math.factorial(n) for n in orders])
    assert (abs(found.numpy() - expected) <= 1e-12 * size).all()


def test_every_known_activation_is_tested_against_scipy():
    assert set(FUNCTIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_variance_is_that_of_the_coefficients(name):
    """E[g²] - E[g]² by scipy, and Parseval."""
    m, s = 0.7, 1.3
    second = integral(lambda y, z: FUNCTIONS[name](y) ** 2, m, s)
    mean = integral(lambda y, z: FUNCTIONS[name](y), m, s)
    one = torch.ones(1, dtype=torch.float64)
    units = Units(one[:, None], one * m, one * m, one * s)
    variance = unit_variance(as_activation(name), units, None).item()
    assert variance == pytest.approx(second - mean**2, abs=1e-12)
    c = hermite_coefficients(name, 40, m, s)
    terms = c**2 / torch.exp(torch.lgamma(torch.arange(1.0, 42.0, dtype=torch.float64)))
    explained = terms[1:].sum().item()
    assert explained <= variance + 1e-12
    assert explained == pytest.approx(variance, rel=2e-3 if "relu" in name else 1e-4)


@pytest.mark.parametrize(
    ("name", "m", "s", "moments"),
    [
        ("relu", 0, 1, [0.39894228, 0.5, 0.79788456, 1.5, 3.19153824]),
        ("relu", 1, 1, [1.08331547, 1.92466022, 4.09129116, 9.86527181, 26.23043644]),
        ("relu", -1, 1, [0.08331547, 0.07533978, 0.09129116, 0.13472819, 0.23043644]),
        ("relu", 0.5, 2, [1.07268940, 2.93117000, 10.04710017, 40.19759010, 180.85239780]),
        ("gelu", 0, 1, [0.28209479, 0.5, 0.70523698, 1.5, 3.03251901]),
        ("gelu", 1, 1, [0.97994558, 1.85004334, 3.97470625, 9.71706997, 25.95916940]),
        ("sigmoid", 1, 1, [0.69673467]),
        ("sigmoid", 4, 10, [0.65307420]),
        ("silu", 0, 1, [0.20662096]),
        ("silu", 0, 10, [3.92595601]),
        ("tanh", 1, 1, [0.55040049]),
        ("tanh", 4, 10, [0.30964171]),
    ],
)
def test_published_moments(name, m, s, moments):
    found = [gaussian_moment(name, power, m, s).item() for power in range(len(moments))]
    assert found == pytest.approx(moments, abs=6e-9)


@pytest.mark.parametrize(
    ("name", "m", "c", "r2"),
    [
        (
            "relu",
            0,
            [0.398942, 0.5, 0.398942, 0, -0.398942, 0],
            [0.73347, 0.96694, 0.96694, 0.98640, 0.98640],
        ),
        (
            "relu",
            1,
            [1.083315, 0.841345, 0.241971, -0.241971, 0, 0.483941],
            [0.94245, 0.98142, 0.99442, 0.99442, 0.99702],
        ),
        (
            "relu",
            -1,
            [0.083315, 0.158655, 0.241971, 0.241971, 0, -0.483941],
            [0.36801, 0.79602, 0.93869, 0.93869, 0.96722],
        ),
        (
            "gelu",
            0,
            [0.282095, 0.5, 0.423142, 0, -0.352618, 0],
            [0.72329, 0.98230, 0.98230, 0.99728, 0.99728],
        ),
        (
            "silu",
            0,
            [0.206621, 0.5, 0.350845, 0, -0.185206, 0],
            [0.79851, 0.99509, 0.99509, 0.99966],
        ),
        (
            "tanh",
            0,
            [0, 0.605706, 0, -0.363595, 0, 0.685174],
            [0.93047, 0.93047, 0.98635, 0.98635, 0.99627],
        ),
    ],
)
def test_published_coefficients_and_r2(name, m, c, r2):
    found = hermite_coefficients(name, 5, m, 1.0)
    assert found.tolist() == pytest.approx(c, abs=1e-6)
    one = torch.ones(1, dtype=torch.float64)
    variance = unit_variance(as_activation(name), Units(one[:, None], one, one * m, one), None)
    if (name, m) == ("relu", 0):
        assert variance.item() == pytest.approx(0.340845, abs=1e-6)
    factorials = torch.tensor([math.factorial(n) for n in range(1, 6)])
    shares = (found[1:] ** 2 / factorials).cumsum(0) / variance
    assert shares[: len(r2)].tolist() == pytest.approx(r2, abs=1e-5)


@pytest.mark.parametrize("name", ["relu", "gelu", "leaky_relu", "silu", "tanh"])
def test_coefficients_are_derivatives_of_the_smoothed_function(name):
    """c_n = s^n (d/dm)^n E g(m + s Z), here by central differences."""
    s, h = 0.8, 1e-2
    m = 0.4 + h * torch.arange(-2, 3, dtype=torch.float64)
    mean = hermite_coefficients(name, 0, m, s)[0]
    c = hermite_coefficients(name, 3, 0.4, s)
    first = (mean[0] - 8 * mean[1] + 8 * mean[3] - mean[4]) / (12 * h)
    second = (-mean[0] + 16 * mean[1] - 30 * mean[2] + 16 * mean[3] - mean[4]) / (12 * h**2)
    third = (-mean[0] + 2 * mean[1] - 2 * mean[3] + mean[4]) / (2 * h**3)
    assert c[1].item() == pytest.approx(s * first.item(), abs=1e-7)
    assert c[2].item() == pytest.approx(s**2 * second.item(), abs=1e-6)
    assert c[3].item() == pytest.approx(s**3 * third.item(), abs=1e-3)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "gelu"])
def test_closed_forms_at_high_degree_and_far_out(name):
    m = torch.tensor([0.0, 0.5, -3.0, 60.0, -60.0, 1e3], dtype=torch.float64)
    s = torch.tensor([1.0, 30.0, 0.7, 1.0, 1.0, 1e-3], dtype=torch.float64)
    closed = hermite_coefficients(name, 60, m, s)
    by_hand = hermite_coefficients(Activation(as_activation(name).function), 60, m, s)
    root = torch.exp(torch.lgamma(torch.arange(1.0, 62.0, dtype=torch.float64)) / 2)[:, None]
    assert torch.isfinite(closed).all()
    torch.testing.assert_close(closed / root, by_hand / root, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_units_of_zero_width_are_constants(name):
    c = hermite_coefficients(name, 3, torch.tensor([-0.5, 0.0, 2.0]), 0.0)
    y = torch.tensor([-0.5, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(c[0], as_activation(name)(y))
    assert (c[1:] == 0).all()


def test_functions_of_ones_own_with_kinks_jumps_and_waves():
    m = torch.linspace(-3, 3, 50, dtype=torch.float64)
    s = torch.logspace(-3, 1.5, 50, dtype=torch.float64)
    step = hermite_coefficients(lambda y: (y > 0.3).double(), 1, m, s)
    t = (m - 0.3) / s
    torch.testing.assert_close(step[0], torch.special.ndtr(t), atol=1e-12, rtol=0)
    density = torch.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    torch.testing.assert_close(step[1], density, atol=1e-12, rtol=0)
    size = hermite_coefficients(lambda y: (y + 0.7).abs(), 0, m, s)[0]
    t = (m + 0.7) / s
    folded = s * math.sqrt(2 / math.pi) * torch.exp(-(t**2) / 2) + (m + 0.7) * torch.erf(
        t / math.sqrt(2)
    )
    torch.testing.assert_close(size, folded, atol=1e-11, rtol=0)
    waves = hermite_coefficients(torch.sin, 2, m, s)
    fading = torch.exp(-(s**2) / 2)
    expected = torch.stack([m.sin(), s * m.cos(), -(s**2) * m.sin()]) * fading
    torch.testing.assert_close(waves, expected, atol=1e-12, rtol=0)
    exponential = hermite_coefficients(torch.exp, 2, m, 1.5)
    expected = torch.exp(m + 1.5**2 / 2) * torch.tensor([[1.0], [1.5], [1.5**2]]).double()
    torch.testing.assert_close(exponential, expected, atol=0, rtol=1e-11)


def test_few_points_do_for_every_width():
    s = torch.logspace(-6, 6, 40, dtype=torch.float64)
    m = torch.linspace(-5, 5, 40, dtype=torch.float64)
    nodes = gaussian_nodes(torch.tanh, m, s, 2)
    assert len(nodes.z) / 40 < 1000
    torch.testing.assert_close(nodes.mean(torch.ones_like(nodes.z)), torch.ones(40).double())
    torch.testing.assert_close(nodes.mean(nodes.z**2), torch.ones(40).double())


@pytest.mark.parametrize(
    ("given", "name", "parameters"),
    [
        (nn.ReLU(), "relu", ()),
        (nn.LeakyReLU(0.2), "leaky_relu", (0.2,)),
        (nn.GELU(), "gelu", ()),
        (nn.GELU("tanh"), "gelu_tanh", ()),
        (nn.SiLU(), "silu", ()),
        (nn.Sigmoid(), "sigmoid", ()),
        (nn.Tanh(), "tanh", ()),
        (nn.Softplus(2.0), "softplus", (2.0,)),
        (nn.Identity(), "identity", ()),
        (F.relu, "relu", ()),
        (torch.tanh, "tanh", ()),
        ("silu", "silu", ()),
    ],
)
def test_activations_are_recognised_and_made_again_from_their_name(given, name, parameters):
    found = as_activation(given)
    assert (found.name, found.parameters) == (name, parameters)
    y = torch.linspace(-3, 3, 31, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](*parameters)(y), found(y))
    if not isinstance(given, str):
        torch.testing.assert_close(found(y), given(y), atol=1e-8, rtol=0)


def test_parameters_of_activations_count():
    y = hermite_coefficients(nn.LeakyReLU(0.3), 2, 0.2, 1.5)
    expected = 0.3 * hermite_coefficients("identity", 2, 0.2, 1.5) + 0.7 * hermite_coefficients(
        "relu", 2, 0.2, 1.5
    )
    torch.testing.assert_close(y, expected)
    sharp = hermite_coefficients(nn.Softplus(50.0), 0, 0.2, 1.5)
    assert sharp.item() == pytest.approx(hermite_coefficients("relu", 0, 0.2, 1.5).item(), abs=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: as_activation("swish"),
            ValueError,
            "unknown activation 'swish'; choose from relu",
        ),
        (lambda: as_activation(nn.Softmax(-1)), ValueError, "wrap it"),
        (lambda: as_activation(3), TypeError, "got int"),
        (lambda: Activation(3), TypeError, "got int"),
        (lambda: hermite_coefficients("silu", -1), ValueError, "degree"),
        (lambda: hermite_coefficients("silu", True), ValueError, "degree"),
        (lambda: hermite_coefficients("silu", 2, 0.0, -1.0), ValueError, "std"),
        (lambda: hermite_coefficients("silu", 2, math.nan, 1.0), ValueError, "finite"),
        (lambda: hermite_coefficients(torch.sum, 2), ValueError, "elementwise"),
        (lambda: hermite_coefficients(lambda y: 3.0, 2), ValueError, "elementwise"),
        (lambda: hermite_coefficients(torch.log, 2), ValueError, "not finite"),
        (lambda: hermite_coefficients(torch.exp, 2, 0.0, 10.0), ValueError, "too fast"),
        (lambda: hermite_coefficients(lambda y: y.float().sin(), 2), ValueError, "float64"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_printing_an_activation():
    assert str(as_activation("relu")) == "relu"
    assert str(as_activation(nn.LeakyReLU(0.2))) == "leaky_relu(0.2)"
    assert str(Activation(torch.sin)) == "sin"
    assert "elu" in str(Activation(partial(F.elu, alpha=2.0)))
