import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d
from rlbilinear.implicit import image_form

CLOSE = {"atol": 1e-10, "rtol": 0}
convs = st.from_type(BilinearConv2d)
SIZE = 7, 6


def random_form(conv):
    """A form of images of 7 x 6, its vector, and images."""
    x = torch.randn(3, conv.in_channels, *SIZE).double()
    vector = torch.randn(conv(x).shape[1:]).double()
    return image_form(conv, vector, x.shape[1:]), vector, x


@given(convs)
def test_the_form_is_the_vector_on_the_convolution(conv):
    form, vector, x = random_form(conv)
    torch.testing.assert_close(form(x), (vector * conv(x)).sum((1, 2, 3)), **CLOSE)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((vector * conv(x)).sum(), x)
    torch.testing.assert_close(form.gradient(x.detach()), gradient, **CLOSE)


@given(convs)
def test_the_form_is_its_dense_matrix(conv):
    form, _, x = random_form(conv)
    dense = form.quadratic_form()
    torch.testing.assert_close(dense(x.flatten(1)), form(x), **CLOSE)
    product = x.flatten(1) @ dense.matrix()
    torch.testing.assert_close(form.apply(x).flatten(1), product, **CLOSE)
    torch.testing.assert_close(form.trace, dense.trace, **CLOSE)


@given(convs, st.integers(0, 8))
def test_eigenpairs_are_those_of_the_dense_matrix(conv, k):
    form, _, _ = random_form(conv)
    matrix = form.quadratic_form().matrix()
    values, vectors = form.eigh(k)
    expected = torch.linalg.eigvalsh(matrix)
    expected = expected[expected.abs().argsort(descending=True)][: len(values)]
    torch.testing.assert_close(values.abs(), expected.abs(), **CLOSE)
    torch.testing.assert_close(vectors @ matrix, values[:, None] * vectors, **CLOSE)
    assert len(values) == k or form.quadratic_form().rank < k


def test_a_channel_direction_weighted_by_a_map():
    torch.manual_seed(0)
    conv = BilinearConv2d(3, 4, 3, padding=1, bias=True).double()
    u, m = torch.randn(4).double(), torch.rand(SIZE).double()
    x = torch.randn(2, 3, *SIZE).double()
    form = image_form(conv, torch.einsum("o,hw->ohw", u, m), (3, *SIZE))
    patches = torch.nn.functional.unfold(x, 3, padding=1).mT
    expected = conv.quadratic_form(u)(patches) @ m.flatten()
    torch.testing.assert_close(form(x), expected, **CLOSE)


def test_a_residual_block_adds_the_vector_itself():
    torch.manual_seed(0)
    conv = BilinearConv2d(3, 3, 3, padding=1).double()
    x, vector = torch.randn(2, 3, *SIZE).double(), torch.randn(3, *SIZE).double()
    form = image_form(conv, vector, (3, *SIZE)).plus(vector, 0.5)
    expected = (vector * (x + conv(x))).sum((1, 2, 3)) + 0.5
    torch.testing.assert_close(form(x), expected, **CLOSE)


def test_bad_input_is_refused():
    conv = BilinearConv2d(2, 3, 3)
    with pytest.raises(ValueError, match=r"become \(3, 5, 4\).*got a vector of shape \(3, 7, 6\)"):
        image_form(conv, torch.ones(3, 7, 6), (2, 7, 6))
    with pytest.raises(ValueError, match="2 input channels"):
        image_form(conv, torch.ones(3, 5, 4), (1, 7, 6))
    with pytest.raises(ValueError, match=r"become \(3, 0, 0\)"):
        image_form(conv, torch.ones(3, 0, 0), (2, 2, 2))
    with pytest.raises(ValueError, match=r"got \(7, 6\)"):
        image_form(conv, torch.ones(3, 5, 4), (7, 6))
    form = image_form(conv, torch.ones(3, 5, 4), (2, 7, 6))
    with pytest.raises(ValueError, match="0 <= k < 83 eigenpairs of an image of 84 numbers"):
        form.eigh(83)
    with pytest.raises(ValueError, match=r"images \(batch, 2, 7, 6\)"):
        form(torch.ones(2, 7, 6))
    with pytest.raises(ValueError, match=r"expected \(2, 7, 6\), got \(7, 6\)"):
        form.plus(torch.ones(7, 6))
