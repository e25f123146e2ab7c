"""Bilinear layers: products of two linear maps, the third-order tensors of this toolkit."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.checks import check_pair, check_whole
from rlbilinear.family import FormFamily
from rlbilinear.quadratic import QuadraticForm, as_direction, as_directions
from rlbilinear.spectrum import to_double

MOST_TAPS_AS_ONE = 25
"""Positions in the kernel up to which a processor runs left and right faster as one convolution."""


class BilinearLinear(nn.Module):
    """Bilinear dense layer ``y = down(left(x) * right(x))``.

    Without ``hidden_features`` there is no ``down`` (it is the identity) and the hidden units are
    the outputs. With ``bias=True`` all of ``left``, ``right`` and ``down`` have one.

    Shapes: input ``(..., in_features)``, output ``(..., out_features)``.

    Source: Pearce et al., "Bilinear MLPs enable weight-based mechanistic interpretability".

    Raises:
        ValueError: a size is not a positive whole number.
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
        check_whole(in_features=in_features, out_features=out_features)
        if hidden_features is not None:
            check_whole(hidden_features=hidden_features)
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
        return _forms(self.left, self.right, self.down, direction[None])[0]

    def quadratic_forms(self, directions: Float[Tensor, "n outputs"] | None = None) -> FormFamily:
        """Return the forms of several directions, of every output when None, in float64.

        Raises:
            ValueError: the directions are not ``(n, out_features)`` or not finite.
        """
        if directions is not None:
            directions = as_directions(directions, self.out_features, "outputs")
        return _forms(self.left, self.right, self.down, directions)


class BilinearConv2d(nn.Module):
    """Bilinear convolution ``y = down(left(x) * right(x))``, zero-padded.

    ``left`` and ``right`` are convolutions of the same geometry, ``down`` is a 1x1 convolution
    (the identity when ``hidden_channels`` is not given). Both convolutions run as one where that is
    faster. There is one group only: a grouped layer is several layers side by side.

    Shapes: input ``(batch, in_channels, h, w)``, output ``(batch, out_channels, h', w')``.

    Raises:
        ValueError: a size is not a positive whole number, the padding is not a number of pixels, or
            there is more than one group.
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
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if groups != 1:
            raise ValueError(
                f"a bilinear convolution has one group, got groups={groups}: each group is a "
                "BilinearConv2d of its own on its own channels"
            )
        check_whole(in_channels=in_channels, out_channels=out_channels)
        if hidden_channels is not None:
            check_whole(hidden_channels=hidden_channels)
        check_pair(kernel_size=kernel_size, stride=stride, dilation=dilation)
        check_pair(0, padding=padding)
        hidden = out_channels if hidden_channels is None else hidden_channels
        self.left, self.right = (
            nn.Conv2d(in_channels, hidden, kernel_size, stride, padding, dilation, bias=bias)
            for _ in range(2)
        )
        self.down = (
            None if hidden_channels is None else nn.Conv2d(hidden, out_channels, 1, bias=bias)
        )

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch outputs out_height out_width"]:
        """Apply the layer."""
        left, right = self.left, self.right
        if not _alike(left, right):
            hidden = left(x) * right(x)
        elif _faster_as_one(x, left):
            weight = torch.cat([left.weight, right.weight])
            bias = (
                None
                if left.bias is None or right.bias is None
                else torch.cat([left.bias, right.bias])
            )
            one, two = _convolve(x, weight, bias, left).chunk(2, 1)
            hidden = one * two
        else:  # hooks on left and right are not called either
            one = _convolve(x, left.weight, left.bias, left)
            hidden = one * _convolve(x, right.weight, right.bias, left)
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
        return self.quadratic_forms(direction[None])[0]

    def quadratic_forms(self, directions: Float[Tensor, "n outputs"] | None = None) -> FormFamily:
        """Return the forms on patches of several directions, of every channel when None.

        Raises:
            ValueError: the directions are not ``(n, out_channels)`` or not finite, or ``left`` or
                ``right`` was replaced by a convolution of several groups or another padding mode.
        """
        if directions is not None:
            directions = as_directions(directions, self.out_channels, "output channels")
        for conv in (self.left, self.right):
            if conv.groups != 1 or conv.padding_mode != "zeros":
                raise ValueError(f"expected one group, zero-padded; got {conv}")
        return _forms(self.left, self.right, self.down, directions)


def _alike(left: nn.Conv2d, right: nn.Conv2d) -> bool:
    """Whether both convolutions differ in their numbers only; one may have been put in by hand."""
    return all(
        conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.kernel_size == left.kernel_size
        and conv.stride == left.stride
        and conv.padding == left.padding
        and conv.dilation == left.dilation
        and (conv.bias is None) == (left.bias is None)
        for conv in (left, right)
    )


def _faster_as_one(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether two such convolutions are faster as one: ``benchmark.py training`` measures it."""
    return x.device.type != "cpu" or conv.kernel_size[0] * conv.kernel_size[1] <= MOST_TAPS_AS_ONE


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, like: nn.Conv2d) -> Tensor:
    return F.conv2d(x, weight, bias, like.stride, like.padding, like.dilation)


Affine = nn.Linear | nn.Conv2d


def _forms(
    left: Affine,
    right: Affine,
    down: Affine | None,
    directions: Float[Tensor, "n outputs"] | None,
) -> FormFamily:
    """``directions @ down((W x + b) * (V x + c))`` as forms of ``x`` (a flat patch for a conv).

    Of every output when there are no directions.
    """
    w, v = (to_double(each.weight).flatten(1) for each in (left, right))
    if down is None:
        weights = torch.eye(len(w)).to(w) if directions is None else directions.to(w)
        constants = weights.new_zeros(len(weights))
    else:
        weights, constants = _weight_and_bias(down)
        if directions is not None:
            weights, constants = directions.to(w) @ weights, directions.to(w) @ constants
    if left.bias is None and right.bias is None:
        return FormFamily(w, v, weights, w.new_zeros(len(weights), w.shape[1]), constants)
    b, c = _weight_and_bias(left)[1], _weight_and_bias(right)[1]
    linears = (weights * c) @ w + (weights * b) @ v
    return FormFamily(w, v, weights, linears, weights @ (b * c) + constants)


def _weight_and_bias(
    affine: Affine,
) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, "outputs"]]:
    weight = to_double(affine.weight).flatten(1)
    bias = weight.new_zeros(len(weight)) if affine.bias is None else to_double(affine.bias)
    return weight, bias
