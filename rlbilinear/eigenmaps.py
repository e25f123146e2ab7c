"""Vectors of interest: from a form on flattened maps to channel patterns, maps and eigenfilters."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.convolution import (
    ChannelSpatial,
    Eigenfilters,
    channel_spatial_svd,
    eigenfilters_of,
)
from rlbilinear.layers import BilinearConv2d
from rlbilinear.quadratic import QuadraticForm


class EigenMaps(NamedTuple):
    """Eigenpairs of a form on flattened maps, by |value| descending; the maps are orthonormal."""

    values: Float[Tensor, "k"]
    maps: Float[Tensor, "k channels height width"]


def eigenmaps(form: QuadraticForm, shape: tuple[int, ...], k: int | None = None) -> EigenMaps:
    """Decompose a form on flattened maps, as of a logit after the trunk, and unflatten.

    Each map is a vector of interest: see `channel_spatial_svd` and `vector_filters`.

    Args:
        form: of a dense layer's output direction.
        shape: shape of its input, ``(channels, height, width)`` before it was flattened.
        k: at most so many pairs, the largest; all up to the numerical rank when None.

    Raises:
        ValueError: the form's inputs do not have that shape.
    """
    _check_shape(form, shape)
    values, vectors = form.eigh(k)
    return EigenMaps(values, vectors.reshape(-1, *shape))


def pull_back(
    form: QuadraticForm, at: Float[Tensor, "*batch channels height width"]
) -> Float[Tensor, "channels height width"]:
    """Pull a form's direction back to the maps it reads: its gradient there, in float64.

    Of several inputs this is the mean gradient, which is the gradient at their mean. Halfway
    between two inputs it is exact for their difference, ``form(b) - form(a) = <v, b - a>``.

    Args:
        form: on flattened maps.
        at: its input, or several.

    Raises:
        ValueError: ``at`` does not have the form's inputs, or is empty.
    """
    if at.ndim < 3 or not at.numel():
        raise ValueError(f"expected maps (..., channels, height, width), got {tuple(at.shape)}")
    _check_shape(form, at.shape[-3:])
    mean = at.detach().to(form.linear).reshape(-1, form.in_features).mean(0)
    return form.gradient(mean).reshape(at.shape[-3:])


@dataclass(frozen=True, eq=False)
class VectorFilters:
    """A vector over a convolution's output, read through the layer.

    ``<vector, y> = sum_r s_r sum_p maps_r[p] (channels_r . y[p])``, and every channel pattern's
    part is a sum of squares of its eigenfilters, which count where its map says.
    """

    split: ChannelSpatial
    filters: tuple[Eigenfilters, ...]
    """of each component's channel pattern"""

    def maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch k out_height out_width"], ...]:
        """Return what each component's filters add to ``<vector, y>`` at each position."""
        return tuple(
            weights.to(x) * filters.maps(x)
            for weights, filters in zip(self._weights(), self.filters, strict=True)
        )

    def total(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch"]:
        """Sum over filters and positions, with linear and constant parts: ``<vector, y>``.

        Exact when neither components nor filters were left out.
        """
        parts = [
            (weights.to(x) * filters.total(x)).sum((1, 2))
            for weights, filters in zip(self._weights(), self.filters, strict=True)
        ]
        return torch.stack(parts).sum(0) if parts else x.new_zeros(len(x))

    def _weights(self) -> Float[Tensor, "components out_height out_width"]:
        return self.split.singular_values[:, None, None] * self.split.maps


def vector_filters(
    conv: BilinearConv2d,
    vector: Float[Tensor, "outputs out_height out_width"],
    *,
    components: int | None = None,
    k: int | None = None,
) -> VectorFilters:
    """Split a vector of interest over a convolution's output, and decompose each channel pattern.

    All patterns share one QR.

    Args:
        conv: the layer that writes what the vector reads.
        vector: a probe's weights, an eigenmap of a later layer, a direction pulled back.
        components: at most so many of the split's components; all when None.
        k: at most so many eigenfilters of each; all when None.

    Raises:
        ValueError: the vector is not ``(out_channels, height, width)`` or not finite.
    """
    whole = channel_spatial_svd(vector)
    split = ChannelSpatial(
        whole.channels[:components], whole.singular_values[:components], whole.maps[:components]
    )
    return VectorFilters(split, eigenfilters_of(conv, split.channels, k))


def _check_shape(form: QuadraticForm, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or math.prod(shape) != form.in_features:
        raise ValueError(
            f"{form.in_features} inputs are not flattened maps of shape {tuple(shape)}"
        )
