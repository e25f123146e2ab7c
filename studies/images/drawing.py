"""Shared pieces of classifier drawings: vectors as images, eigenvectors of either sign."""

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rlbilinear.studies.images.data import Images

SIGNED = "RdBu_r"


def picture(axes: Axes, vector: Float[Tensor, "pixels"], images: Images) -> None:
    """Draw a vector over pixels: red positive, blue negative, white zero."""
    limit = vector.abs().max().item() or 1.0
    axes.imshow(vector.reshape(images.shape).numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
    axes.set(xticks=[], yticks=[])


def either_sign(
    row: Sequence[Axes],
    values: Float[Tensor, "k"],
    vectors: Float[Tensor, "k pixels"],
    images: Images,
) -> None:
    """Draw the most positive eigenvectors on the row's left half, the most negative on its right.

    ``values`` are ordered by size; axes that are left over stay empty.
    """
    each = len(row) // 2
    for sign, half in ((1, row[:each]), (-1, row[each:])):
        chosen = (sign * values > 0).nonzero().flatten()[:each]
        for axes, i in zip(half, chosen, strict=False):
            picture(axes, vectors[i], images)
            axes.set_title(f"{values[i]:+.2f}", fontsize=7)
        for axes in half[len(chosen) :]:
            axes.set_axis_off()


def finish(figure: Figure, drawn: Sequence[Axes] | None = None) -> Figure:
    """Take the upper and right spines off the axes drawn, all of the figure's when None."""
    for axes in figure.axes if drawn is None else drawn:
        axes.spines[["top", "right"]].set_visible(False)
    return figure
