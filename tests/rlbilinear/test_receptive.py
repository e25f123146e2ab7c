import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rlbilinear import BilinearConv2d
from rlbilinear.edits.functional import PositionBias
from rlbilinear.receptive import Rectangle, read_by, window

numbers = st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def layers(draw):
    kernel, stride = draw(numbers), draw(numbers)
    smallest = kernel if isinstance(kernel, int) else min(kernel)
    kind = draw(st.sampled_from(["conv", "bilinear", "max", "relu"]))
    if kind == "relu":
        return nn.ReLU()
    if kind == "max":
        return nn.MaxPool2d(kernel, stride, smallest // 2)
    make = nn.Conv2d if kind == "conv" else BilinearConv2d
    padding, dilation = draw(st.integers(0, 2)), draw(numbers)
    layer = make(1, 1, kernel, stride=stride, padding=padding, dilation=dilation)
    return draw(st.sampled_from([layer, PositionBias(layer, torch.zeros(()))]))


@settings(max_examples=50)
@given(st.lists(layers(), min_size=1, max_size=3), st.data())
def test_what_is_read_is_where_a_nan_spreads_from(chosen, data):
    network = [layer.layer if isinstance(layer, PositionBias) else layer for layer in chosen]
    size = 17, 15
    windows = [window(layer) for layer in chosen]
    sizes = [size]
    for each in windows:
        sizes.append(each.output_size(sizes[-1]))
        if min(sizes[-1]) < 1:
            return
    y = data.draw(st.integers(0, sizes[-1][0] - 1))
    x = data.draw(st.integers(0, sizes[-1][1] - 1))
    found = read_by(Rectangle(y, x, y + 1, x + 1), windows, size)
    pixels = torch.ones(size[0] * size[1], 1, *size)
    pixels.view(len(pixels), -1).fill_diagonal_(float("nan"))
    with torch.no_grad():
        for layer in network:
            pixels = layer(pixels)
    assert tuple(pixels.shape[2:]) == sizes[-1]
    gaps = any(
        dilation > 1 or stride > kernel
        for each in windows
        for kernel, stride, _, dilation in zip(*each, strict=True)
    )
    reached = pixels[:, 0, y, x].isnan().reshape(size).nonzero()
    if not len(reached):  # nothing but padding is read
        assert found == (0, 0, 0, 0) or gaps
        return
    (top, left), (bottom, right) = reached.amin(0).tolist(), (reached.amax(0) + 1).tolist()
    assert (found.top, found.left) <= (top, left)
    assert found.bottom >= bottom and found.right >= right
    if not gaps:
        assert found == (top, left, bottom, right)


def test_a_padded_strided_patch():
    conv = BilinearConv2d(3, 2, (3, 5), stride=2, padding=(1, 2))
    patch = window(conv).reads(Rectangle(0, 3, 1, 4))
    assert patch == Rectangle(-1, 4, 2, 9)
    assert patch.clipped(8, 8) == Rectangle(0, 4, 2, 8)


def test_other_layers_are_refused():
    with pytest.raises(ValueError, match="pointwise layer, got Linear"):
        window(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="padding in pixels"):
        window(nn.Conv2d(2, 2, 3, padding="same"))
    with pytest.raises(ValueError, match="rounded down"):
        window(nn.MaxPool2d(3, ceil_mode=True))
