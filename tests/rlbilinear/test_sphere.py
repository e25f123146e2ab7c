import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d, QuadraticForm
from rlbilinear.sphere import sphere_maximum, sphere_minimum


def dense(matrix, linear):
    values, vectors = torch.linalg.eigh(matrix)
    return QuadraticForm(vectors.T, vectors.T, values, linear, torch.tensor(0.3).double())


@st.composite
def forms(draw):
    size, hidden = draw(st.integers(1, 7)), draw(st.integers(0, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    left, right = torch.randn(2, hidden, size, generator=generator, dtype=torch.float64)
    weight, linear = (torch.randn(n, generator=generator).double() for n in (hidden, size))
    linear = linear * draw(st.sampled_from([0.0, 1e-3, 1.0, 100.0]))
    return QuadraticForm(left, right, weight, linear, torch.tensor(0.5).double())


@given(forms(), st.sampled_from([1e-2, 1.0, 30.0]), st.integers(0, 1000))
def test_global_on_the_sphere(form, radius, seed):
    """Necessary and sufficient: 2 m x is the gradient, and m is at least every eigenvalue."""
    x, value = sphere_maximum(form, radius)
    assert x.norm().item() == pytest.approx(radius, rel=1e-9)
    assert value == form(x).item()
    gradient = form.gradient(x)
    multiplier = (gradient @ x) / (2 * radius**2)
    scale = gradient.norm() + form.norm * radius + 1e-12
    assert (gradient - 2 * multiplier * x).norm() <= 1e-6 * scale
    largest = torch.linalg.eigvalsh(form.matrix())[-1]
    assert multiplier >= largest - 1e-6 * (largest.abs() + scale / radius)
    others = torch.randn(200, form.in_features, dtype=torch.float64)
    others = others / others.norm(dim=1, keepdim=True) * radius
    assert (form(others) <= value + 1e-9 * (abs(value) + 1)).all()


def test_in_the_plane_by_trying_every_angle():
    matrix = torch.tensor([[1.0, 0.4], [0.4, -2.0]], dtype=torch.float64)
    form = dense(matrix, torch.tensor([-0.3, 1.7], dtype=torch.float64))
    angles = torch.linspace(0, 2 * np.pi, 200_001, dtype=torch.float64)
    circle = form(2 * torch.stack([angles.cos(), angles.sin()], 1))
    assert sphere_maximum(form, 2.0).value == pytest.approx(circle.max().item(), abs=1e-8)
    assert sphere_minimum(form, 2.0).value == pytest.approx(circle.min().item(), abs=1e-8)


@pytest.mark.parametrize("copies", [1, 2])
def test_the_hard_case_fills_the_norm_along_the_largest_eigenvector(copies):
    matrix = torch.diag(torch.tensor([3.0] * copies + [1.0, -1.0]).double())
    linear = torch.tensor([0.0] * copies + [1.0, 2.0]).double()
    x, value = sphere_maximum(dense(matrix, linear), 2.0)
    assert x[copies:].tolist() == pytest.approx([0.25, 0.25])
    assert x[:copies].norm().item() == pytest.approx((4 - 0.125) ** 0.5)
    assert value == pytest.approx(3 * 3.875 + 0.25 + 0.5 + 0.3)


def test_without_a_linear_part_it_is_the_eigenvector():
    conv = BilinearConv2d(2, 3, 3, hidden_channels=4)
    form = conv.quadratic_form(torch.tensor([1.0, -1.0, 0.5]))
    values, vectors = form.eigh()
    best = values.argmax()
    x, value = sphere_maximum(form)
    assert value == pytest.approx(values[best].item())
    assert abs(x @ vectors[best]).item() == pytest.approx(1)


def test_of_negative_forms_the_maximum_is_what_they_do_not_read():
    form = dense(torch.diag(torch.tensor([-1.0, 0.0])).double(), torch.zeros(2).double())
    assert sphere_maximum(form, 3.0).value == pytest.approx(0.3)


@pytest.mark.parametrize("radius", [0, -1, float("inf"), float("nan")])
def test_refuses_other_radii(radius):
    form = QuadraticForm.affine(torch.ones(2))
    with pytest.raises(ValueError, match="positive, finite radius"):
        sphere_maximum(form, radius)
