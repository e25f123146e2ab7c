"""Drawings of channel x space components, alone and over an input."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from rlbilinear.convolution import ChannelSpatial
from rlbilinear.figures.axes import (
    NEGATIVE,
    POSITIVE,
    Box,
    Picture,
    as_numpy,
    colour_bar,
    headline,
    picture,
    signed_image,
    signed_map_over,
)


def channel_spatial(
    svd: ChannelSpatial, k: int = 3, *, title: str = "Channel x space components"
) -> Figure:
    """Draw the first ``k`` components: the channel pattern as bars, beside it where it counts.

    Maps share one symmetric colour scale, as do the bars.

    Raises:
        ValueError: there is no component, or k is not positive.
    """
    if min(k, len(svd.singular_values)) < 1:
        raise ValueError(
            "expected k >= 1 and at least one component; "
            f"got k {k}, {len(svd.singular_values)} components"
        )
    patterns, maps, share = (as_numpy(t)[:k] for t in (svd.channels, svd.maps, svd.share))
    rows = len(patterns)
    figure = Figure(figsize=(7.5, 0.7 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False, width_ratios=[5, 2])
    limit = np.abs(maps).max()
    for r, (bars, place) in enumerate(grid):
        colours = np.where(patterns[r] > 0, POSITIVE, NEGATIVE).tolist()
        bars.bar(np.arange(patterns.shape[1]), patterns[r], color=colours, width=0.85)
        bars.axhline(0, color="black", linewidth=0.6)
        bars.set_ylim(*(1.08 * np.abs(patterns).max() * np.array([-1, 1])))
        bars.set_title(f"component {r}: {share[r]:.1%} of the squared norm", fontsize=9, loc="left")
        bars.set_ylabel("weight", fontsize=9)
        bars.spines[["top", "right"]].set_visible(False)
        bars.xaxis.set_major_locator(MaxNLocator(integer=True))
        signed_image(place, maps[r], limit)
    grid[-1][0].set_xlabel("channel", fontsize=9)
    grid[0][1].set_title("its map", fontsize=9)
    colour_bar(figure, grid[:, 1], limit, "map weight")
    headline(figure, title)
    return figure


def channel_spatial_over(
    svd: ChannelSpatial,
    maps: Float[Tensor, "channels height width"],
    image: Picture,
    k: int = 3,
    *,
    place: Box | None = None,
    title: str = "Channel x space components over an input",
) -> Figure:
    """Draw components over an input: where the pattern is, where it counts, what comes of it.

    A row for each component r: ``channels_r . y`` at every position, the component's map, and
    their product times the singular value, whose sum is what the component adds to
    ``<vector, y>``. Every column has one symmetric colour scale.

    Args:
        svd: SVD of a vector over the maps.
        maps: the activation ``y`` on the input.
        image: the input.
        k: components drawn at most.
        place: where the maps lie in the picture, edge to edge; the whole picture when None.
        title: what is seen.

    Raises:
        ValueError: no component, or maps of another shape than the components'.
    """
    y = as_numpy(maps)
    shape = (svd.channels.shape[1], *svd.maps.shape[1:])
    if y.shape != shape or min(k, len(svd.singular_values)) < 1:
        raise ValueError(
            f"expected maps {shape}, k >= 1 and at least one component; got maps {y.shape}, k {k}, "
            f"{len(svd.singular_values)} components"
        )
    patterns = np.einsum("rc,chw->rhw", as_numpy(svd.channels), y)
    places, sizes = as_numpy(svd.maps), as_numpy(svd.singular_values)
    added = sizes[:, None, None] * places * patterns
    total, k = added.sum(), min(k, len(sizes))
    figure = Figure(figsize=(8.4, 1.5 + 2.15 * k), layout="constrained")
    grid = figure.subplots(k, 4, squeeze=False)
    columns = ((patterns, "its pattern in y"), (places, "its map"), (added, "what it adds"))
    for column, (values, name) in enumerate(columns, 1):
        limit = max(np.abs(values[:k]).max(), 1e-12)
        for row in range(k):
            axes = grid[row, column]
            signed_map_over(axes, values[row], limit, image, place)
            if row == 0:
                axes.set_title(name, fontsize=10)
        colour_bar(figure, grid[:, column], limit, "", location="bottom")
    level = colour_bar(figure, grid[:, 0], 1.0, "", location="bottom")
    level.ax.clear()  # it only keeps the first column as high as the others
    level.ax.set_axis_off()
    for row, axes in enumerate(grid[:, 0]):
        picture(axes, image)
        axes.set_title(
            f"{row}: {float(svd.share[row]):.0%} of |v|², adds {added[row].sum():+.3g}", fontsize=8
        )
    headline(figure, f"{title}: <v, y> = {total:+.3g}")
    return figure
