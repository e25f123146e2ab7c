import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d
from rlbilinear.cross_terms import cross_form, split_by_direction

CLOSE = {"atol": 1e-10, "rtol": 0}
convs = st.from_type(BilinearConv2d)


def split(x, u):
    """The input's component along a channel direction, and the rest."""
    u = u / u.norm()
    along = torch.einsum("c,nchw,d->ndhw", u, x, u)
    return along, x - along


@given(convs)
def test_parts_add_up_to_the_output(conv):
    x, u = torch.randn(2, conv.in_channels, 7, 6).double(), torch.randn(conv.in_channels).double()
    parts = split_by_direction(conv, x, u)
    torch.testing.assert_close(parts.square + parts.cross + parts.rest, conv(x), **CLOSE)


@given(convs)
def test_parts_are_even_odd_and_free_of_the_direction(conv):
    """By the layer's own outputs as the component along u is flipped and removed."""
    x, u = torch.randn(2, conv.in_channels, 7, 6).double(), torch.randn(conv.in_channels).double()
    along, rest = split(x, u)
    parts = split_by_direction(conv, x, u)
    plus, minus, none = conv(rest + along), conv(rest - along), conv(rest)
    torch.testing.assert_close(parts.rest, none, **CLOSE)
    torch.testing.assert_close(parts.cross, (plus - minus) / 2, **CLOSE)
    torch.testing.assert_close(parts.square, (plus + minus) / 2 - none, **CLOSE)


@given(convs)
def test_cross_form_is_the_cross_part_in_an_output_direction(conv):
    x, u = torch.randn(2, conv.in_channels, 7, 6).double(), torch.randn(conv.in_channels).double()
    w = torch.randn(conv.out_channels).double()
    form = cross_form(conv, u, w)
    expected = torch.einsum("o,nohw->nhw", w, split_by_direction(conv, x, u).cross)
    torch.testing.assert_close(form.total(x), expected, **CLOSE)
    orthogonal = torch.einsum("rcij,c->rij", form.partners, u)
    torch.testing.assert_close(orthogonal, torch.zeros_like(orthogonal), **CLOSE)
    assert len(form.values) <= form.linear.numel()
    assert (form.values.diff() <= 0).all()


def test_cross_form_finds_what_a_channel_is_multiplied_with():
    """A layer that multiplies channel 0, one step to the right, with the sum of 1 and 2 above."""
    conv = BilinearConv2d(3, 1, 3, padding=1).double()
    for layer in (conv.left, conv.right):
        torch.nn.init.zeros_(layer.weight)
    with torch.no_grad():
        conv.left.weight[0, 0, 1, 2] = 1
        conv.right.weight[0, 1:, 0, 1] = 2
    form = cross_form(conv, torch.tensor([5.0, 0, 0]), torch.ones(1))
    assert form.values.tolist() == pytest.approx([2 * 2**0.5])
    assert form.patterns[0, 1, 2].item() == pytest.approx(1)
    assert form.partners[0, :, 0, 1].tolist() == pytest.approx([0, 0.5**0.5, 0.5**0.5])


def test_a_layer_of_one_channel_has_no_cross_part():
    form = cross_form(BilinearConv2d(1, 2, 3).double(), torch.ones(1), torch.ones(2))
    assert form.values.shape == (0,)
    x = torch.randn(1, 1, 5, 5).double()
    assert form.total(x).abs().max() < 1e-12


def test_float32():
    conv, x, u = BilinearConv2d(4, 3, 3, bias=True), torch.randn(1, 4, 5, 5), torch.ones(4)
    parts = split_by_direction(conv, x, u)
    assert parts.cross.dtype == torch.float32
    torch.testing.assert_close(
        parts.square + parts.cross + parts.rest, conv(x), atol=1e-5, rtol=1e-5
    )
    expected = parts.cross.sum(1)
    torch.testing.assert_close(
        cross_form(conv, u, torch.ones(3)).total(x), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("direction", [torch.ones(3), torch.zeros(4)])
def test_bad_directions_are_refused(direction):
    conv = BilinearConv2d(4, 2, 3)
    with pytest.raises(ValueError, match="expected a direction"):
        split_by_direction(conv, torch.ones(1, 4, 5, 5), direction)
    with pytest.raises(ValueError, match="expected a direction"):
        cross_form(conv, direction, torch.ones(2))
