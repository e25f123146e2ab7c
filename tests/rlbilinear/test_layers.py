import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from rlbilinear import BilinearConv2d, BilinearLinear

linears = st.from_type(BilinearLinear)
convs = st.from_type(BilinearConv2d)


@given(linears)
def test_linear_is_its_formula(layer):
    x = torch.randn(3, layer.in_features).double()
    product = (x @ layer.left.weight.T) * (x @ layer.right.weight.T)
    if layer.left.bias is not None:
        product = (x @ layer.left.weight.T + layer.left.bias) * (
            x @ layer.right.weight.T + layer.right.bias
        )
    if layer.down is not None:
        product = product @ layer.down.weight.T
        product = product if layer.down.bias is None else product + layer.down.bias
    torch.testing.assert_close(layer(x), product, atol=1e-10, rtol=0)


@given(convs)
def test_conv_is_two_convolutions_multiplied(conv):
    x = torch.randn(2, conv.in_channels, 7, 6).double()
    expected = conv.left(x) * conv.right(x)
    expected = expected if conv.down is None else conv.down(expected)
    torch.testing.assert_close(conv(x), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [1, 5, (5, 7), 7])
def test_one_convolution_or_two_have_the_same_outputs_and_gradients(kernel, bias):
    torch.manual_seed(0)
    conv = BilinearConv2d(3, 4, kernel, stride=(1, 2), padding=2, bias=bias).double()
    x = torch.randn(2, 3, 11, 9).double().contiguous(memory_format=torch.channels_last)
    ours = torch.autograd.grad(conv(x).square().sum(), [*conv.parameters()])
    product = conv.left(x) * conv.right(x)
    torch.testing.assert_close(conv(x), product, atol=1e-10, rtol=0)
    expected = torch.autograd.grad(product.square().sum(), [*conv.parameters()])
    torch.testing.assert_close(ours, expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    "right",
    [
        torch.nn.Conv2d(4, 2, 3, padding=1),
        torch.nn.Conv2d(4, 2, 5, padding=2, bias=False),
        torch.nn.Conv2d(4, 2, 3, padding=2, dilation=2, bias=False),
        torch.nn.Conv2d(4, 2, 3, padding=1, groups=2, bias=False),
        torch.nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect", bias=False),
    ],
    ids=["bias", "kernel", "dilation", "groups", "reflected"],
)
def test_a_convolution_put_in_by_hand_is_run_as_it_is(right):
    conv, x = BilinearConv2d(4, 2, 3, padding=1), torch.randn(2, 4, 6, 6)
    conv.right = right
    torch.testing.assert_close(conv(x), conv.left(x) * right(x))
    conv.left, conv.right = right, conv.left
    torch.testing.assert_close(conv(x), right(x) * conv.right(x))


@given(linears)
def test_quadratic_form_of_a_linear_layer(layer):
    u = torch.randn(layer.out_features).double()
    x = torch.randn(4, 5, layer.in_features).double()
    torch.testing.assert_close(layer.quadratic_form(u)(x), layer(x) @ u, atol=1e-10, rtol=0)


@given(convs)
def test_quadratic_form_of_a_conv_on_unfolded_patches(conv):
    u = torch.randn(conv.out_channels).double()
    x = torch.randn(2, conv.in_channels, 7, 6).double()
    patches = F.unfold(
        x,
        conv.left.kernel_size,
        padding=conv.left.padding,
        stride=conv.left.stride,
        dilation=conv.left.dilation,
    ).transpose(1, 2)
    expected = torch.einsum("o,nohw->nhw", u, conv(x)).flatten(1)
    torch.testing.assert_close(conv.quadratic_form(u)(patches), expected, atol=1e-10, rtol=0)


def test_a_form_is_a_copy_of_the_weights():
    layer = BilinearLinear(3, 2).double()
    form = layer.quadratic_form(torch.ones(2))
    before = form.matrix()
    torch.nn.init.zeros_(layer.left.weight)
    assert torch.equal(form.matrix(), before)
    assert before.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number, 1 or more; got 0"),
        ({"out_channels": 2.5}, "out_channels must be a whole number, 1 or more; got 2.5"),
        (
            {"kernel_size": (3, 0)},
            r"kernel_size must be .* pair of them, 1 or more; got \(3, 0\)",
        ),
        ({"kernel_size": "3"}, "kernel_size must be .*; got '3'"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size must be .*; got \(3, 3, 3\)"),
        ({"stride": 0}, "stride must be a whole number or a pair"),
        ({"stride": (-1, 1)}, "stride must be a whole number or a pair"),
        ({"hidden_channels": -1}, "hidden_channels must be a whole number"),
        ({"hidden_channels": True}, "hidden_channels must be a whole number"),
        ({"padding": "same"}, "padding must be .* 0 or more; got 'same'"),
        ({"padding": -1}, "padding must be .* 0 or more; got -1"),
        ({"dilation": (1, 0)}, r"dilation must be .*; got \(1, 0\)"),
        ({"groups": 2}, "groups=2: each group is a BilinearConv2d of its own"),
    ],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BilinearConv2d(**({"in_channels": 2, "out_channels": 3, "kernel_size": 3} | options))


def test_forms_of_convolutions_put_in_by_hand_that_are_not_plain_are_refused():
    conv = BilinearConv2d(4, 2, 3)
    conv.right = torch.nn.Conv2d(4, 2, 3, groups=2)
    with pytest.raises(ValueError, match=r"one group, zero-padded; got Conv2d\(4, 2, .*groups=2"):
        conv.quadratic_form(torch.ones(2))
    conv.right = torch.nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect")
    with pytest.raises(ValueError, match="zero-padded"):
        conv.quadratic_forms()


@pytest.mark.parametrize("direction", [torch.ones(3), torch.ones(1, 2), torch.tensor(1.0)])
def test_directions_of_another_shape_are_refused(direction):
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        BilinearLinear(4, 2).quadratic_form(direction)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        BilinearConv2d(4, 2, 3).quadratic_form(direction)


def test_directions_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        BilinearLinear(4, 2).quadratic_form(torch.tensor([1.0, float("nan")]))
