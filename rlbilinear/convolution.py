"""Bilinear convolutions read from their weights: eigenfilters, and channel x space components."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.checks import as_numbers
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.quadratic import QuadraticForm
from rlbilinear.spectrum import Spectrum, sign_gauge, to_double


@dataclass(frozen=True, eq=False)
class Eigenfilters:
    """One output direction of a bilinear convolution, as squares of convolutions.

    At every position, borders included (zero padding meets these filters as it meets the layer's):

        ``direction . y = sum_i values_i (filters_i * x)² + linear * x + constant``

    The linear and constant parts come from biases and are zero without them. Filters are
    orthonormal, ordered by ``|value|`` descending.
    """

    values: Float[Tensor, "k"]
    filters: Float[Tensor, "k channels kh kw"]
    linear: Float[Tensor, "channels kh kw"]
    constant: Float[Tensor, ""]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    def maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch k out_height out_width"]:
        """Return each eigenfilter's contribution ``value * (filter * x)²``, in the dtype of x."""
        return self.values.to(x)[:, None, None] * self._convolve(x, self.filters) ** 2

    def total(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_height out_width"]:
        """Sum the maps and add the linear and constant parts: ``direction . y`` when k is whole."""
        linear = self._convolve(x, self.linear[None]).squeeze(1)
        return self.maps(x).sum(1) + linear + self.constant.to(x)

    def _convolve(self, x: Tensor, filters: Tensor) -> Tensor:
        return convolve(x, filters, self.stride, self.padding, self.dilation)


def eigenfilters(
    conv: BilinearConv2d, channel_direction: Float[Tensor, "outputs"], k: int | None = None
) -> Eigenfilters:
    """Decompose a channel direction of a bilinear convolution into eigenfilters.

    They are the eigenvectors of ``sum_o direction_o B_o``, a form on zero-padded patches of rank
    at most ``2 * hidden_channels``, reshaped to ``(in_channels, kh, kw)``. In float64.

    Args:
        conv: the layer.
        channel_direction: a vector over its output channels, of any norm.
        k: at most so many filters, the largest; every one up to the numerical rank when None.

    Raises:
        TypeError: ``conv`` is not a `BilinearConv2d`.
        ValueError: the direction is not ``(out_channels,)`` or not finite, or k is negative.
    """
    _check_conv(conv)
    form = conv.quadratic_form(channel_direction)
    return _filters(conv, form, form.eigh(k))


def eigenfilters_of(
    conv: BilinearConv2d, channel_directions: Float[Tensor, "n outputs"], k: int | None = None
) -> tuple[Eigenfilters, ...]:
    """Decompose several channel directions, as `eigenfilters` does each, sharing one QR.

    Raises:
        TypeError: ``conv`` is not a `BilinearConv2d`.
        ValueError: the directions are not ``(n, out_channels)`` or not finite, or k is negative.
    """
    _check_conv(conv)
    family = conv.quadratic_forms(channel_directions)
    spectra = family.eigh(k)
    return tuple(_filters(conv, *each) for each in zip(family, spectra, strict=True))


def _check_conv(conv: nn.Module) -> None:
    if not isinstance(conv, BilinearConv2d):
        raise TypeError(f"expected a BilinearConv2d, got {type(conv).__name__}")


def _filters(conv: BilinearConv2d, form: QuadraticForm, spectrum: Spectrum) -> Eigenfilters:
    values, vectors = spectrum
    patch = conv.left.weight.shape[1:]
    return Eigenfilters(
        values,
        vectors.reshape(-1, *patch),
        form.linear.reshape(patch),
        form.constant,
        *geometry(conv),
    )


@dataclass(frozen=True, eq=False)
class ChannelSpatial:
    """``vector = sum_r singular_values_r channels_r (x) maps_r``: channel patterns and their maps.

    Channels and maps are orthonormal; the sign makes a pattern's largest entry positive.
    """

    channels: Float[Tensor, "r channels"]
    singular_values: Float[Tensor, "r"]
    maps: Float[Tensor, "r height width"]

    @property
    def share(self) -> Float[Tensor, "r"]:
        """The share of the vector's squared norm in each component."""
        energy = self.singular_values**2
        return energy / energy.sum()

    def vector(self, k: int | None = None) -> Float[Tensor, "channels height width"]:
        """Add up the first ``k`` components, all when None."""
        scaled = self.channels[:k] * self.singular_values[:k, None]
        return torch.einsum("rc,rhw->chw", scaled, self.maps[:k])


def channel_spatial_svd(vector: Float[Tensor, "channels height width"]) -> ChannelSpatial:
    """Split a vector of interest over a feature map into channel patterns and their maps.

    The vector is a probe's weights, an eigenvector of a later dense layer, a logit's direction.
    Its singular value decomposition as a ``channels x (height width)`` matrix, in float64, up to
    the numerical rank, so that ``<vector, y> = sum_r s_r sum_p maps_r[p] (channels_r . y[p])``.

    Raises:
        ValueError: the vector has not three axes, or is not finite.
    """
    vector = to_double(as_numbers(vector, "a vector"))
    if vector.ndim != 3:
        raise ValueError(f"expected shape (channels, height, width), got {tuple(vector.shape)}")
    if not torch.isfinite(vector).all():
        raise ValueError("expected a vector of finite numbers, got nan or infinity")
    left, values, maps = torch.linalg.svd(vector.flatten(1), full_matrices=False)
    matrix_shape = (len(vector), vector[0].numel())
    kept = values > values.amax() * max(matrix_shape) * torch.finfo(torch.float64).eps
    channels, maps = left.T[kept], maps[kept]
    signs = sign_gauge(channels)
    return ChannelSpatial(
        signs * channels, values[kept], (signs * maps).reshape(-1, *vector.shape[1:])
    )


def as_convolution(dense: BilinearLinear, shape: tuple[int, int, int]) -> BilinearConv2d:
    """View a bilinear dense layer on flattened maps as a convolution with one output position.

    The kernel covers the whole map, so that what is said of convolutions (eigenfilters, readers
    of a channel) can be asked of the dense layer after the trunk. The weights are copied.

    Args:
        dense: a layer whose inputs are flattened maps.
        shape: the maps' ``(channels, height, width)``.

    Raises:
        ValueError: the layer's inputs do not have that shape.
    """
    channels, height, width = shape
    if channels * height * width != dense.in_features:
        raise ValueError(f"{dense.in_features} inputs are not flattened maps of shape {shape}")
    with torch.device("meta"):  # no memory, no random numbers drawn
        conv = BilinearConv2d(
            channels,
            dense.out_features,
            (height, width),
            hidden_channels=None if dense.down is None else dense.hidden_features,
            bias=dense.left.bias is not None,
        )
    sizes = {name: weight.shape for name, weight in conv.state_dict().items()}
    weights = {name: w.clone().reshape(sizes[name]) for name, w in dense.state_dict().items()}
    conv.load_state_dict(weights, assign=True)
    return conv


def convolve(
    x: Float[Tensor, "batch channels height width"],
    filters: Float[Tensor, "k channels kh kw"],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Float[Tensor, "batch k out_height out_width"]:
    """Convolve in the dtype of ``x``; with no filter at all too, which torch refuses."""
    at_least_one = filters if len(filters) else filters.new_zeros(1, *filters.shape[1:])
    y = F.conv2d(x, at_least_one.to(x), None, stride, padding, dilation)
    return y[:, : len(filters)]


class Geometry(NamedTuple):
    """How a convolution is laid over its input, each for (height, width)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def geometry(conv: BilinearConv2d) -> Geometry:
    """Return how the layer's two convolutions are laid over their input.

    Raises:
        ValueError: the padding is not in pixels.
    """
    padding = conv.left.padding
    if isinstance(padding, str):
        raise ValueError(f"expected padding in pixels, got {padding!r}")
    stride_y, stride_x = conv.left.stride
    dilation_y, dilation_x = conv.left.dilation
    return Geometry((stride_y, stride_x), (padding[0], padding[1]), (dilation_y, dilation_x))
