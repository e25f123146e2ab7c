import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ordinary_networks import conv_cases, evaluate, mlp
from rlbilinear import BilinearConv2d, GatedLinear, approximate, estimate_gaussian
from rlbilinear.one_hidden_layer import receptive_fields


@pytest.mark.parametrize("kind", conv_cases())
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_convolutions_are_dense_polynomials_of_their_receptive_fields(kind, degree):
    network = conv_cases()[kind]
    x = torch.randn(3, 2, 9, 8).double()
    y = evaluate(network, x)
    fields = receptive_fields(network, x)
    gaussian = estimate_gaussian(fields)
    p = approximate(network, degree, *gaussian)
    assert p(x).shape == y.shape
    torch.testing.assert_close(p.network(x), y)
    torch.testing.assert_close(sum(p.orders(x)), p(x))
    # The same network as a dense one of a receptive field: its weights read off unit by unit.
    inputs = p.in_features
    g = p.geometry
    eye = torch.eye(inputs).double().reshape(inputs, g.channels, *g.receptive)
    parts = None if isinstance(network, nn.Module) else list(network)

    def unpad(layer, images):
        dilation = layer.dilation if g.taps > 1 else 1
        y = F.conv2d(images, layer.weight, layer.bias, layer.stride, dilation=dilation)
        return y[:, :, :: g.down_dilation[0], :: g.down_dilation[1]]

    def dense(layer):
        zero = torch.zeros_like(eye[:1])
        bias = unpad(layer, zero).flatten()
        weight = (unpad(layer, eye).flatten(1) - bias).T
        made = nn.Linear(inputs, len(bias)).double()
        made.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
        return made

    def dense_down(layer):
        made = nn.Linear(layer.weight[0].numel(), len(layer.weight)).double()
        made.load_state_dict(
            {"weight": layer.weight.flatten(1).detach(), "bias": layer.bias.detach()}
        )
        return made

    if parts is None:
        down = None if network.down is None else dense_down(network.down)
        same = GatedLinear(dense(network.gate), dense(network.value), down, network.activation)
    else:
        if not isinstance(parts[0], nn.Conv2d):
            same = (parts[0], dense_down(parts[1]))
        else:
            same = (dense(parts[0]), *parts[1:2], *map(dense_down, parts[2:]))
    q = approximate(same, degree, *gaussian)
    torch.testing.assert_close(q.values, p.values, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(q.variance, p.variance)
    torch.testing.assert_close(q.r2, p.r2)
    for n in range(min(degree, 2) + 1):
        torch.testing.assert_close(q.coefficients(n), p.coefficients(n))
    if degree <= 2:
        u = torch.randn(3 if p.out_features == 3 else 4).double()
        torch.testing.assert_close(p.quadratic_form(u).matrix(), q.quadratic_form(u).matrix())
    inside = p(x)
    dense_there = q(fields).reshape(3, -1, p.out_features).transpose(1, 2)
    if g.taps == 1:
        torch.testing.assert_close(inside.flatten(2), dense_there)
    elif kind != "conv act conv, strides":
        kh, kw = g.down_padding
        interior = inside[:, :, kh : inside.shape[2] - kh, kw : inside.shape[3] - kw]
        torch.testing.assert_close(interior.flatten(2), dense_there)


def test_zero_padding_of_the_second_convolution_is_kept():
    """At the border, taps off the map contribute nothing, not even their mean."""
    network = conv_cases()["conv act conv"]
    x = torch.randn(2, 2, 6, 5).double()
    p = approximate(network, 2, *estimate_gaussian(receptive_fields(network, x)))
    conv, _, last = network
    y = F.conv2d(x, conv.weight, None, padding=1)
    expected = last.bias[:, None, None].expand(2, 3, 6, 5).clone()
    t = p.units
    for i, j in itertools.product(range(3), range(3)):
        tap = torch.arange(4) * 9 + 3 * i + j
        z = (y - t.shift[tap][:, None, None]) * t.inverse_std[tap][:, None, None]
        a = p.values[:, tap][:, :, None, None]
        hidden = a[0] + a[1] * z + a[2] * (z**2 - 1) / 2**0.5
        moved = F.pad(hidden, (1, 1, 1, 1))[:, :, i : i + 6, j : j + 5]
        expected = expected + torch.einsum("oh,nhyx->noyx", last.weight[:, :, i, j], moved)
    torch.testing.assert_close(p(x), expected.detach())


@pytest.mark.parametrize("kind", ["conv act", "conv act conv", "glu conv", "conv act pointwise"])
def test_eigenfilters_add_up_to_the_polynomial(kind):
    network = conv_cases()[kind]
    x = torch.randn(2, 2, 9, 8).double()
    p = approximate(network, 2, *estimate_gaussian(receptive_fields(network, x)))
    u = torch.randn(p.out_features).double()
    total = p.eigenfilters(u).total(x)
    expected = torch.einsum("o,nohw->nhw", u, p(x))
    if "conv conv" in kind or kind in ("conv act conv", "glu conv"):
        total, expected = total[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1]
    torch.testing.assert_close(total, expected)
    with pytest.raises(TypeError, match="dense"):
        approximate(mlp("relu"), 2).eigenfilters(torch.ones(3))


def test_convolution_r2_against_simulation():
    torch.manual_seed(0)
    first, last = nn.Conv2d(2, 6, 3).double(), nn.Conv2d(6, 3, 3).double()
    network = (first, "relu", last)
    x = torch.randn(3000, 2, 8, 8).double()  # white noise: receptive fields are Gaussian
    p = approximate(network, 2)
    torch.testing.assert_close(p.r2, p.measured_r2(x.split(500)), atol=0.01, rtol=0)
    both = p.r2_on(x)
    torch.testing.assert_close(both.gaussian[1:], p.r2_by_order.cumsum(0))


@given(st.from_type(BilinearConv2d))
def test_a_bilinear_convolution_is_its_own_quadratic(conv):
    p = approximate(conv, 2, 0.3, 2.0)
    u = torch.randn(conv.out_channels).double()
    mine, own = p.quadratic_form(u), conv.quadratic_form(u)
    torch.testing.assert_close(mine.matrix(), own.matrix(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(mine.linear, own.linear, atol=1e-9, rtol=1e-9)
    x = torch.randn(2, conv.in_channels, 7, 7).double()
    torch.testing.assert_close(p(x), conv(x).detach(), atol=1e-9, rtol=1e-9)
