"""Every edit, and any sequence of them, equals the network patched in its forward pass."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from rlbilinear import BilinearConv2d, BilinearLinear, eigenfilters
from rlbilinear.edits import (
    AddBias,
    Compress,
    Edits,
    KeepEigenfilters,
    NotInvertibleError,
    RotateFilters,
    RotateInput,
    RotateOutput,
    ScaleEigenfilters,
    ScaleFilters,
    ScaleInput,
    ScaleOutput,
    Transplant,
    WriteFilters,
)
from rlbilinear.edits.functional import compress, rotation_matrix, transplant

bilinear = st.from_type(BilinearLinear) | st.from_type(BilinearConv2d)


def is_conv(layer):
    return isinstance(layer, (BilinearConv2d, nn.Conv2d))


def sizes(layer):
    """Inputs, outputs, and inputs of the quadratic form (a patch for a convolution)."""
    if is_conv(layer):
        return layer.in_channels, layer.out_channels, layer.left.weight[0].numel()
    return layer.in_features, layer.out_features, layer.in_features


def inputs_of(layer):
    return torch.randn(2, sizes(layer)[0], *((7, 6) if is_conv(layer) else ())).double()


def project(u, y):
    """The part of ``y`` along the rows of ``u``, on axis 1."""
    basis = torch.linalg.qr(torch.atleast_2d(u).T).Q
    return torch.einsum("ck,dk,nd...->nc...", basis, basis, y)


def rotate(source, target, angle, y, axis=1):
    """Complex multiplication in the plane of the two directions."""
    a = source / source.norm()
    b = target - (target @ a) * a
    b = b / b.norm()
    if angle is None:
        angle = math.acos(float((source @ target) / source.norm() / target.norm()))
    y = y.movedim(axis, -1)
    z = torch.complex(y @ a, y @ b) * complex(math.cos(angle), math.sin(angle))
    change = torch.outer((z.real - y @ a).flatten(), a) + torch.outer((z.imag - y @ b).flatten(), b)
    return (y + change.reshape(y.shape)).movedim(-1, axis)


def patches_of(layer, x):
    """The form's inputs at every position: (n, positions, inputs)."""
    if not is_conv(layer):
        return x[:, None]
    geometry = {name: getattr(layer.left, name) for name in ("stride", "padding", "dilation")}
    return F.unfold(x, layer.left.kernel_size, **geometry).transpose(1, 2)


def write(layer, u, values, y):
    """``y`` with the values (n, positions) added along ``u``."""
    added = torch.einsum("np,o->nop", values, u / (u @ u))
    return y + added.reshape(y.shape)


def dense_form(layer, u):
    """The direction's matrix, linear and constant part, from the weights one by one."""
    left, right = layer.left.weight.flatten(1), layer.right.weight.flatten(1)
    zeros = left.new_zeros(len(left))
    b, c = (zeros if part.bias is None else part.bias for part in (layer.left, layer.right))
    if layer.down is None:
        weight, constant = u, 0.0
    else:
        weight = u @ layer.down.weight.flatten(1)
        constant = 0.0 if layer.down.bias is None else u @ layer.down.bias
    matrix = sum(w * torch.outer(p, q) for w, p, q in zip(weight, left, right, strict=True))
    linear = (weight * c) @ left + (weight * b) @ right
    return (matrix + matrix.T) / 2, linear, constant + weight @ (b * c)


def eigenpairs(layer, u):
    values, vectors = torch.linalg.eigh(dense_form(layer, u)[0])
    order = values.abs().argsort(descending=True)
    return [(values[i], vectors[:, i]) for i in order if values[i].abs() > 1e-9]


# Each draws an edit of a layer, and the same as a change of the forward pass ``f -> patched f``.
# ``known`` is the layer as edited so far, to look up its spectrum.


@st.composite
def scaled_eigenfilters(draw, known):
    u = torch.randn(sizes(known)[1]).double()
    pairs = eigenpairs(known, u)
    indices = st.integers(0, max(len(pairs) - 1, 0))
    factors = draw(st.dictionaries(indices, st.floats(-2, 2), max_size=3 if pairs else 0))

    def patch(forward):
        def run(x):
            each = [
                (a - 1) * pairs[i][0] * (patches_of(known, x) @ pairs[i][1]) ** 2
                for i, a in factors.items()
            ]
            return write(known, u, sum(each), forward(x)) if each else forward(x)

        return run

    return ScaleEigenfilters(u, factors), patch


def written_filters(known):
    _, outputs, inputs = sizes(known)
    u, values = torch.randn(outputs).double(), torch.randn(2).double()
    filters = torch.randn(2, inputs).double()

    def patch(forward):
        return lambda x: write(
            known, u, (patches_of(known, x) @ filters.T) ** 2 @ values, forward(x)
        )

    return st.just((WriteFilters(u, values, filters), patch))


@st.composite
def kept_eigenfilters(draw, known):
    count = draw(st.integers(1, min(2, sizes(known)[1])))
    directions = torch.randn(count, sizes(known)[1]).double()
    pairs = [eigenpairs(known, u) for u in directions]
    k = draw(st.integers(0, min(map(len, pairs))))
    duals = torch.linalg.pinv(directions).T

    def patch(forward):
        def run(x):
            y, seen = forward(x), patches_of(known, x)
            for dual, dropped in zip(duals, pairs, strict=True):
                for value, vector in dropped[k:]:
                    values = -value * (seen @ vector) ** 2
                    y = y + torch.einsum("np,o->nop", values, dual).reshape(y.shape)
            return y

        return run

    return KeepEigenfilters(directions if count > 1 else directions[0], k), patch


@st.composite
def rotated_filters(draw, known):
    _, outputs, inputs = sizes(known)
    if inputs < 2:
        return Edits(()), lambda forward: forward
    u, source, target = (torch.randn(n).double() for n in (outputs, inputs, inputs))
    angle = draw(st.none() | st.floats(-4, 4))
    matrix, linear, constant = dense_form(known, u)

    def value(seen):
        return ((seen @ matrix) * seen).sum(-1) + seen @ linear + constant

    def patch(forward):
        def run(x):
            seen = patches_of(known, x)
            turned = rotate(target, source, angle, seen, axis=-1) if angle is None else None
            if turned is None:
                turned = rotate(source, target, -angle, seen, axis=-1)
            return write(known, u, value(turned) - value(seen), forward(x))

        return run

    return RotateFilters(u, source, target, angle), patch


@st.composite
def scaled_output(draw, known):
    u = torch.randn(draw(st.integers(1, 2)), sizes(known)[1]).double()
    factor = draw(st.floats(-2, 2))

    def patch(forward):
        return lambda x: (y := forward(x)) + (factor - 1) * project(u, y)

    return ScaleOutput(u, factor), patch


@st.composite
def scaled_input(draw, known):
    u, factor = torch.randn(sizes(known)[0]).double(), draw(st.floats(-2, 2))
    return ScaleInput(
        u, factor
    ), lambda forward: lambda x: forward(x + (factor - 1) * project(u, x))


@st.composite
def rotated_output(draw, known):
    outputs = sizes(known)[1]
    if outputs < 2:
        return Edits(()), lambda forward: forward
    source, target = torch.randn(2, outputs).double()
    angle = draw(st.none() | st.floats(-4, 4))
    return RotateOutput(
        source, target, angle
    ), lambda forward: lambda x: rotate(source, target, angle, forward(x))


@st.composite
def rotated_input(draw, known):
    inputs = sizes(known)[0]
    if inputs < 2:
        return Edits(()), lambda forward: forward
    source, target = torch.randn(2, inputs).double()
    angle = draw(st.floats(-4, 4))
    return RotateInput(
        source, target, angle
    ), lambda forward: lambda x: forward(rotate(source, target, -angle, x))


def transplanted(known):
    donor = copy.deepcopy(known)
    for weight in donor.parameters():
        nn.init.normal_(weight)
    u = torch.randn(sizes(known)[1]).double()

    def patch(forward):
        return lambda x: (y := forward(x)) - project(u, y) + project(u, donor(x))

    return st.just((Transplant(donor, u), patch))


def compressed(known):
    return st.just((Compress(), lambda forward: forward))


KINDS = (
    scaled_eigenfilters,
    written_filters,
    kept_eigenfilters,
    rotated_filters,
    scaled_output,
    scaled_input,
    rotated_output,
    rotated_input,
    transplanted,
    compressed,
)


def close(edited, patched, x):
    """Equal to 1e-10 of the largest output (of 1 where all are smaller)."""
    expected = patched(x)
    torch.testing.assert_close(
        edited(x), expected, atol=1e-10 * (1 + float(expected.detach().abs().max())), rtol=0
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=12)
@given(bilinear, st.data())
def test_an_edit_equals_the_patched_forward_pass(kind, layer, data):
    before = copy.deepcopy(layer.state_dict())
    edit, patch = data.draw(kind(layer))
    close(edit(layer), patch(layer), inputs_of(layer))
    assert all(torch.equal(before[name], now) for name, now in layer.state_dict().items())


@given(bilinear, st.data())
def test_any_sequence_of_edits_equals_the_patched_forward_pass(layer, data):
    known, forward, edits = layer, layer, Edits(())
    for kind in data.draw(st.lists(st.sampled_from(KINDS), min_size=2, max_size=4)):
        edit, patch = data.draw(kind(known))
        edits, forward, known = edits | edit, patch(forward), edit(known)
    x = inputs_of(layer)
    bias = torch.randn(forward(x).shape[1:]).double()
    close((edits | AddBias(bias))(layer), lambda x: forward(x) + bias, x)


def undoable(layer):
    """Edits that can be undone, of a layer with at least two inputs and outputs."""
    inputs, outputs, patch = sizes(layer)
    u, w = torch.randn(2, outputs).double()
    reads = torch.randn(2, inputs).double()
    filters = torch.randn(2, patch).double()
    count = layer.quadratic_form(u).rank
    return [
        ScaleEigenfilters(u, {i: f for i, f in {0: -0.5, 1: 3.0}.items() if i < count}).on(layer),
        WriteFilters(u, torch.randn(2).double(), filters),
        RotateFilters(u, *filters),
        RotateFilters(u, *filters, angle=2.0),
        ScaleOutput(torch.stack([u, w]), -2.0),
        ScaleInput(reads[0], 0.25),
        RotateOutput(u, w),
        RotateInput(*reads, angle=-1.0),
        AddBias(torch.randn(layer(inputs_of(layer)).shape[1:]).double()),
        Compress(),
    ]


@settings(max_examples=15)
@given(bilinear.filter(lambda layer: min(sizes(layer)) > 1), st.data())
def test_edits_can_be_undone_one_by_one_and_in_sequence(layer, data):
    x = inputs_of(layer)
    edits = Edits(data.draw(st.permutations(undoable(layer)))[:4])
    for each in (*edits, edits):
        edited = each(layer)
        assert isinstance(each, Compress) or not torch.allclose(edited(x), layer(x))
        close(each.inverse()(edited), layer, x)
    assert len(edits.inverse()) <= len(edits) == 4


def test_what_is_lost_cannot_be_undone():
    layer = BilinearLinear(4, 3).double()
    u, v = torch.tensor([1.0, -1.0, 0.0]), torch.eye(4)[:1]
    lost = {
        "an ablated eigenfilter is not in the edited layer": ScaleEigenfilters(u, {0: 0.0}),
        r"by edit.on\(layer\), and undo that": ScaleEigenfilters(u, {0: 0.5}),
        "an ablated filter is not in": ScaleFilters(u, v, [0.0]),
        "what was written along it": ScaleOutput(u, 0.0),
        "what was read along it": ScaleInput(torch.ones(4), 0.0),
        "what it takes away": KeepEigenfilters(u, 1),
        "what was there before": Transplant(layer),
    }
    for reason, edit in lost.items():
        with pytest.raises(NotInvertibleError, match=reason):
            edit.inverse()
        with pytest.raises(NotInvertibleError, match=reason):
            (ScaleOutput(u, 2.0) | edit).inverse()


def test_edits_say_what_they_change():
    one, mixed = torch.eye(8)[5], torch.tensor([3.0, 0, -4, 0])
    said = {
        "eigenfilters of channel 5 of 8 scaled, {0: 0, 2: -1}": ScaleEigenfilters(
            one, {2: -1.0, 0: 0.0}
        ),
        "eigenfilters of channel 5 of 8 scaled, {0 to 2: 0}": ScaleEigenfilters(
            one, dict.fromkeys(range(3), 0.0)
        ),
        "only eigenfilters top 2 of 2 directions of 8 kept": KeepEigenfilters(torch.eye(8)[:2], 2),
        "what is written along direction (-0.80[2] +0.60[0]) of 4 ablated": ScaleOutput(mixed, 0),
        "what is read along channel 5 of 8 scaled by 2": ScaleInput(one, 2.0),
        "what is written rotated by 90.0 degrees from channel 5 of 8 to channel 0 of 8": (
            RotateOutput(one, torch.eye(8)[0])
        ),
        "bias map of norm 2 (1 x 2 x 2) added": AddBias(torch.ones(1, 2, 2)),
        "taken from Anna (Linear)": Transplant(nn.Linear(1, 1), name="Anna"),
        "what is written along channel 5 of 8 taken from another layer (Linear)": Transplant(
            nn.Linear(1, 1), one
        ),
    }
    for words, edit in said.items():
        assert repr(edit) == str(edit) == words
        assert str(edit.at("block2")) == f"block2: {words}"
    first, second, third = list(said.values())[:3]
    assert str(first | second) == f"{first}; then {second}"
    assert [*((first | second) | third)] == [*(first | (second | third))] == [first, second, third]
    assert str(Edits(())) == "nothing"


def test_biases_around_a_layer_stay_or_follow_its_output():
    layer, x = BilinearConv2d(3, 4, 3, padding=1).double(), torch.randn(2, 3, 5, 5).double()
    u, w, bias = torch.randn(4).double(), torch.randn(4).double(), torch.randn(4, 5, 5).double()
    biased = AddBias(bias)(layer)
    scaled = bias - 0.5 * project(u, bias[None])[0]
    torch.testing.assert_close(
        ScaleOutput(u, 0.5)(biased)(x), ScaleOutput(u, 0.5)(layer)(x) + scaled
    )
    turned = rotate(u, w, None, bias, axis=0)
    torch.testing.assert_close(RotateOutput(u, w)(biased)(x), RotateOutput(u, w)(layer)(x) + turned)
    for edit in (KeepEigenfilters(u, 1), ScaleEigenfilters(u, {0: 0.0}), Compress()):
        torch.testing.assert_close(edit(biased)(x), edit(layer)(x) + bias)
    assert isinstance(ScaleEigenfilters(u, {0: 2.0}).on(biased), ScaleFilters)


def test_a_rotated_eigenfilter_keeps_its_eigenvalue():
    """A quarter turn in the plane of two eigenfilters swaps them; half of it lies between."""
    layer, u = BilinearConv2d(3, 4, 3).double(), torch.randn(4).double()
    before = eigenfilters(layer, u)
    first, second = before.filters[:2]
    after = eigenfilters(RotateFilters(u, first, second)(layer), u)
    torch.testing.assert_close(after.values, before.values)
    torch.testing.assert_close((after.filters[0] * second).sum().abs(), torch.tensor(1.0).double())
    half = eigenfilters(RotateFilters(u, first, second, math.pi / 4)(layer), u)
    between = (first + second) / math.sqrt(2)
    torch.testing.assert_close((half.filters[0] * between).sum().abs(), torch.tensor(1.0).double())


def test_transplants_are_whole_or_along_directions():
    ours, theirs = (nn.Conv2d(3, 4, 3, padding=1).double() for _ in range(2))
    x, u = torch.randn(2, 3, 6, 6).double(), torch.randn(2, 4).double()
    torch.testing.assert_close(transplant(ours, theirs)(x), theirs(x))
    mixed = ours(x) - project(u, ours(x)) + project(u, theirs(x))
    torch.testing.assert_close(transplant(ours, theirs, u)(x), mixed)
    assert transplant(ours.float(), theirs).weight.dtype == torch.float32
    with pytest.raises(ValueError, match="another shape"):
        transplant(ours, nn.Conv2d(3, 4, 3))
    with pytest.raises(TypeError, match="kind Conv2d, got BilinearConv2d"):
        transplant(ours, BilinearConv2d(3, 4, 3, padding=1))
    with pytest.raises(ValueError, match="another shape"):
        transplant(BilinearLinear(3, 4), BilinearLinear(3, 4, bias=True))


def test_bad_edits_are_refused():
    layer, u = BilinearLinear(5, 3), torch.ones(3)
    with pytest.raises(ValueError, match="orthonormal"):
        ScaleFilters(u, torch.ones(2, 5), [1.0, 1.0])(layer)
    with pytest.raises(ValueError, match="2 finite factors"):
        ScaleFilters(u, torch.eye(5)[:2], [1.0])(layer)
    with pytest.raises(ValueError, match="linearly independent"):
        KeepEigenfilters(torch.stack([u, -u]), 1)(layer)
    with pytest.raises(ValueError, match="parallel"):
        RotateOutput(u, -2 * u)(layer)
    with pytest.raises(ValueError, match="filters of 5 inputs"):
        RotateFilters(u, torch.ones(4), torch.ones(4))(layer)
    with pytest.raises(ValueError, match="angle must be a finite number"):
        rotation_matrix(torch.eye(2)[0], torch.eye(2)[1], float("nan"))
    with pytest.raises(TypeError, match="of a network, such as an agent; got BilinearLinear"):
        ScaleOutput(u, 0.0).at("dense")(layer)
    with pytest.raises(ValueError, match="its place already: dense"):
        ScaleOutput(u, 0.0).at("dense").at("block1")
    with pytest.raises(
        TypeError, match="expected a BilinearLinear or BilinearConv2d, got Sequential"
    ):
        compress(nn.Sequential(layer))
