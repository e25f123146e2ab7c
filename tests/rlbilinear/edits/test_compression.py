"""Compression: the same function to 1e-10, with no more units than its directions need."""

from itertools import product

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


def nothing_is_left(found):
    """A second call finds nothing to merge, and changes no bit."""
    again = compress(found.layer)
    assert (again.before, again.after) == (found.after, found.after)
    assert again.merged == () and again.error == 0
    assert same_bits(found.layer, again.layer)


def same_bits(layer, other):
    first, second = layer.state_dict(), other.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def factors_of(layer):
    """Return ``left`` and ``right`` of (x, 1), and the columns of ``down`` as rows."""
    factors = []
    for part in (layer.left, layer.right):
        weight = part.weight.detach().double().flatten(1)
        bias = torch.zeros(len(weight)).double() if part.bias is None else part.bias.detach()
        factors.append(torch.cat([weight, bias.double()[:, None]], dim=1))
    return *factors, layer.down.weight.detach().double().flatten(1).T


def forms_of(layer):
    """Return the dense symmetric matrix of each output, of (x, 1), and the norm of all units."""
    left, right, columns = factors_of(layer)
    half = torch.einsum("ro,ri,rj->oij", columns, left, right)
    size = (left.norm(dim=1) * right.norm(dim=1) * columns.norm(dim=1)).norm()
    return (half + half.mT) / 2, float(size)


def units_needed(layer, group):
    """Return how many units those of the group, with parallel columns, need."""
    left, right, columns = (factor[group] for factor in factors_of(layer))
    weight = columns @ columns[0]
    half = (left.T * weight) @ right
    values = torch.linalg.eigvalsh(half + half.T)
    floor = 1e-12 * values.abs().max()
    return max(int((values > floor).sum()), int((values < -floor).sum()))


def general(outputs, units):
    return torch.randn(outputs, units).double()


def parallel(outputs, units):
    return general(outputs, 2)[:, torch.arange(units) % 2] * torch.randn(units).double()


def nearly_parallel(outputs, units):
    """Columns that are apart by anything from 0.1 to less than rounding."""
    apart = 10 ** -(1 + 16 * torch.rand(units).double())
    return parallel(outputs, units) + general(outputs, units) * apart


def rank_deficient(outputs, units):
    rank = int(torch.randint(1, outputs + 1, ()))
    return general(outputs, rank) @ general(rank, units)


def small_layer(columns, conv, bias, seed):
    """Make a layer of few inputs and outputs, every fourth in float32."""
    torch.manual_seed(seed)
    inputs, outputs, units = (int(torch.randint(low, 4, ())) for low in (1, 2, 3))
    units *= 1 + seed % 2
    if conv:
        layer = BilinearConv2d(inputs, outputs, (1, 2), hidden_channels=units, bias=bias)
    else:
        layer = BilinearLinear(1 + inputs, outputs, hidden_features=units, bias=bias)
    layer = layer if seed % 4 == 3 else layer.double()
    with torch.no_grad():
        layer.down.weight.copy_(columns(outputs, units).reshape(layer.down.weight.shape))
    return layer


@pytest.mark.parametrize("bias", [False, True], ids=["unbiased", "biased"])
@pytest.mark.parametrize("conv", [False, True], ids=["dense", "conv"])
@pytest.mark.parametrize("columns", [general, parallel, nearly_parallel, rank_deficient])
def test_a_second_call_finds_nothing(columns, conv, bias):
    """2,000 layers in all: the same function, and no more units than directions or layers need."""
    for seed in range(125):
        layer = small_layer(columns, conv, bias, seed)
        found = compress(layer)
        if found.merged or found.after < found.before:
            nothing_is_left(found)
        else:  # a second call would get what the first one got
            assert same_bits(layer, found.layer), seed
        (before, size), (after, _) = forms_of(layer), forms_of(found.layer)
        rounding = 100 * torch.finfo(layer.left.weight.dtype).eps
        assert (before - after).norm() <= (found.error + rounding) * size, seed
        assert found.after <= found.before, seed
        if columns is parallel and layer.left.weight.dtype == torch.float64:
            groups = slice(0, None, 2), slice(1, None, 2)
            assert found.after <= sum(units_needed(layer, group) for group in groups), seed


def written_otherwise(layer):
    """Write the same function with more units: the columns of each are split into two, at random.

    The units are in another order, with left and right exchanged in some, and scaled.
    """
    left, right, columns = factors_of(layer)
    part = torch.randn_like(columns)
    left, right, columns = left.repeat(2, 1), right.repeat(2, 1), torch.cat([part, columns - part])
    order, swap = torch.randperm(len(left)), torch.rand(len(left), 1) < 0.5
    scale = 2 ** torch.randn(len(left), 1, dtype=torch.float64)
    left, right = torch.where(swap, right, left) * scale, torch.where(swap, left, right) / scale
    inputs, outputs = layer.in_features, layer.out_features
    other = BilinearLinear(inputs, outputs, hidden_features=len(left), bias=True).double()
    with torch.no_grad():
        for part, weight in ((other.left, left), (other.right, right)):
            part.weight.copy_(weight[order, :-1])
            part.bias.copy_(weight[order, -1])
        other.down.weight.copy_(columns[order].T)
        other.down.bias.copy_(layer.down.bias)
    return other


@pytest.mark.parametrize("columns", [general, rank_deficient])
def test_how_a_function_was_written_does_not_matter(columns):
    """With so many units a basis of outputs is chosen: it depends on the function alone."""
    for seed in range(30):
        torch.manual_seed(seed)
        inputs, outputs = (int(torch.randint(2, 5, ())) for _ in range(2))
        units = (inputs + 1) * outputs
        layer = BilinearLinear(inputs, outputs, hidden_features=units, bias=True).double()
        with torch.no_grad():
            layer.down.weight.copy_(columns(outputs, units))
        first, second = (compress(written_otherwise(layer)) for _ in range(2))
        assert first.after == second.after < units, seed
        same(layer, first.layer)
        same(layer, second.layer)


@pytest.mark.parametrize("spread", [0, 0.02, 3])
def test_products_are_found_whatever_they_were_written_as(spread):
    """Outputs ``scale_o x_o x_(o + 1)``, of one size, nearly of one size, or not."""
    for seed, outputs in product(range(5), (3, 4, 5)):
        torch.manual_seed(seed)
        layer = BilinearLinear(outputs, outputs, hidden_features=outputs, bias=True).double()
        scale = 2 ** (spread * torch.randn(outputs).double())
        with torch.no_grad():
            layer.left.weight.copy_(torch.eye(outputs))
            layer.right.weight.copy_(torch.eye(outputs).roll(1, dims=1))
            layer.down.weight.copy_(scale.diag())
            for part in (layer.left, layer.right):
                part.bias.zero_()
        found = compress(written_otherwise(written_otherwise(layer)))
        assert (found.before, found.after) == (4 * outputs, outputs), (seed, outputs)
        same(layer, found.layer)


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
    nothing_is_left(found)


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


def test_what_cannot_be_smaller_is_copied():
    layer = BilinearLinear(5, 3, bias=True)
    found = compress(layer)
    assert (found.before, found.after, found.merged, found.error) == (3, 3, (), 0.0)
    assert found.layer is not layer and found.layer.down is None
    nothing_is_left(found)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e200])
def test_weights_that_are_not_finite_are_refused(weight):
    layer = BilinearLinear(3, 2).double()
    with torch.no_grad():
        layer.left.weight[0, 0] = weight
    with pytest.raises(ValueError, match="expected finite weights"):
        compress(layer)


def test_bad_tolerances_are_refused():
    with pytest.raises(ValueError, match=r"tolerance in \[0, 1\), got 1"):
        compress(BilinearLinear(2, 2), 1.0)
