import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rlbilinear import BilinearConv2d, BilinearLinear, keep_eigenfilters, scale_eigenfilters
from rlbilinear.edits.functional import (
    PositionBias,
    add_bias_map,
    project_input,
    scale_output,
    scaling_matrix,
    write_eigenfilters,
)

CLOSE = {"atol": 1e-10, "rtol": 0}
bilinear = st.from_type(BilinearLinear) | st.from_type(BilinearConv2d)


@st.composite
def affine(draw):
    torch.manual_seed(draw(st.integers(0, 2**32)))
    inputs, outputs = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    bias = draw(st.booleans())
    if draw(st.booleans()):
        return nn.Linear(inputs, outputs, bias=bias).double()
    stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, 2))
    return nn.Conv2d(inputs, outputs, (3, 2), stride, padding, bias=bias).double()


def sizes(layer):
    if isinstance(layer, (BilinearConv2d, nn.Conv2d)):
        return layer.in_channels, layer.out_channels
    return layer.in_features, layer.out_features


def inputs_of(layer):
    maps = (7, 6) if isinstance(layer, (BilinearConv2d, nn.Conv2d)) else ()
    return torch.randn(2, sizes(layer)[0], *maps).double()


def along(u, y):
    """``u . y`` over axis 1."""
    return torch.einsum("o,no...->n...", u, y)


def write(u, values):
    """``values u / (u . u)``, along axis 1."""
    return torch.einsum("n...,o->no...", values, u / (u @ u))


def pure_quadratic(layer, form):
    """``x -> u . y`` of the eigenpair (value, vector): by convolution or product."""
    value, vector = form
    if isinstance(layer, BilinearLinear):
        return lambda x: value * (x @ vector) ** 2
    kernel = vector.reshape(1, *layer.left.weight.shape[1:])
    shape = layer.left.stride, layer.left.padding, layer.left.dilation
    return lambda x: value * nn.functional.conv2d(x, kernel, None, *shape)[:, 0] ** 2


def eigenpairs(layer, u):
    """By the dense matrix, ordered by |value|."""
    values, vectors = torch.linalg.eigh(layer.quadratic_form(u).matrix())
    order = values.abs().argsort(descending=True)
    return [(values[i], vectors[:, i]) for i in order if values[i].abs() > 1e-9]


@given(bilinear, st.data())
def test_scaling_eigenfilters_equals_the_patched_forward_pass(layer, data):
    u = torch.randn(sizes(layer)[1]).double()
    pairs = eigenpairs(layer, u)
    indices = st.integers(0, len(pairs) - 1)
    factors = data.draw(st.dictionaries(indices, st.floats(-2, 2), max_size=3))
    x = inputs_of(layer)
    patched = layer(x)
    for i, factor in factors.items():
        patched = patched + write(u, (factor - 1) * pure_quadratic(layer, pairs[i])(x))
    torch.testing.assert_close(scale_eigenfilters(layer, u, factors)(x), patched, **CLOSE)


@given(bilinear, st.integers(1, 4))
def test_writing_other_eigenfilters_equals_the_patched_forward_pass(layer, k):
    u, values = torch.randn(sizes(layer)[1]).double(), torch.randn(k).double()
    filters = torch.randn(k, layer.left.weight[0].numel()).double()
    x = inputs_of(layer)
    patched = layer(x)
    for pair in zip(values, filters, strict=True):
        patched = patched + write(u, pure_quadratic(layer, pair)(x))
    edited = write_eigenfilters(layer, u, values, filters.reshape(k, *layer.left.weight.shape[1:]))
    torch.testing.assert_close(edited(x), patched, **CLOSE)


def test_filters_that_do_not_fit_are_refused():
    layer = BilinearConv2d(2, 3, 3)
    with pytest.raises(ValueError, match=r"filters of 18 inputs.*shape \(1, 5\)"):
        write_eigenfilters(layer, torch.ones(3), torch.ones(1), torch.ones(1, 5))
    with pytest.raises(ValueError, match="finite values"):
        write_eigenfilters(layer, torch.ones(3), torch.tensor([torch.nan]), torch.ones(1, 18))


@given(bilinear, st.data())
def test_keeping_eigenfilters_equals_the_patched_forward_pass(layer, data):
    u = torch.randn(sizes(layer)[1]).double()
    pairs = eigenpairs(layer, u)
    kept = data.draw(st.sets(st.integers(0, len(pairs) - 1)))
    x = inputs_of(layer)
    patched = layer(x)
    for i in set(range(len(pairs))) - kept:
        patched = patched - write(u, pure_quadratic(layer, pairs[i])(x))
    edited = keep_eigenfilters(layer, u, kept)
    torch.testing.assert_close(edited(x), patched, **CLOSE)
    values = edited.quadratic_form(u).eigh().values
    expected = torch.stack([u[0] * 0, *(pairs[i][0] for i in sorted(kept))])[1:]
    torch.testing.assert_close(values[: len(kept)].abs(), expected.abs(), **CLOSE)
    assert (values[len(kept) :].abs() < 1e-12).all()
    top = keep_eigenfilters(layer, u, len(kept))
    torch.testing.assert_close(top(x), keep_eigenfilters(layer, u, range(len(kept)))(x), **CLOSE)


@given(bilinear | affine(), st.integers(1, 3), st.floats(-2, 2))
def test_projecting_the_input_equals_feeding_a_projected_input(layer, several, factor):
    d = sizes(layer)[0]
    u = torch.randn(d if several == 1 else (several, d)).double()
    basis = torch.linalg.qr(torch.atleast_2d(u).T).Q
    x = inputs_of(layer)
    component = torch.einsum("ck,dk,nd...->nc...", basis, basis, x)
    expected = layer(x + (factor - 1) * component)
    torch.testing.assert_close(project_input(layer, u, factor)(x), expected, **CLOSE)


@given(bilinear | affine(), st.floats(-2, 2))
def test_scaling_the_output_equals_scaling_what_comes_out(layer, factor):
    u = torch.randn(sizes(layer)[1]).double()
    x = inputs_of(layer)
    y = layer(x)
    expected = y + (factor - 1) * write(u, along(u, y))
    torch.testing.assert_close(scale_output(layer, u, factor)(x), expected, **CLOSE)


@given(bilinear)
def test_a_position_bias_is_added_and_adds_up(layer):
    x = inputs_of(layer)
    y = layer(x)
    first, second = torch.randn(2, *y.shape[1:]).double()
    once = add_bias_map(layer, first)
    twice = add_bias_map(once, second)
    torch.testing.assert_close(once(x), y + first, **CLOSE)
    torch.testing.assert_close(twice(x), y + first + second, **CLOSE)
    assert type(twice.layer) is type(layer)


@given(bilinear)
def test_edits_compose(layer):
    inputs, outputs = sizes(layer)
    u, w = torch.randn(outputs).double(), torch.randn(inputs).double()
    x = inputs_of(layer)
    read = torch.einsum("c,d,nd...->nc...", w / (w @ w), w, x)
    blind = project_input(layer, w)
    edited = scale_output(scale_eigenfilters(blind, u, {}), u, 0.5)
    y = layer(x - read)
    torch.testing.assert_close(edited(x), y - write(u, along(u, y)) / 2, **CLOSE)
    rank = blind.quadratic_form(u).rank
    for _ in range(rank):
        blind = scale_eigenfilters(blind, u, {0: 0.0})
    assert blind.quadratic_form(u).rank == 0


@given(bilinear)
def test_an_edit_can_be_undone(layer):
    u = torch.randn(sizes(layer)[1]).double()
    doubled = scale_eigenfilters(layer, u, {0: 2.0})
    restored = scale_eigenfilters(doubled, u, {0: 0.5})
    x = inputs_of(layer)
    torch.testing.assert_close(restored(x), layer(x), **CLOSE)


EDITS = [
    partial(scale_eigenfilters, factors={0: -1.0}),
    partial(keep_eigenfilters, keep=1),
    partial(scale_output, factor=0.0),
    project_input,
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: getattr(edit, "func", edit).__name__)
@pytest.mark.parametrize("hidden", [None, 5])
@pytest.mark.parametrize("bias", [False, True])
def test_edited_layers_are_ordinary_layers(edit, hidden, bias):
    """The original and the random state are untouched; dtype kept; a fresh layer loads the edit."""
    layer = BilinearConv2d(3, 3, 3, hidden_channels=hidden, stride=2, padding=1, bias=bias)
    before, random_state = copy.deepcopy(layer.state_dict()), torch.random.get_rng_state()
    edited = edit(layer, torch.tensor([1.0, -2.0, 0.5]))
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(torch.equal(before[name], now) for name, now in layer.state_dict().items())
    assert {p.dtype for p in edited.parameters()} == {torch.float32}
    assert all(p.requires_grad and p.is_contiguous() for p in edited.parameters())
    memory = {p.data_ptr() for p in layer.parameters()}
    assert memory.isdisjoint(p.data_ptr() for p in edited.parameters())
    fresh = BilinearConv2d(
        3,
        3,
        3,
        hidden_channels=None if edited.down is None else edited.hidden_channels,
        stride=2,
        padding=1,
        bias=bias,
    )
    fresh.load_state_dict(edited.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(fresh(x), edited(x))
    double = edit(copy.deepcopy(layer).double(), torch.tensor([1.0, -2.0, 0.5]))
    torch.testing.assert_close(edited(x).double(), double(x.double()), atol=1e-5, rtol=1e-5)


def test_position_bias_is_saved_and_copied():
    layer, bias = nn.MaxPool2d(2), torch.randn(3, 2, 2)
    edited = add_bias_map(layer, bias)
    fresh = PositionBias(nn.MaxPool2d(2), torch.zeros(3, 2, 2))
    fresh.load_state_dict(edited.state_dict())
    x, expected = torch.randn(4, 3, 4, 4), bias.clone()
    bias.zero_()
    torch.testing.assert_close(fresh(x), layer(x) + expected)
    half = add_bias_map(nn.Conv2d(3, 3, 1).half(), expected)
    assert half.bias.dtype == torch.float16


def test_scaling_matrix_scales_the_span_and_nothing_else():
    rows = torch.tensor([[1.0, 1, 0, 0], [2, 2, 0, 0], [0, 1, 1, 0]])
    scaling = scaling_matrix(rows, -1.0)
    torch.testing.assert_close(rows.double() @ scaling, -rows.double(), **CLOSE)
    other = torch.tensor([[1.0, -1, 1, 0], [0, 0, 0, 3]]).double()
    torch.testing.assert_close(other @ scaling, other, **CLOSE)


def test_bad_edits_are_refused():
    layer = BilinearLinear(6, 4, hidden_features=2)
    u = torch.ones(4)
    with pytest.raises(ValueError, match=r"from 0 to 3 \(the rank is 4\)"):
        scale_eigenfilters(layer, u, {4: 0.0})
    with pytest.raises(ValueError, match="rank is 4"):
        keep_eigenfilters(layer, u, 5)
    with pytest.raises(ValueError, match="keep must be a whole number, 0 or more; got -1"):
        keep_eigenfilters(layer, u, -1)
    with pytest.raises(
        ValueError, match="the factor of eigenfilter 0 must be a finite number, got nan"
    ):
        scale_eigenfilters(layer, u, {0: float("nan")})
    with pytest.raises(ValueError, match="not zero"):
        scale_eigenfilters(layer, 0 * u, {})
    with pytest.raises(ValueError, match="not zero"):
        project_input(layer, torch.zeros(6))
    with pytest.raises(ValueError, match=r"shape \(4,\), or several"):
        scale_output(layer, torch.ones(6), 0.0)
    with pytest.raises(TypeError, match="got ReLU"):
        project_input(nn.ReLU(), u)
    with pytest.raises(TypeError, match=r"PositionBias; edit its \.layer"):
        scale_eigenfilters(add_bias_map(layer, u), u, {0: 0.0})
    with pytest.raises(ValueError, match="2 groups"):
        project_input(nn.Conv2d(4, 4, 3, groups=2), u)


def test_bad_position_biases_are_refused():
    edited = add_bias_map(nn.Conv2d(2, 3, 1), torch.ones(3, 4, 4))
    with pytest.raises(ValueError, match=r"\(3, 4, 4\), the layer's output \(3, 5, 5\)"):
        edited(torch.ones(1, 2, 5, 5))
    with pytest.raises(ValueError, match=r"is of shape \(3, 4, 4\), got \(3, 1, 1\)"):
        add_bias_map(edited, torch.ones(3, 1, 1))
    with pytest.raises(ValueError, match="finite"):
        add_bias_map(nn.Conv2d(2, 3, 1), torch.full((3, 4, 4), float("nan")))
