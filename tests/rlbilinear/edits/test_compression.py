"""Compression: the same function to 1e-10, with no more units than its directions need."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d, BilinearLinear, scale_eigenfilters
from rlbilinear.edits import ScaleEigenfilters
from rlbilinear.edits.functional import compress, scale_filters, write_eigenfilters

bilinear = st.from_type(BilinearLinear) | st.from_type(BilinearConv2d)


def inputs_of(layer):
    if isinstance(layer, BilinearConv2d):
        return torch.randn(2, layer.in_channels, 7, 6).double()
    return torch.randn(5, layer.in_features).double()


def same(layer, other):
    x = inputs_of(layer)
    expected = layer(x)
    size = 1 + float(expected.detach().abs().max())
    torch.testing.assert_close(other(x), expected, atol=1e-10 * size, rtol=0)


def outputs_of(layer):
    return len((layer.down or layer.left).weight)


@given(bilinear, st.integers(1, 12))
def test_edits_of_one_direction_merge(layer, count):
    """However many edits, a direction adds no more units than its form's rank needs."""
    torch.manual_seed(0)
    u = torch.randn(outputs_of(layer)).double()
    before = len(layer.left.weight)
    inputs = layer.left.weight[0].numel()
    edited = write_eigenfilters(
        layer, u, torch.randn(count).double(), torch.randn(count, inputs).double()
    )
    for factor in (2.0, -1.0):
        edited = scale_eigenfilters(edited, u, {0: factor})
    assert len(edited.left.weight) == before + count + 2
    found = compress(edited)
    same(edited, found.layer)
    assert found.before == before + count + 2 and found.after == len(found.layer.left.weight)
    assert found.after <= before + min(inputs + 1, count + 2)
    assert found.error < 1e-10
    assert compress(found.layer).after == found.after


@settings(max_examples=15)
@given(bilinear)
def test_what_was_undone_leaves_nothing_behind(layer):
    u = torch.randn(outputs_of(layer)).double()
    edit = ScaleEigenfilters(u, {0: 3.0}).on(layer)
    back = edit.inverse()(edit(layer))
    assert len(back.left.weight) == len(layer.left.weight) + 2
    found = compress(back)
    same(layer, found.layer)
    assert found.after <= len(layer.left.weight)


@pytest.mark.parametrize("bias", [False, True])
def test_the_ranks_are_told(bias):
    """Channel 1 gets 3 squares added and 4 taken away: with its own unit, 4 + 5 eigenvalues."""
    torch.manual_seed(0)
    layer = BilinearConv2d(2, 3, 3, bias=bias).double()
    values, filters = (
        torch.tensor([1.0, 1, 1, -1, -1, -1, -1]).double(),
        torch.randn(7, 18).double(),
    )
    edited = write_eigenfilters(layer, torch.eye(3)[1], values, filters)
    found = compress(edited)
    assert found.merged == ((8, 4, 5),)
    assert (found.before, found.after) == (10, 2 + 5)
    assert str(found).startswith("10 hidden units compressed to 7; merged: 8 units of rank 4+5;")
    same(edited, found.layer)


def test_many_small_forms_are_written_anew():
    """40 units of 3 inputs in general directions: two outputs need no more than 3 units each."""
    layer = BilinearLinear(3, 2, hidden_features=40).double()
    found = compress(layer)
    assert found.after <= 2 * 3
    same(layer, found.layer)


def test_rounding_of_the_layers_dtype_is_rounding():
    torch.manual_seed(0)
    layer, u = BilinearConv2d(4, 4, 3), torch.randn(4)
    edit = ScaleEigenfilters(u, {0: 3.0, 1: 0.5}).on(layer)
    back = edit.inverse()(edit(layer))
    found = compress(back)
    assert found.after == 4 and 0 < found.error < 1e-6
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(found.layer(x), layer(x), atol=1e-5, rtol=1e-5)


def test_units_that_add_rounding_errors_are_left_out():
    layer = BilinearConv2d(4, 4, 3, hidden_channels=6)
    with torch.no_grad():
        layer.down.weight[:, [1, 4]] *= 1e-15
    found = compress(layer)
    assert (found.before, found.after) == (6, 4) and 0 < found.error < 1e-14
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(found.layer(x), layer(x))


def test_nothing_left_is_one_empty_unit():
    layer = BilinearLinear(3, 2).double()
    u = torch.eye(2).double()
    for direction in u:
        form = layer.quadratic_form(direction)
        filters = form.eigh().vectors
        layer = scale_filters(layer, direction, filters, [0.0] * len(filters))
    found = compress(layer)
    assert found.after == 1 and not found.layer(torch.randn(4, 3).double()).any()


def test_bad_tolerances_are_refused():
    with pytest.raises(ValueError, match=r"tolerance in \[0, 1\), got 1"):
        compress(BilinearLinear(2, 2), 1.0)
