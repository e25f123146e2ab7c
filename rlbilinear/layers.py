"""Bilinear layers: products of two linear maps, the third-order tensors of this toolkit."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.quadratic import QuadraticForm, as_direction, to_double


class BilinearLinear(nn.Module):
    """Bilinear dense layer ``y = down(left(x) * right(x))``.

    Without ``hidden_features`` there is no ``down`` (it is the identity) and the hidden units are
    the outputs. With ``bias=True`` all of ``left``, ``right`` and ``down`` have one.

    Shapes: input ``(..., in_features)``, output ``(..., out_features)``.

    Source: Pearce et al., "Bilinear MLPs enable weight-based mechanistic interpretability".

    Raises:
        ValueError: a size is not positive.
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
        _check_positive(
            in_features=in_features, out_features=out_features, hidden_features=hidden_features
        )
        hidden = out_features if hidden_features is None else hidden_features
        self.left = nn.Linear(in_features, hidden, bias=bias)
        self.right = nn.Linear(in_features, hidden, bias=bias)
        self.down = None if hidden_features is None else nn.Linear(hidden, out_features, bias=bias)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Apply the layer."""
        hidden = self.left(x) * self.right(x)
        return hidden if self.down is None else self.down(hidden)

    @property
    def in_features(self) -> int:
        """The number of inputs."""
        return self.left.in_features

    @property
    def out_features(self) -> int:
        """The number of outputs."""
        return (self.down or self.left).out_features

    @property
    def hidden_features(self) -> int:
        """The number of products ``left(x) * right(x)``."""
        return self.left.out_features

    def quadratic_form(self, direction: Float[Tensor, "outputs"]) -> QuadraticForm:
        """Return the form ``x -> direction . y(x)``, biases included, in float64.

        Raises:
            ValueError: the direction is not ``(out_features,)`` or not finite.
        """
        direction = as_direction(direction, self.out_features, "outputs")
        return _quadratic_form(self.left, self.right, self.down, direction)


class BilinearConv2d(nn.Module):
    """Bilinear convolution ``y = down(left(x) * right(x))``, zero-padded.

    ``left`` and ``right`` are convolutions of the same geometry, ``down`` is a 1x1 convolution
    (the identity when ``hidden_channels`` is not given). Both convolutions run as one.

    Shapes: input ``(batch, in_channels, h, w)``, output ``(batch, out_channels, h', w')``.

    Raises:
        ValueError: a size is not positive, or the padding is not a number of pixels.
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
        _check_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            hidden_channels=hidden_channels,
            kernel_size=kernel_size,
            stride=stride,
        )
        if isinstance(padding, str):
            raise ValueError(f"padding must be a number of pixels or a pair, got {padding!r}")
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

    @property
    def in_channels(self) -> int:
        """The number of input channels."""
        return self.left.in_channels

    @property
    def out_channels(self) -> int:
        """The number of output channels."""
        return (self.down or self.left).out_channels

    @property
    def hidden_channels(self) -> int:
        """The number of products ``left(x) * right(x)`` at every position."""
        return self.left.out_channels

    def quadratic_form(self, direction: Float[Tensor, "outputs"]) -> QuadraticForm:
        """Return the form ``patch -> direction . y`` at any one position, biases included.

        Its inputs are the zero-padded patch under the kernel, flattened from ``(in_channels, kh,
        kw)``, as `torch.nn.functional.unfold` gives it. In float64.

        Raises:
            ValueError: the direction is not ``(out_channels,)`` or not finite.
        """
        direction = as_direction(direction, self.out_channels, "output channels")
        return _quadratic_form(self.left, self.right, self.down, direction)


Affine = nn.Linear | nn.Conv2d


def _quadratic_form(
    left: Affine, right: Affine, down: Affine | None, direction: Float[Tensor, "outputs"]
) -> QuadraticForm:
    """``direction . down((W x + b) * (V x + c))`` as a form of ``x`` (a flat patch for a conv)."""
    w, b = _weight_and_bias(left)
    v, c = _weight_and_bias(right)
    direction = direction.to(w)
    if down is None:
        weight, constant = direction, direction.new_zeros(())
    else:
        p, e = _weight_and_bias(down)
        weight, constant = direction @ p, direction @ e
    linear = (weight * c) @ w + (weight * b) @ v
    return QuadraticForm(w, v, weight, linear, weight @ (b * c) + constant)


def _weight_and_bias(
    affine: Affine,
) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, "outputs"]]:
    weight = to_double(affine.weight).flatten(1)
    bias = weight.new_zeros(len(weight)) if affine.bias is None else to_double(affine.bias)
    return weight, bias


def _check_positive(**sizes: int | tuple[int, int] | None) -> None:
    for name, size in sizes.items():
        for number in size if isinstance(size, tuple) else (size,):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be positive, got {size!r}")
