"""Bilinear layers: products of two linear maps, the third-order tensors of this toolkit."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class BilinearLinear(nn.Module):
    """Bilinear dense layer ``y = down(left(x) * right(x))``.

    Without ``hidden_features`` there is no ``down`` (it is the identity) and the hidden units are
    the outputs. With ``bias=True`` all of ``left``, ``right`` and ``down`` have one.

    Shapes: input ``(..., in_features)``, output ``(..., out_features)``.

    Source: Pearce et al., "Bilinear MLPs enable weight-based mechanistic interpretability".
    """

    down: nn.Linear | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        hidden = out_features if hidden_features is None else hidden_features
        self.left = nn.Linear(in_features, hidden, bias=bias)
        self.right = nn.Linear(in_features, hidden, bias=bias)
        self.down = (
            None if hidden_features is None else nn.Linear(hidden, out_features, bias=bias)
        )

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Apply the layer."""
        hidden = self.left(x) * self.right(x)
        return hidden if self.down is None else self.down(hidden)


class BilinearConv2d(nn.Module):
    """Bilinear convolution ``y = down(left(x) * right(x))``, zero-padded.

    ``left`` and ``right`` are convolutions of the same geometry, ``down`` is a 1x1 convolution
    (the identity when ``hidden_channels`` is not given). Both convolutions run as one.

    Shapes: input ``(batch, in_channels, h, w)``, output ``(batch, out_channels, h', w')``.
    """

    down: nn.Conv2d | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        hidden_channels: int | None = None,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        hidden = out_channels if hidden_channels is None else hidden_channels
        self.left = nn.Conv2d(in_channels, hidden, kernel_size, stride, padding, bias=bias)
        self.right = nn.Conv2d(in_channels, hidden, kernel_size, stride, padding, bias=bias)
        self.down = (
            None if hidden_channels is None else nn.Conv2d(hidden, out_channels, 1, bias=bias)
        )

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch outputs out_height out_width"]:
        """Apply the layer."""
        weight = torch.cat([self.left.weight, self.right.weight])
        bias = (
            None
            if self.left.bias is None or self.right.bias is None
            else torch.cat([self.left.bias, self.right.bias])
        )
        left, right = F.conv2d(x, weight, bias, self.left.stride, self.left.padding).chunk(2, 1)
        hidden = left * right
        return hidden if self.down is None else self.down(hidden)
