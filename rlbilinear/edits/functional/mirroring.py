"""Mirrored layers: the same layer in a world seen in a mirror.

``mirror_layer(layer, maps)(flip(x)) == flip(layer(x))``, exactly. Kernels are flipped. With stride
``s`` on a map of side ``w`` (padding ``p``, kernel ``k``) the last window ends ``r = (w + 2p - k)
mod s`` short of the padded side, so that mirrored windows start ``r`` later: the flipped kernel of
a convolution gets ``r`` columns of zeros in front, a max-pool has ``r`` less padding, and its last
window may reach over the far side (torch's ``ceil_mode``).
"""

import copy
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.edits.functional.parts import bias_of, with_parts, with_weights
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.quadratic import to_double

Axis = Literal["horizontal", "vertical"]
"""``horizontal`` swaps left and right, ``vertical`` up and down."""

_SIDE: dict[Axis, int] = {"vertical": 0, "horizontal": 1}


class _Windows(NamedTuple):
    """How a layer's windows lie along one side of its input."""

    kernel: int
    padding: int
    rest: int
    """positions, padded ones included, after the last window; negative when it reaches over"""

    @classmethod
    def of(cls, layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, size: int, side: int) -> "_Windows":
        kernel, stride, padding = (
            _pair(values)[side] for values in (layer.kernel_size, layer.stride, layer.padding)
        )
        if getattr(layer, "dilation", 1) not in (1, (1, 1)):
            raise ValueError(f"expected a layer without dilation, got {layer}")
        room = size + 2 * padding - kernel
        last = room // stride
        if getattr(layer, "ceil_mode", False) and room % stride:
            last += (last + 1) * stride < size + padding  # windows in the padding only are none
        return cls(kernel, padding, room - last * stride)


def _pair(values: int | str | tuple[int, ...]) -> tuple[int, int]:
    if isinstance(values, str):
        raise ValueError(f"expected sizes in pixels, got {values!r}")
    return (values, values) if isinstance(values, int) else (values[0], values[1])


def mirror_layer(
    layer: nn.Module, maps: tuple[int, int, int], axis: Axis = "horizontal"
) -> nn.Module:
    """Mirror a layer: on mirrored maps it gives the mirrored output.

    A dense layer on flattened maps reads them mirrored, and its output is the same.

    Args:
        layer: a convolution, bilinear or not, a pool, a dense layer, bilinear or not, or a layer
            without sides (ReLU, Flatten, Identity).
        maps: ``(channels, height, width)`` of its input, for a dense layer before flattening.
        axis: what is swapped.

    Raises:
        TypeError: another kind of layer.
        ValueError: an unknown axis, maps that do not fit, or a pool whose windows cannot lie
            mirrored.
    """
    if axis not in _SIDE:
        raise ValueError(f"unknown axis {axis!r}; choose from {', '.join(_SIDE)}")
    side = _SIDE[axis]
    if isinstance(layer, (BilinearLinear, BilinearConv2d)):
        left, right = (mirror_layer(part, maps, axis) for part in (layer.left, layer.right))
        return with_parts(layer, left=left, right=right)
    if isinstance(layer, nn.Linear):
        return with_weights(layer, _mirrored_columns(layer, maps, side), bias_of(layer))
    if isinstance(layer, nn.Conv2d):
        weight = _mirrored_kernels(layer, maps[1 + side], side)
        return with_weights(layer, weight, bias_of(layer))
    if isinstance(layer, nn.MaxPool2d):
        return _mirrored_max_pool(layer, maps[1 + side], side)
    if isinstance(layer, nn.AvgPool2d):
        rest = _Windows.of(layer, maps[1 + side], side).rest
        if rest:
            raise ValueError(
                f"{layer} on {maps[1 + side]} positions leaves {rest} out at one side only: its "
                "mirror image is not an average-pool"
            )
        return copy.deepcopy(layer)
    if isinstance(layer, (nn.ReLU, nn.Flatten, nn.Identity)):
        return copy.deepcopy(layer)
    raise TypeError(
        "expected a convolution, a pool, a dense layer, ReLU, Flatten or Identity, "
        f"got {type(layer).__name__}"
    )


def _mirrored_columns(layer: nn.Linear, maps: tuple[int, int, int], side: int) -> Tensor:
    weight = to_double(layer.weight)
    channels, height, width = maps
    if channels * height * width != weight.shape[1]:
        raise ValueError(f"{weight.shape[1]} inputs are not flattened maps of shape {maps}")
    return weight.reshape(-1, *maps).flip(side + 2).flatten(1)


def _mirrored_kernels(layer: nn.Conv2d, size: int, side: int) -> Tensor:
    if layer.groups != 1 or set(layer.dilation) != {1} or layer.padding_mode != "zeros":
        raise ValueError(f"expected a plain convolution, zero-padded, got {layer}")
    rest = _Windows.of(layer, size, side).rest
    before = (rest, 0, 0, 0) if side == 1 else (0, 0, rest, 0)
    return F.pad(to_double(layer.weight).flip(side + 2), before)


def _mirrored_max_pool(layer: nn.MaxPool2d, size: int, side: int) -> nn.Module:
    windows = _Windows.of(layer, size, side)
    if windows.rest == 0:
        return copy.deepcopy(layer)
    padding = windows.padding - windows.rest
    if not 0 <= padding <= windows.kernel // 2:
        raise ValueError(
            f"{layer} on {size} positions would need a padding of {padding} to lie mirrored"
        )
    along, across = (_pool_of_one_side(layer, which) for which in (side, 1 - side))
    along.padding = (padding, 0) if side == 0 else (0, padding)
    along.ceil_mode = windows.rest > 0
    return nn.Sequential(across, along)  # a max over windows is a max over rows, then columns


def _pool_of_one_side(layer: nn.MaxPool2d, side: int) -> nn.MaxPool2d:
    def only(values: int | tuple[int, int], other: int) -> tuple[int, int]:
        value = _pair(values)[side]
        return (value, other) if side == 0 else (other, value)

    return nn.MaxPool2d(
        only(layer.kernel_size, 1),
        only(layer.stride, 1),
        only(layer.padding, 0),
        ceil_mode=layer.ceil_mode,
    )
