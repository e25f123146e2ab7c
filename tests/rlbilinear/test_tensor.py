import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from rlbilinear import BilinearConv2d, BilinearLinear
from rlbilinear.tensor import BilinearTensor, in_span

CLOSE = {"atol": 1e-10, "rtol": 0}
layers = st.from_type(BilinearLinear)


def inputs_of(layer, n=4):
    return torch.randn(n, layer.in_features).double()


@given(layers)
def test_a_tensor_computes_what_its_layer_does(layer):
    tensor, x = BilinearTensor.of(layer), inputs_of(layer)
    torch.testing.assert_close(tensor(x), layer(x), **CLOSE)
    direction = torch.randn(layer.out_features)
    form, expected = tensor.quadratic_form(direction), layer.quadratic_form(direction)
    torch.testing.assert_close(form(x), expected(x), **CLOSE)
    torch.testing.assert_close(form.matrix(), expected.matrix(), **CLOSE)
    directions = torch.stack([direction, torch.randn(layer.out_features)])
    torch.testing.assert_close(tensor.quadratic_forms()(x), layer(x), **CLOSE)
    mixed = tensor.quadratic_forms(directions)
    torch.testing.assert_close(mixed(x), layer(x) @ directions.double().T, **CLOSE)
    dense = tensor.matrices()
    torch.testing.assert_close(dense, dense.mT, **CLOSE)
    quadratic = torch.einsum("ni,oij,nj->no", x, dense, x)
    torch.testing.assert_close(quadratic + x @ tensor.linear.T + tensor.constant, layer(x), **CLOSE)


@given(st.from_type(BilinearConv2d))
def test_a_convolution_is_the_tensor_on_its_patches(conv):
    x = torch.randn(2, conv.in_channels, 7, 6).double()
    patches = F.unfold(
        x,
        conv.left.kernel_size,
        padding=conv.left.padding,
        stride=conv.left.stride,
        dilation=conv.left.dilation,
    ).mT
    torch.testing.assert_close(BilinearTensor.of(conv)(patches).mT, conv(x).flatten(2), **CLOSE)


@given(layers, st.data())
def test_products_are_those_of_the_dense_tensor(layer, data):
    tensor = BilinearTensor.of(layer)
    dense = tensor.matrices().flatten(1)
    torch.testing.assert_close(tensor.gram, dense @ dense.T, **CLOSE)
    torch.testing.assert_close(tensor.norm, dense.norm(), atol=1e-7, rtol=0)
    flat = tensor.triangle()
    assert flat.shape[1] == tensor.in_features * (tensor.in_features + 1) // 2
    torch.testing.assert_close(flat @ flat.T, tensor.gram, **CLOSE)
    small, basis = in_span(tensor)
    assert small.in_features <= min(tensor.in_features, 2 * tensor.hidden_features)
    torch.testing.assert_close(small.gram, tensor.gram, **CLOSE)
    x = inputs_of(layer)
    torch.testing.assert_close(small(x @ basis.T), tensor.bilinear_part()(x), **CLOSE)
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)).double(), **CLOSE)

    other = BilinearTensor.of(
        BilinearLinear(
            tensor.in_features, tensor.out_features, hidden_features=data.draw(st.integers(1, 9))
        )
    )
    expected = (dense * other.matrices().flatten(1)).sum()
    torch.testing.assert_close(tensor.inner(other), expected, **CLOSE)
    torch.testing.assert_close(
        tensor.distance(other), (dense - other.matrices().flatten(1)).norm(), atol=1e-7, rtol=0
    )


@given(layers)
def test_changes_of_inputs_and_outputs_are_substitutions(layer):
    tensor, x = BilinearTensor.of(layer), inputs_of(layer)
    embedding = torch.randn(layer.in_features, 5).double()
    z = torch.randn(3, 5).double()
    torch.testing.assert_close(tensor.with_inputs(embedding)(z), layer(z @ embedding.T), **CLOSE)
    head = torch.randn(2, layer.out_features).double()
    torch.testing.assert_close(tensor.with_outputs(head)(x), layer(x) @ head.T, **CLOSE)


@given(layers)
def test_biases_are_an_input_that_is_always_one(layer):
    tensor, x = BilinearTensor.of(layer), inputs_of(layer)
    whole = tensor.homogeneous()
    assert not whole.linear.any() and not whole.constant.any()
    ones = torch.ones(len(x), 1).double()
    torch.testing.assert_close(whole(torch.cat([x, ones], 1)), layer(x), **CLOSE)
    corner = torch.zeros(layer.out_features, layer.in_features + 1, layer.in_features + 1).double()
    corner[:, :-1, :-1] = tensor.matrices()
    corner[:, -1, :-1] = corner[:, :-1, -1] = tensor.linear / 2
    corner[:, -1, -1] = tensor.constant
    torch.testing.assert_close(whole.matrices(), corner, **CLOSE)


@given(layers)
def test_a_tensor_is_a_layer_again(layer):
    tensor, x = BilinearTensor.of(layer), inputs_of(layer)
    again = tensor.as_layer(layer)
    assert isinstance(again, BilinearLinear)
    torch.testing.assert_close(again(x), layer(x), **CLOSE)
    biased = bool(tensor.linear.any() or tensor.constant.any())
    assert (again.left.bias is not None) == biased
    half = tensor.as_layer(layer.float())
    assert half.left.weight.dtype == torch.float32 and half.left.weight.requires_grad


@given(st.from_type(BilinearConv2d))
def test_a_convolution_too(conv):
    x = torch.randn(2, conv.in_channels, 7, 6).double()
    again = BilinearTensor.of(conv).as_layer(conv)
    torch.testing.assert_close(again(x), conv(x), **CLOSE)


def test_writing_a_layer_draws_no_random_number():
    layer = BilinearLinear(5, 3, bias=True)
    torch.manual_seed(0)
    expected = torch.randn(1)
    torch.manual_seed(0)
    BilinearTensor.of(layer).as_layer(layer)
    assert torch.randn(1).equal(expected)


def test_wrong_shapes_and_kinds_are_refused():
    tensor = BilinearTensor.of(BilinearLinear(5, 3))
    with pytest.raises(TypeError, match="expected a BilinearLinear or BilinearConv2d, got Linear"):
        BilinearTensor.of(torch.nn.Linear(3, 3))
    with pytest.raises(TypeError, match="got Linear"):
        tensor.as_layer(torch.nn.Linear(5, 3))
    with pytest.raises(ValueError, match="6 inputs cannot hold a tensor of 5"):
        tensor.as_layer(BilinearLinear(6, 3))
    with pytest.raises(ValueError, match=r"expected left \(hidden, inputs\)"):
        BilinearTensor(tensor.left, tensor.right[:1], *list(vars(tensor).values())[2:])
    with pytest.raises(ValueError, match="cannot compare"):
        tensor.inner(BilinearTensor.of(BilinearLinear(4, 3)))
    with pytest.raises(ValueError, match=r"floating-point x \(..., 5\)"):
        tensor(torch.ones(2, 4))
