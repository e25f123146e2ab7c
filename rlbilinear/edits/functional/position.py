"""Position-dependent biases: plant a concept at a place, or erase it."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.checks import as_numbers
from rlbilinear.quadratic import to_double


class PositionBias(nn.Module):
    """A layer whose output has a fixed bias for every channel and position added.

    The bias is a buffer: it is in the state dict, and training leaves it as it is.

    Shapes: bias ``(channels, height, width)``, that of one output of ``layer``.
    """

    bias: Tensor

    def __init__(self, layer: nn.Module, bias: Float[Tensor, "*output"]) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("bias", bias)

    def forward(self, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch *output"]:
        """Apply the layer and add the bias.

        Raises:
            ValueError: the layer's output has another shape than the bias.
        """
        y = self.layer(x)
        if y.shape[1:] != self.bias.shape:
            raise ValueError(
                f"the bias is of shape {tuple(self.bias.shape)}, "
                f"the layer's output {tuple(y.shape[1:])}"
            )
        return y + self.bias


def add_bias_map(layer: nn.Module, bias: Float[Tensor, "channels height width"]) -> PositionBias:
    """Add a position-dependent bias to a layer's output: plant a concept, or erase it, at a place.

    Given a `PositionBias`, the biases add up in a new one.

    Args:
        layer: any module with one input and one output; it is copied.
        bias: of the shape of one output.

    Raises:
        TypeError: the layer is not a module.
        ValueError: the bias is not finite, or not of the shape of a bias that is there already.
    """
    if not isinstance(layer, nn.Module):
        raise TypeError(f"expected a module, got {layer!r}")
    bias = as_numbers(bias, "a bias")
    if not torch.isfinite(bias).all():
        raise ValueError("expected a bias of finite numbers, got nan or infinity")
    if isinstance(layer, PositionBias):
        if bias.shape != layer.bias.shape:
            raise ValueError(
                f"the layer's bias is of shape {tuple(layer.bias.shape)}, got {tuple(bias.shape)}"
            )
        total = to_double(layer.bias) + bias.detach().to(to_double(layer.bias))
        return PositionBias(copy.deepcopy(layer.layer), total.to(layer.bias))
    weight = next(layer.parameters(), None)
    bias = bias.detach().clone() if weight is None else bias.detach().to(weight, copy=True)
    return PositionBias(copy.deepcopy(layer), bias)
