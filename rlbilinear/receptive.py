"""Receptive fields: the rectangle of an input that a position of a later map reads, exactly."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from rlbilinear.edits.functional import PositionBias
from rlbilinear.layers import BilinearConv2d

POINTWISE = (nn.Identity, nn.ReLU)


class Rectangle(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of a map, the ends excluded.

    Row 0 is at the top. A rectangle may reach beyond the map, into its padding.
    """

    top: int
    left: int
    bottom: int
    right: int

    def clipped(self, height: int, width: int) -> "Rectangle":
        """Return the part on a map of that size; all zeros when there is none."""
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.bottom, height), min(self.right, width)
        there = top < bottom and left < right
        return Rectangle(top, left, bottom, right) if there else Rectangle(0, 0, 0, 0)


class Window(NamedTuple):
    """How a layer slides over its input: each number for (height, width)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def reads(self, outputs: Rectangle) -> Rectangle:
        """Return what the layer reads for a rectangle of outputs, padding included."""
        top, bottom = self._span(0, outputs.top, outputs.bottom)
        left, right = self._span(1, outputs.left, outputs.right)
        return Rectangle(top, left, bottom, right)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the output's (height, width) for an input's."""
        height, width = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, *self, strict=True)
        )
        return height, width

    def _span(self, axis: int, start: int, end: int) -> tuple[int, int]:
        kernel, stride, padding, dilation = (numbers[axis] for numbers in self)
        reach = dilation * (kernel - 1)
        return start * stride - padding, (end - 1) * stride - padding + reach + 1


def window(layer: nn.Module) -> Window:
    """Return the window of a convolution or pool; a single position for pointwise layers.

    Raises:
        ValueError: another kind of layer, or padding that is not in pixels.
    """
    if isinstance(layer, PositionBias):
        return window(layer.layer)
    if isinstance(layer, BilinearConv2d):
        return window(layer.left)
    if isinstance(layer, POINTWISE):
        return Window((1, 1), (1, 1), (0, 0), (1, 1))
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        raise ValueError(
            f"expected a convolution, a pool or a pointwise layer, got {type(layer).__name__}"
        )
    if isinstance(layer.padding, str) or getattr(layer, "ceil_mode", False):
        raise ValueError(f"expected padding in pixels and sizes rounded down, got {layer}")
    dilation = getattr(layer, "dilation", 1)
    return Window(*map(_pair, (layer.kernel_size, layer.stride, layer.padding, dilation)))


def read_by(outputs: Rectangle, windows: Sequence[Window], size: tuple[int, int]) -> Rectangle:
    """Return the part of the first layer's input that a rectangle of the last's outputs reads.

    Padding is cut off at every layer; all zeros when nothing but padding is read. Where taps have
    gaps (dilation, strides beyond the kernel) the rectangle includes them, at borders as well.

    Args:
        outputs: of the last layer.
        windows: of the layers, in the order of the forward pass.
        size: the first layer's input's (height, width).
    """
    sizes = [size]
    for each in windows:
        sizes.append(each.output_size(sizes[-1]))
    rectangle = outputs.clipped(*sizes[-1])
    for each, inputs in zip(reversed(windows), reversed(sizes[:-1]), strict=True):
        if rectangle.bottom == 0:
            break
        rectangle = each.reads(rectangle).clipped(*inputs)
    return rectangle


def _pair(number: int | tuple[int, ...]) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else (number[0], number[1])
