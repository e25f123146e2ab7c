"""Drawings of eigenvectors: as strips of channels, and as images."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from rlbilinear.checks import check_whole
from rlbilinear.convolution import Eigenfilters
from rlbilinear.figures.axes import as_numpy, colour_bar, headline, signed_image


def filter_strip(
    eigenfilters: Eigenfilters,
    k: int = 6,
    *,
    channels: int = 8,
    title: str = "Eigenfilters",
) -> Figure:
    """Draw the first ``k`` eigenfilters as rows of channels, those with most weight in them.

    One symmetric colour scale for all. A channel's energy is ``sum_i |value_i| |filter_i|²`` over
    the filters drawn and the channel's weights in them.

    Raises:
        ValueError: there is no eigenfilter, or k or channels is not positive.
    """
    check_whole(k=k, channels=channels)
    if not len(eigenfilters.values):
        raise ValueError("expected at least one eigenfilter")
    values, filters = as_numpy(eigenfilters.values)[:k], as_numpy(eigenfilters.filters)[:k]
    energy = np.einsum("i,icyx->c", np.abs(values), filters**2)
    strongest = np.argsort(-energy, kind="stable")[:channels]
    rows, columns = len(values), len(strongest)
    figure = Figure(figsize=(1.9 + 0.95 * columns, 1.1 + 0.95 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    limit = np.abs(filters[:, strongest]).max()
    for i, row in enumerate(grid):
        for channel, axes in zip(strongest, row, strict=True):
            signed_image(axes, filters[i, channel], limit)
            if i == 0:
                axes.set_title(f"ch {channel}", fontsize=9)
        row[0].set_ylabel(
            f"#{i}\nλ {values[i]:+.3g}", rotation=0, ha="right", va="center", fontsize=9
        )
    colour_bar(figure, grid, limit, "weight")
    share = energy[strongest].sum() / energy.sum()
    headline(
        figure,
        f"{title}: {rows} of {len(eigenfilters.values)} filters,\n"
        f"{columns} of {filters.shape[1]} channels with {share:.0%} of their energy",
    )
    return figure


def eigenvector_images(
    values: Float[Tensor, "k"],
    images: Float[Tensor, "k height width"],
    *,
    shown: int = 5,
    title: str = "Eigenvectors",
) -> Figure:
    """Draw the largest positive eigenvectors as images in a row, and the largest negative below.

    One symmetric colour scale for all. The sign of a whole eigenvector is free: only its square
    counts, so read contrasts, not colours.

    Args:
        values: eigenvalues.
        images: each eigenvector as an image.
        shown: of each sign, at most.
        title: what they are of.

    Raises:
        ValueError: no eigenvector, or shapes that do not fit.
    """
    numbers, pixels = as_numpy(values), as_numpy(images)
    if pixels.ndim != 3 or len(numbers) != len(pixels) or not len(numbers) or shown < 1:
        raise ValueError(
            f"expected values (k,) and images (k, height, width), k and shown at least 1; got "
            f"{numbers.shape}, {pixels.shape}, shown {shown}"
        )
    order = np.argsort(-np.abs(numbers), kind="stable")
    signs = [order[numbers[order] > 0][:shown], order[numbers[order] < 0][:shown]]
    signs = [some for some in signs if len(some)]
    columns = max(map(len, signs))
    figure = Figure(figsize=(1.4 + 1.5 * columns, 0.7 + 1.75 * len(signs)), layout="constrained")
    grid = figure.subplots(len(signs), columns, squeeze=False)
    limit = np.abs(pixels[np.concatenate(signs)]).max()
    for row, some in zip(grid, signs, strict=True):
        for axes in row[len(some) :]:
            axes.remove()
        for axes, index in zip(row, some, strict=False):
            signed_image(axes, pixels[index], limit)
            axes.set_title(f"#{index}  λ {numbers[index]:+.3g}", fontsize=9)
    colour_bar(figure, [axes for axes in grid.ravel() if axes.figure], limit, "weight")
    headline(figure, title)
    return figure
