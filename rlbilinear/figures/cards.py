"""Cards: all that is to be seen of one component on one page."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from rlbilinear.checks import check_whole
from rlbilinear.convolution import Eigenfilters
from rlbilinear.figures.axes import (
    Box,
    Picture,
    as_numpy,
    headline,
    outline,
    picture,
    signed_bars,
    signed_image,
    stacked,
)
from rlbilinear.hosvd import HigherOrderSVD


class Excitation(NamedTuple):
    """An input that excites a filter, and where."""

    image: Picture
    box: Box | None
    """what the filter covers; None when that is all of it"""
    value: float
    """its ``value (filter * x)²`` there"""
    reach: Box | None = None
    """all of the input that can have changed it, outlined with dots"""


def component_card(
    eigenfilters: Eigenfilters,
    direction: Float[Tensor, "outputs"],
    excitations: Mapping[int, Sequence[Excitation]],
    *,
    per_sign: int = 2,
    channels: int = 5,
    title: str = "Component",
) -> Figure:
    """Draw a direction's spectrum, what it writes, its leading filters and what excites them.

    Args:
        eigenfilters: of the direction, all of them.
        direction: what they write, over the output channels.
        excitations: inputs by the index of the filter, the strongest first.
        per_sign: filters shown of either sign, at most.
        channels: channels drawn of every filter, those with most weight.
        title: what it is the card of.

    Raises:
        ValueError: no eigenfilter, or per_sign or channels not positive.
    """
    values, filters = as_numpy(eigenfilters.values), as_numpy(eigenfilters.filters)
    check_whole(per_sign=per_sign, channels=channels)
    if not len(values):
        raise ValueError("expected at least one eigenfilter")
    rows = _both_signs(values, per_sign)
    shown = max((len(excitations.get(index, ())) for index in rows), default=0)
    channels = min(channels, filters.shape[1])
    figure = Figure(
        figsize=(1.6 + 1.05 * (channels + shown), 2.7 + 1.25 * len(rows)), layout="constrained"
    )
    top, bottom = stacked(figure, [2.2, 1.25 * len(rows)])
    left, right = top.subplots(1, 2)
    signed_bars(left, values[:64])
    left.set(xlabel=f"eigenfilter (rank {len(values)})", ylabel="eigenvalue")
    signed_bars(right, as_numpy(direction))
    right.set(xlabel="output channel", ylabel="what they write")
    grid = bottom.subplots(len(rows), channels + shown, squeeze=False)
    limit = np.abs(filters[rows]).max()
    for row, index in zip(grid, rows, strict=True):
        strip(row[:channels], filters[index], limit)
        row[0].set_ylabel(
            f"#{index}\nλ {values[index]:+.3g}", rotation=0, ha="right", va="center", fontsize=9
        )
        found = excitations.get(index, ())
        for axes in row[channels + len(found) :]:
            axes.set_axis_off()
        for axes, excitation in zip(row[channels:], found, strict=False):
            _excited(axes, excitation)
    what = f", and the {shown} patches that excite them most" if shown else ""
    bottom.suptitle(f"Filters: their {channels} strongest channels{what}", fontsize=9)
    headline(figure, title)
    return figure


def singular_card(
    svd: HigherOrderSVD,
    index: int,
    shape: tuple[int, int, int],
    *,
    per_sign: int = 2,
    channels: int = 6,
    title: str = "Singular component",
) -> Figure:
    """Draw a singular component of a layer's tensor: its value, its outputs, and its matrix.

    The right singular matrix is shown by its eigenvalues and leading eigenvectors.

    Args:
        svd: SVD of the layer.
        index: index of the component.
        shape: shape of the layer's input, ``(channels, height, width)``: a patch of a convolution,
            the maps before a dense layer, ``(1, height, width)`` for images.
        per_sign: eigenvectors shown of either sign, at most.
        channels: channels drawn of every eigenvector, those with most weight.
        title: what it is the card of.

    Raises:
        ValueError: no such component, or a shape that does not fit.
    """
    values, vectors = svd.component(index).eigh()
    filters = as_numpy(vectors).reshape(-1, *shape)
    numbers = as_numpy(values)
    rows = _both_signs(numbers, per_sign)
    channels = min(channels, shape[0])
    figure = Figure(
        figsize=(max(7.5, 1.6 + 1.1 * channels), 2.7 + 1.25 * len(rows)), layout="constrained"
    )
    top, bottom = stacked(figure, [2.2, 1.25 * len(rows)])
    left, middle, right = top.subplots(1, 3)
    signed_bars(left, as_numpy(svd.singular_values), highlight=index)
    left.set(xlabel="component", ylabel="singular value")
    signed_bars(middle, as_numpy(svd.outputs[index]))
    middle.set(xlabel="output", ylabel="what it writes")
    signed_bars(right, numbers[:48])
    right.set(xlabel=f"eigenvector (rank {len(numbers)})", ylabel="eigenvalue")
    grid = bottom.subplots(len(rows), channels, squeeze=False)
    limit = np.abs(filters[rows]).max()
    for row, which in zip(grid, rows, strict=True):
        strip(row, filters[which], limit)
        row[0].set_ylabel(
            f"#{which}\nλ {numbers[which]:+.3g}", rotation=0, ha="right", va="center", fontsize=9
        )
    bottom.suptitle(f"Eigenvectors of its matrix: their {channels} strongest channels", fontsize=9)
    headline(
        figure,
        f"{title} {index}: singular value {float(svd.singular_values[index]):.3g}, "
        f"{float(svd.share[index]):.1%} of the layer's squared norm",
    )
    return figure


def strip(
    row: Sequence[Any], image: Float[np.ndarray, "channels height width"], limit: float
) -> None:
    """Draw an eigenvector's strongest channels, one on each of the axes."""
    energy = (image**2).sum((1, 2))
    strongest = np.argsort(-energy, kind="stable")[: len(row)]
    for axes, channel in zip(row, strongest, strict=True):
        signed_image(axes, image[channel], limit)
        axes.set_title(f"ch {channel}: {energy[channel] / energy.sum():.0%}", fontsize=8)


def _both_signs(values: Float[np.ndarray, "k"], count: int) -> list[int]:
    """Return the indices of the largest positive values, then of the largest negative."""
    order = np.argsort(-np.abs(values), kind="stable")
    return [*order[values[order] > 0][:count], *order[values[order] < 0][:count]]


def _excited(axes: Any, excitation: Excitation) -> None:
    picture(axes, excitation.image)
    if excitation.box is not None:
        outline(axes, excitation.box)
    if excitation.reach is not None:
        outline(axes, excitation.reach, dotted=True)
    axes.set_title(f"{excitation.value:+.3g}", fontsize=8)
