import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from rlbilinear import BilinearConv2d, BilinearLinear
from rlbilinear.factors import Factors
from rlbilinear.family import FormFamily

CLOSE = {"atol": 1e-10, "rtol": 0}
linears = st.from_type(BilinearLinear)
layers = linears | st.from_type(BilinearConv2d)


@given(layers, st.integers(0, 4))
def test_a_family_is_its_forms(layer, n):
    outputs = layer.quadratic_forms().weights.shape[0]
    directions = torch.randn(n, outputs).double()
    directions[: n // 2] *= torch.rand(outputs) > 0.5  # some units unused
    family = layer.quadratic_forms(directions)
    single = [layer.quadratic_form(direction) for direction in directions]
    x = torch.randn(2, 3, family.in_features).double()
    assert len(family) == len(list(family)) == n
    assert family(x).shape == (2, 3, n)
    assert family.gradient(x).shape == (2, 3, n, family.in_features)
    for i, form in enumerate(single):
        torch.testing.assert_close(family(x)[..., i], form(x), **CLOSE)
        torch.testing.assert_close(family.gradient(x)[..., i, :], form.gradient(x), **CLOSE)
        torch.testing.assert_close(family[i](x), form(x), **CLOSE)
        for j, other in enumerate(single):
            torch.testing.assert_close(family.gram()[i, j], form.inner(other), **CLOSE)
            if form.rank and other.rank:
                torch.testing.assert_close(family.cosines()[i, j], form.cosine(other), **CLOSE)


@given(layers, st.none() | st.integers(0, 5))
def test_spectra_are_those_of_each_form(layer, k):
    family = layer.quadratic_forms()
    for found, form in zip(family.eigh(k), family, strict=True):
        expected = form.eigh(k)
        torch.testing.assert_close(found.values, expected.values, **CLOSE)
        projected = (found.vectors.T * found.values) @ found.vectors
        if k is None:
            torch.testing.assert_close(projected, form.matrix(), **CLOSE)


@given(layers, st.none() | st.integers(0, 5))
def test_spectra_in_float32(layer, k):
    family = layer.quadratic_forms()
    for found, form in zip(family.eigh(k, dtype=torch.float32), family, strict=True):
        assert found.values.dtype == found.vectors.dtype == torch.float32
        values, vectors = (each.double() for each in found)
        exact = form.eigh(k).values
        scale = (form.weight.abs() * form.left.norm(dim=1) * form.right.norm(dim=1)).sum().item()
        close = {"atol": 1e-5 * scale, "rtol": 0}
        longest = max(len(values), len(exact))
        sizes = (F.pad(each.abs(), (0, longest - len(each))) for each in (values, exact))
        torch.testing.assert_close(*sizes, **close)
        eye = torch.eye(len(values)).double()
        torch.testing.assert_close(vectors @ vectors.T, eye, atol=1e-5, rtol=0)
        if k is None:
            torch.testing.assert_close((vectors.T * values) @ vectors, form.matrix(), **close)
        alone = form.eigh(k, dtype=torch.float32)
        torch.testing.assert_close(alone.values.double().abs(), values.abs(), **close)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("hidden", [3, 13, 20])
def test_forms_decomposed_together_and_one_by_one(hidden, dtype, monkeypatch):
    """With few hidden units through a basis of the factors, with more on the matrix itself."""
    torch.manual_seed(0)
    family = BilinearLinear(30, 7, hidden_features=hidden).quadratic_forms()
    together = family.eigh(dtype=dtype)
    monkeypatch.setattr("rlbilinear.factors.BATCH", 1)
    close = {"atol": 1e-10 if dtype == torch.float64 else 1e-5, "rtol": 0}
    for one, other in zip(together, family.eigh(dtype=dtype), strict=True):
        torch.testing.assert_close(one.values, other.values, **close)
        one, other = ((each.vectors.T * each.values) @ each.vectors for each in (one, other))
        torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize(
    ("hidden", "outputs", "thin"), [(10, 1, True), (12, 1, False), (12, 5, True), (14, 5, False)]
)
def test_a_basis_of_the_factors_is_found_where_it_pays(hidden, outputs, thin):
    layer = BilinearLinear(30, outputs, hidden_features=hidden)
    factors = Factors.of(layer.left.weight, layer.right.weight, matrices=outputs)
    assert (factors.basis is not None) == thin
    for spectrum, form in zip(layer.quadratic_forms().eigh(), layer.quadratic_forms(), strict=True):
        values, vectors = spectrum
        torch.testing.assert_close((vectors.T * values) @ vectors, form.matrix(), **CLOSE)


@given(linears)
def test_combinations_and_change_of_basis(layer):
    family = layer.quadratic_forms()
    mix = torch.randn(3, len(family)).double()
    x = torch.randn(4, family.in_features).double()
    torch.testing.assert_close(family.combine(mix)(x), family(x) @ mix.T, **CLOSE)
    matrix, offset = torch.randn(family.in_features, 2).double(), torch.randn(family.in_features)
    z = torch.randn(4, 2).double()
    pulled = family.pullback(matrix, offset)
    torch.testing.assert_close(pulled(z), family(z @ matrix.T + offset), **CLOSE)


def test_bad_input_is_refused():
    layer = BilinearLinear(3, 2)
    family = layer.quadratic_forms()
    with pytest.raises(ValueError, match=r"\(n, 2\), got shape \(2,\)"):
        layer.quadratic_forms(torch.ones(2))
    with pytest.raises(ValueError, match=r"shape \(2,\), one number for each of the outputs"):
        layer.quadratic_forms(torch.ones(1, 3))
    with pytest.raises(ValueError, match="k must be a whole number, 0 or more"):
        family.eigh(-1)
    with pytest.raises(ValueError, match=r"float64 or torch.float32, got torch.float16"):
        family.eigh(dtype=torch.float16)
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\)"):
        family(torch.ones(2))
    with pytest.raises(ValueError, match=r"coefficients \(m, 2\)"):
        family.combine(torch.ones(2))
    with pytest.raises(ValueError, match=r"matrix \(3, new\)"):
        family.pullback(torch.ones(2, 2))
    with pytest.raises(ValueError, match="expected left"):
        FormFamily(family.left, family.left, family.left, family.linears, family.constants)
