import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d, BilinearLinear
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
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\)"):
        family(torch.ones(2))
    with pytest.raises(ValueError, match=r"coefficients \(m, 2\)"):
        family.combine(torch.ones(2))
    with pytest.raises(ValueError, match=r"matrix \(3, new\)"):
        family.pullback(torch.ones(2, 2))
    with pytest.raises(ValueError, match="expected left"):
        FormFamily(family.left, family.left, family.left, family.linears, family.constants)
