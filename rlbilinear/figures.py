"""Drawings of decompositions, as matplotlib figures that need no screen.

Every function returns a `Figure`; save it with ``figure.savefig(path)`` or give it to TensorBoard's
``add_figure``. Signed quantities share one diverging colour map: red positive, blue negative, white
zero.
"""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from rlbilinear.convolution import ChannelSpatial, Eigenfilters

SIGNED = "RdBu_r"
POSITIVE, NEGATIVE = "#b2182b", "#2166ac"


def spectrum(
    values: Float[Tensor, "k"],
    *,
    title: str = "Spectrum",
    unit: str = "eigenvector",
    shown: int = 64,
) -> Figure:
    """Draw eigenvalues as bars, and how many carry at least 50, 90 and 99 % of the energy.

    Args:
        values: eigenvalues by |value| descending, all of them: energy is the sum of their squares.
        title: what they are the spectrum of.
        unit: what one eigenvalue belongs to ("eigenfilter"), for the labels.
        shown: bars drawn at most.

    Raises:
        ValueError: there are no values, or they are all zero.
    """
    numbers = _numpy(values)
    if numbers.ndim != 1 or not numbers.any():
        raise ValueError(f"expected eigenvalues (k,), not all zero; got shape {numbers.shape}")
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    bars, energy = figure.subplots(1, 2, width_ratios=[3, 2])

    drawn = numbers[:shown]
    colours = np.where(drawn > 0, POSITIVE, NEGATIVE)
    bars.bar(np.arange(len(drawn)), drawn, color=colours.tolist(), width=0.85)
    bars.axhline(0, color="black", linewidth=0.6)
    counted = f"first {len(drawn)} of {len(numbers)}" if len(drawn) < len(numbers) else "all"
    bars.set(xlabel=f"{unit} index ({counted})", ylabel="eigenvalue")
    bars.xaxis.set_major_locator(MaxNLocator(integer=True))

    cumulative = np.cumsum(numbers**2) / np.sum(numbers**2)
    counts = np.arange(len(numbers) + 1)
    energy.plot(counts, np.r_[0, cumulative], color="black", linewidth=1.2)
    for needed in sorted({int(np.searchsorted(cumulative, level)) for level in (0.5, 0.9, 0.99)}):
        point = (needed + 1, cumulative[needed])
        energy.plot(*point, "o", color="black", markersize=4)
        energy.annotate(
            f"{needed + 1}: {cumulative[needed]:.0%}",
            point,
            xytext=(5, -12),
            textcoords="offset points",
            fontsize=8,
        )
    energy.set(xlabel=f"{unit}s kept", ylabel="share of squared eigenvalues", ylim=(0, 1.05))
    energy.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (bars, energy):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}: rank {len(numbers)}", fontsize=11)
    return figure


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
    if min(k, channels, len(eigenfilters.values)) < 1:
        raise ValueError(
            f"expected k >= 1, channels >= 1 and at least one eigenfilter; got k {k}, channels "
            f"{channels}, {len(eigenfilters.values)} eigenfilters"
        )
    values, filters = _numpy(eigenfilters.values)[:k], _numpy(eigenfilters.filters)[:k]
    energy = np.einsum("i,icyx->c", np.abs(values), filters**2)
    strongest = np.argsort(-energy, kind="stable")[:channels]
    rows, columns = len(values), len(strongest)
    figure = Figure(figsize=(1.9 + 0.95 * columns, 1.1 + 0.95 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    limit = np.abs(filters[:, strongest]).max()
    for i, row in enumerate(grid):
        for channel, axes in zip(strongest, row, strict=True):
            _image(axes, filters[i, channel], limit)
            if i == 0:
                axes.set_title(f"ch {channel}", fontsize=9)
        row[0].set_ylabel(
            f"#{i}\nλ {values[i]:+.3g}", rotation=0, ha="right", va="center", fontsize=9
        )
    _colour_bar(figure, grid, limit, "weight")
    share = energy[strongest].sum() / energy.sum()
    figure.suptitle(
        f"{title}: {rows} of {len(eigenfilters.values)} filters,\n"
        f"{columns} of {filters.shape[1]} channels with {share:.0%} of their energy",
        fontsize=10,
    )
    return figure


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
    patterns, maps, share = (_numpy(t)[:k] for t in (svd.channels, svd.maps, svd.share))
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
        _image(place, maps[r], limit)
    grid[-1][0].set_xlabel("channel", fontsize=9)
    grid[0][1].set_title("its map", fontsize=9)
    _colour_bar(figure, grid[:, 1], limit, "map weight")
    figure.suptitle(title, fontsize=11)
    return figure


def _image(axes: Axes, image: Float[np.ndarray, "height width"], limit: float) -> None:
    axes.imshow(image, cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def _colour_bar(figure: Figure, grid: np.ndarray, limit: float, label: str) -> None:
    scale = ScalarMappable(Normalize(-limit, limit), SIGNED)
    bar = figure.colorbar(scale, ax=grid, fraction=0.04, pad=0.02)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _numpy(tensor: Tensor) -> Float[np.ndarray, "*shape"]:
    return tensor.detach().cpu().double().numpy()
