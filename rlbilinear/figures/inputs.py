"""An input explained: the largest terms of what a form makes of it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from rlbilinear.figures.axes import (
    NEGATIVE,
    POSITIVE,
    Box,
    Picture,
    as_numpy,
    headline,
    outline,
    picture,
    signed_map_over,
    stacked,
)


def contributions(
    terms: Float[Tensor, "k"],
    image: Picture,
    *,
    others: Mapping[str, float] | None = None,
    box: Box | None = None,
    maps: Float[Tensor, "k height width"] | None = None,
    maps_are: str = "where it comes from",
    place: Box | None = None,
    shown: int = 8,
    title: str = "An input explained",
    unit: str = "eigenvector",
) -> Figure:
    """Draw an input beside its largest terms ``value_i (vector_i . x)²``, which add up to the form.

    Args:
        terms: one for each eigenpair, by its index.
        image: the input.
        others: what else adds to the form, by name, such as its linear and constant part.
        box: what of the input is explained, if not all of it.
        maps: of each term, drawn over the input for the three largest.
        maps_are: what the maps show.
        place: where the maps lie in the picture, edge to edge; the whole picture when None.
        shown: terms drawn one by one at most; the rest is one bar.
        title: what is explained.
        unit: what a term is of, for the labels.

    Raises:
        ValueError: no term, or maps of another number.
    """
    numbers = as_numpy(terms)
    if numbers.ndim != 1 or not len(numbers) or shown < 1:
        raise ValueError(f"expected terms (k,) and shown >= 1, got {numbers.shape} and {shown}")
    if maps is not None and (maps.ndim != 3 or len(maps) != len(numbers)):
        raise ValueError(
            f"expected a map for each of {len(numbers)} terms, got {tuple(maps.shape)}"
        )
    largest = np.argsort(-np.abs(numbers), kind="stable")[:shown]
    bars = {f"{unit} {index}": numbers[index] for index in largest}
    if len(numbers) > len(largest):
        bars[f"{len(numbers) - len(largest)} others"] = numbers.sum() - numbers[largest].sum()
    bars |= {name: value for name, value in (others or {}).items() if value}
    total = sum(bars.values())
    over = [] if maps is None else [int(index) for index in largest[:3]]
    figure = Figure(
        figsize=(7.5 if not over else 9, 3.4 if not over else 5.2), layout="constrained"
    )
    parts = stacked(figure, [3, 2] if over else [1])
    seen, axes = parts[0].subplots(1, 2, width_ratios=[2, 3])
    picture(seen, image)
    if box is not None:
        outline(seen, box)
    places = np.arange(len(bars) + 1)[::-1]
    heights = [*bars.values(), total]
    colours = [POSITIVE if value > 0 else NEGATIVE for value in heights[:-1]]
    axes.barh(places, heights, color=[*colours, "#444444"])
    axes.set_yticks(places, [*bars, "sum"], fontsize=8)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)  # room for the numbers at the bars' ends
    axes.set_xlabel("contribution", fontsize=9)
    for row, value in zip(places, heights, strict=True):
        axes.annotate(f" {value:+.3g}", (max(value, 0), row), va="center", fontsize=8)
    if over:
        assert maps is not None
        drawn = as_numpy(maps)[over]
        limit = max(np.abs(drawn).max(), 1e-12)
        for panel, index, values in zip(
            parts[1].subplots(1, len(over), squeeze=False)[0], over, drawn, strict=True
        ):
            signed_map_over(panel, values, limit, image, place)
            panel.set_title(f"{unit} {index}: {maps_are}", fontsize=9)
    headline(figure, f"{title}: {total:+.3g}")
    return figure
