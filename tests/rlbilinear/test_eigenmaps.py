import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d, BilinearLinear, channel_spatial_svd, eigenfilters
from rlbilinear.convolution import eigenfilters_of
from rlbilinear.eigenmaps import eigenmaps, pull_back, vector_filters

CLOSE = {"atol": 1e-10, "rtol": 0}
convs = st.from_type(BilinearConv2d)
SHAPE = 3, 4, 5


def dense_form(bias=True):
    torch.manual_seed(0)
    layer = BilinearLinear(60, 6, hidden_features=4, bias=bias).double()
    return layer.quadratic_form(torch.randn(6))


def test_eigenmaps_are_the_eigenvectors_of_the_form_unflattened():
    form = dense_form()
    x = torch.randn(2, *SHAPE).double()
    values, maps = eigenmaps(form, SHAPE)
    squares = torch.einsum("kchw,nchw->nk", maps, x) ** 2
    rest = x.flatten(1) @ form.linear + form.constant
    torch.testing.assert_close(squares @ values + rest, form(x.flatten(1)), **CLOSE)
    assert eigenmaps(form, SHAPE, 3).maps.shape == (3, *SHAPE)


def test_pulled_back_directions_are_exact_for_a_difference():
    form = dense_form()
    a, b = torch.randn(2, *SHAPE).double()
    direction = pull_back(form, torch.stack([a, b]))
    difference = form(b.flatten()) - form(a.flatten())
    torch.testing.assert_close((direction * (b - a)).sum(), difference, **CLOSE)
    several = torch.randn(7, *SHAPE).double().requires_grad_()
    (gradient,) = torch.autograd.grad(form(several.flatten(1)).mean(), several)
    torch.testing.assert_close(pull_back(form, several), gradient.sum(0), **CLOSE)


@given(convs)
def test_vector_filters_add_up_to_the_vector_on_the_output(conv):
    x = torch.randn(2, conv.in_channels, 7, 6).double()
    y = conv(x)
    vector = torch.randn(y.shape[1:]).double()
    found = vector_filters(conv, vector)
    torch.testing.assert_close(found.total(x), (vector * y).flatten(1).sum(1), **CLOSE)
    if conv.left.bias is None:
        summed = sum(maps.sum((1, 2, 3)) for maps in found.maps(x))
        torch.testing.assert_close(summed, (vector * y).flatten(1).sum(1), **CLOSE)


@given(convs, st.integers(1, 2), st.integers(1, 3))
def test_leading_components_and_filters(conv, components, k):
    x = torch.randn(2, conv.in_channels, 7, 6).double()
    vector = torch.randn(conv(x).shape[1:]).double()
    found = vector_filters(conv, vector, components=components, k=k)
    split = channel_spatial_svd(vector)
    assert len(found.filters) == len(found.split.maps) == min(components, len(split.maps))
    for r, maps in enumerate(found.maps(x)):
        weights = split.singular_values[r] * split.maps[r]
        expected = weights * eigenfilters(conv, split.channels[r], k).maps(x)
        torch.testing.assert_close(maps, expected, **CLOSE)


def test_a_zero_vector_has_no_components():
    conv = BilinearConv2d(2, 3, 3).double()
    found = vector_filters(conv, torch.zeros(3, 5, 4))
    assert found.maps(torch.ones(2, 2, 7, 6).double()) == ()
    assert found.total(torch.ones(2, 2, 7, 6).double()).tolist() == [0, 0]


@given(convs)
def test_eigenfilters_of_several_directions_share_what_they_can(conv):
    directions = torch.randn(3, conv.out_channels).double()
    x = torch.randn(2, conv.in_channels, 7, 6).double()
    for direction, found in zip(directions, eigenfilters_of(conv, directions), strict=True):
        expected = torch.einsum("o,nohw->nhw", direction, conv(x))
        torch.testing.assert_close(found.total(x), expected, **CLOSE)
        single = eigenfilters(conv, direction)
        torch.testing.assert_close(found.values, single.values, **CLOSE)


def test_bad_shapes_are_refused():
    form = dense_form()
    with pytest.raises(ValueError, match=r"60 inputs are not flattened maps of shape \(3, 4, 4\)"):
        eigenmaps(form, (3, 4, 4))
    with pytest.raises(ValueError, match=r"shape \(3, 4, 4\)"):
        pull_back(form, torch.ones(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"got \(60,\)"):
        pull_back(form, torch.ones(60))
    with pytest.raises(TypeError, match="BilinearConv2d, got Conv2d"):
        eigenfilters_of(torch.nn.Conv2d(2, 2, 3), torch.ones(1, 2))
