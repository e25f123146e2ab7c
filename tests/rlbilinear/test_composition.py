import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from rlbilinear import BilinearConv2d, BilinearLinear
from rlbilinear.composition import (
    embedded,
    embedded_spectrum,
    group_directions,
    head_forms,
    residual_form,
)

CLOSE = {"atol": 1e-10, "rtol": 0}
linears = st.from_type(BilinearLinear)


@given(linears, st.booleans())
def test_residual_of_a_dense_layer(layer, biased):
    skip = nn.Linear(layer.in_features, layer.out_features, bias=biased).double()
    u = torch.randn(layer.out_features).double()
    x = torch.randn(3, layer.in_features).double()
    form = residual_form(layer, u, skip)
    torch.testing.assert_close(form(x), (skip(x) + layer(x)) @ u, **CLOSE)
    branch = layer.quadratic_form(u)
    torch.testing.assert_close(form.matrix(), branch.matrix(), **CLOSE)
    if layer.in_features == layer.out_features:
        torch.testing.assert_close(residual_form(layer, u)(x), (x + layer(x)) @ u, **CLOSE)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "padding", "dilation"),
    [(3, 1, 1), ((5, 3), (2, 1), 1), (3, 2, 2), ((1, 3), (0, 1), 1)],
)
def test_residual_of_a_convolution(kernel, padding, dilation, bias):
    torch.manual_seed(0)
    conv = BilinearConv2d(
        3, 3, kernel, hidden_channels=5, padding=padding, dilation=dilation, bias=bias
    ).double()
    skip = nn.Conv2d(3, 3, 1, bias=bias).double()
    x, u = torch.randn(2, 3, 7, 6).double(), torch.randn(3).double()
    patches = F.unfold(x, conv.left.kernel_size, dilation, padding).mT
    for given_skip, carried in ((None, x), (skip, skip(x))):
        expected = torch.einsum("o,nohw->nhw", u, carried + conv(x)).flatten(1)
        torch.testing.assert_close(residual_form(conv, u, given_skip)(patches), expected, **CLOSE)


def test_residual_of_a_strided_convolution():
    torch.manual_seed(0)
    conv = BilinearConv2d(3, 4, 3, stride=2, padding=1).double()
    skip = nn.Conv2d(3, 4, 1, stride=2).double()
    x, u = torch.randn(2, 3, 7, 6).double(), torch.randn(4).double()
    patches = F.unfold(x, 3, padding=1, stride=2).mT
    expected = torch.einsum("o,nohw->nhw", u, skip(x) + conv(x)).flatten(1)
    torch.testing.assert_close(residual_form(conv, u, skip)(patches), expected, **CLOSE)


@pytest.mark.parametrize(
    ("layer", "skip", "message"),
    [
        (BilinearLinear(3, 2), None, "3 inputs, 2 outputs"),
        (BilinearLinear(3, 2), nn.Linear(2, 2), "skip of 3 to 2"),
        (BilinearLinear(3, 2), nn.Conv2d(3, 2, 1), "skip of 3 to 2"),
        (BilinearConv2d(2, 2, 3, stride=2, padding=1), None, r"stride \(2, 2\)"),
        (BilinearConv2d(2, 2, 3, padding=1), nn.Linear(2, 2), "skip of 2 to 2"),
        (BilinearConv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), "1x1 convolution"),
        (BilinearConv2d(2, 2, 3, padding=3), None, "no tap of a 3x3 kernel"),
        (BilinearConv2d(2, 2, 3, padding=1, dilation=2), None, "no tap of a 3x3 kernel"),
    ],
)
def test_skips_that_do_not_fit_are_refused(layer, skip, message):
    with pytest.raises(ValueError, match=message):
        residual_form(layer, torch.ones(2), skip)


@given(linears, st.integers(1, 4), st.booleans())
def test_heads_after_a_layer(layer, logits, biased):
    head = nn.Linear(layer.out_features, logits, bias=biased).double()
    x = torch.randn(3, layer.in_features).double()
    torch.testing.assert_close(head_forms(layer, head)(x), head(layer(x)), **CLOSE)
    directions = torch.randn(2, logits).double()
    expected = head(layer(x)) @ directions.T
    torch.testing.assert_close(head_forms(layer, head, directions)(x), expected, **CLOSE)


@given(linears, st.integers(1, 20), st.booleans())
def test_an_embedding_before_a_layer(layer, inputs, biased):
    embedding = nn.Linear(inputs, layer.in_features, bias=biased).double()
    u = torch.randn(layer.out_features).double()
    z = torch.randn(3, inputs).double()
    form = layer.quadratic_form(u)
    value = layer(embedding(z)) @ u
    torch.testing.assert_close(embedded(form, embedding)(z), value, **CLOSE)
    mapped = embedded_spectrum(form.eigh(), embedding)
    rest = embedding(z) @ form.linear + form.constant
    torch.testing.assert_close(mapped.contributions(z).sum(-1) + rest, value, **CLOSE)
    family = embedded(layer.quadratic_forms(), embedding)
    torch.testing.assert_close(family(z), layer(embedding(z)), **CLOSE)


def test_an_embedding_of_tokens():
    torch.manual_seed(0)
    embedding, layer = nn.Embedding(7, 4).double(), BilinearLinear(4, 3, bias=True).double()
    tokens = torch.arange(7)
    family = embedded(layer.quadratic_forms(), embedding)
    torch.testing.assert_close(family(torch.eye(7).double()), layer(embedding(tokens)), **CLOSE)
    form = layer.quadratic_form(torch.ones(3))
    mapped = embedded_spectrum(form.eigh(), embedding)
    expected = form.eigh().contributions(embedding(tokens))
    torch.testing.assert_close(mapped.contributions(torch.eye(7).double()), expected, **CLOSE)
    with pytest.raises(ValueError, match="5 outputs, the vectors 4"):
        embedded_spectrum(form.eigh(), nn.Linear(2, 5))


def test_directions_of_groups():
    groups = [[0], [1, 3]]
    means = group_directions(groups, 4)
    assert means.tolist() == [[1, 0, 0, 0], [0, 0.5, 0, 0.5]]
    assert group_directions(groups, 4, reduce="sum").tolist() == [[1, 0, 0, 0], [0, 1, 0, 1]]
    contrast = group_directions(groups, 4, against="others")
    third = -1 / 3
    torch.testing.assert_close(
        contrast, torch.tensor([[1, third, third, third], [-0.5, 0.5, -0.5, 0.5]]).double()
    )
    total = group_directions(groups, 4, reduce="sum", against="others")
    torch.testing.assert_close(total, contrast * torch.tensor([[1], [2]]))
    assert group_directions([], 4).shape == (0, 4)


@given(st.integers(2, 9), st.data())
def test_contrasts_are_group_means_minus_the_mean_of_the_rest(outputs, data):
    members = data.draw(st.sets(st.integers(0, outputs - 1), min_size=1, max_size=outputs - 1))
    logits = torch.randn(outputs).double()
    inside = torch.zeros(outputs, dtype=torch.bool)
    inside[list(members)] = True
    found = group_directions([members], outputs, against="others") @ logits
    expected = logits[inside].mean() - logits[~inside].mean()
    torch.testing.assert_close(found[0], expected, **CLOSE)


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([[]], {}, "got \\[\\]"),
        ([[1, 1]], {}, "different outputs"),
        ([[3]], {}, "from 0 to 2"),
        ([[0, 1, 2]], {"against": "others"}, "no others"),
        ([[0]], {"reduce": "max"}, "reduce mean or sum"),
    ],
)
def test_bad_groups_are_refused(groups, options, message):
    with pytest.raises(ValueError, match=message):
        group_directions(groups, 3, **options)
    with pytest.raises(ValueError, match="reads 5 features, the layer has 2"):
        head_forms(BilinearLinear(3, 2), nn.Linear(5, 4))
