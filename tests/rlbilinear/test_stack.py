import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rlbilinear import BilinearConv2d, BilinearLinear
from rlbilinear.edits.functional import PositionBias
from rlbilinear.stack import BilinearStack, Stage

CLOSE = {"atol": 1e-9, "rtol": 1e-9}


def dense_stack(seed=0, bias=True, layers=3):
    torch.manual_seed(seed)
    return BilinearStack(
        [
            nn.Linear(6, 5, bias=bias),
            *[
                Stage(BilinearLinear(5, 5, hidden_features=7, bias=bias), nn.Identity())
                for _ in range(layers - 1)
            ],
            BilinearLinear(5, 4, bias=bias),
            nn.Linear(4, 2, bias=bias),
        ]
    )


def conv_stack(seed=0):
    """Biases, paddings, strides, dilation, biases of positions, an average-pool, a linear skip."""
    torch.manual_seed(seed)
    return BilinearStack(
        [
            PositionBias(
                BilinearConv2d(2, 3, 3, hidden_channels=4, padding=1, bias=True),
                torch.randn(3, 8, 8),
            ),
            nn.AvgPool2d(2),
            Stage(BilinearConv2d(3, 3, 3, padding=2, dilation=2), nn.Conv2d(3, 3, 1)),
            BilinearConv2d(3, 2, 3, stride=2, bias=True),
            nn.Flatten(),
            nn.Linear(2, 2),
        ]
    )


def check_against_torch(stack, x, direction):
    """Values on a line, sampled, against the polynomial; derivatives against autograd."""
    coefficients = stack.along(x, direction)
    assert len(coefficients) == stack.degree + 1
    for t in (-1.0, 0.0, 0.5, 2.0):
        value = sum(c * t**m for m, c in enumerate(coefficients))
        torch.testing.assert_close(value, stack(x + t * direction), **CLOSE)
    functional = torch.randn(coefficients.shape[2:]).double()
    slope = (stack.gradient(x, functional) * direction).flatten(1).sum(1)
    first = (coefficients[1] * functional).flatten(1).sum(1)
    torch.testing.assert_close(slope, first, **CLOSE)
    _, second = torch.autograd.functional.hvp(
        lambda z: (stack(z) * functional).sum(), x, direction.expand_as(x)
    )
    curvature = (second * direction).flatten(1).sum(1)
    twice = 2 * (coefficients[2] * functional).flatten(1).sum(1)
    torch.testing.assert_close(curvature, twice, **CLOSE)


@given(st.integers(0, 999), st.booleans(), st.integers(1, 4))
def test_a_stack_is_the_polynomial_it_says(seed, bias, layers):
    stack = dense_stack(seed, bias, layers)
    assert stack.degree == 2**layers
    check_against_torch(stack, torch.randn(3, 6).double(), torch.randn(3, 6).double())


@given(st.integers(0, 999))
def test_convolutions_pools_and_biases_of_positions(seed):
    stack = conv_stack(seed)
    assert stack.degree == 8
    check_against_torch(stack, torch.randn(2, 2, 8, 8).double(), torch.randn(1, 2, 8, 8).double())


@given(st.integers(0, 999))
def test_parts_are_homogeneous_and_add_up(seed):
    stack, x = conv_stack(seed), torch.randn(2, 2, 8, 8).double()
    parts, scaled = stack.homogeneous_parts(x), stack.homogeneous_parts(-1.5 * x)
    torch.testing.assert_close(parts.sum(0), stack(x), **CLOSE)
    for m, (part, other) in enumerate(zip(parts, scaled, strict=True)):
        torch.testing.assert_close(other, (-1.5) ** m * part, **CLOSE)
    pure = dense_stack(seed, bias=False)
    even = pure.homogeneous_parts(torch.randn(2, 6).double())
    assert not even[:2].any() and even[2].any()  # the last bilinear layer leaves degree 2 and up


def test_a_stack_of_one_layer_gives_its_quadratic_form():
    torch.manual_seed(0)
    layer = BilinearLinear(6, 3, hidden_features=4, bias=True)
    stack = BilinearStack([layer])
    x, v, u = torch.randn(4, 6).double(), torch.randn(6).double(), torch.randn(3).double()
    form = layer.quadratic_form(u)
    parts = stack.along(x, v[None]) @ u
    torch.testing.assert_close(parts[0], form(x), **CLOSE)
    torch.testing.assert_close(parts[1], form.gradient(x) @ v, **CLOSE)
    torch.testing.assert_close(parts[2], (v @ form.matrix() @ v).expand(4), **CLOSE)
    torch.testing.assert_close(stack.gradient(x, u), form.gradient(x), **CLOSE)


def test_the_highest_coefficient_of_a_known_power():
    """``x -> x²`` four times is ``x^16``."""
    square = BilinearLinear(1, 1)
    with torch.no_grad():
        square.left.weight.fill_(1)
        square.right.weight.fill_(1)
    coefficients = BilinearStack([square] * 4).along(torch.ones(1, 1), torch.ones(1, 1))
    expected = [math.comb(16, m) for m in range(17)]
    assert coefficients.flatten().tolist() == expected


def test_the_stack_keeps_the_weights_it_was_made_of():
    layer = BilinearLinear(3, 2)
    stack, x = BilinearStack([layer]), torch.randn(2, 3)
    before = stack(x)
    assert before.dtype == torch.float64
    with torch.no_grad():
        layer.left.weight.zero_()
    assert stack(x).equal(before)


def test_what_is_not_polynomial_is_refused():
    with pytest.raises(TypeError, match="MaxPool2d is not known as a polynomial"):
        BilinearStack([nn.MaxPool2d(2)])
    with pytest.raises(TypeError, match="ReLU"):
        BilinearStack([nn.Sequential(nn.Linear(2, 2), nn.ReLU())])
    with pytest.raises(TypeError, match="affine skip"):
        Stage(nn.Linear(2, 2), BilinearLinear(2, 2))
    with pytest.raises(ValueError, match="at least one stage"):
        BilinearStack([])
    with pytest.raises(ValueError, match=r"functional of shape \(2,\)"):
        dense_stack().gradient(torch.ones(1, 6), torch.ones(3))
