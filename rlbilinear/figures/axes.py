"""Pieces that all drawings share: signed images and bars on one diverging colour map."""

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

SIGNED = "RdBu_r"
POSITIVE, NEGATIVE = "#b2182b", "#2166ac"

Picture = UInt8[np.ndarray, "colours height width"] | UInt8[Tensor, "colours height width"]
"""An input as it is seen, colours (1 or 3) first."""

Box = tuple[float, float, float, float]
"""Top, left, bottom, right, in pixels."""


def signed_image(axes: Axes, image: Float[np.ndarray, "height width"], limit: float) -> None:
    """Draw a signed image; ``limit`` is where the colours end."""
    axes.imshow(image, cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def picture(axes: Axes, image: Picture, *, faint: float = 1.0) -> None:
    """Draw an input as it is seen; ``faint`` below 1 lightens it, to draw something over it.

    Raises:
        ValueError: not one or three colours of 0 to 255 first.
    """
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.dtype != np.uint8:
        raise ValueError(
            f"expected a uint8 picture (3, height, width), got {pixels.dtype} {pixels.shape}"
        )
    height, width = pixels.shape[1:]
    shown = 255 - (255 - pixels.astype(float)) * faint
    axes.imshow(
        np.broadcast_to(shown, (3, height, width)).transpose(1, 2, 0).astype(np.uint8),
        extent=(0, width, height, 0),
    )
    axes.set(xticks=[], yticks=[])


def signed_map_over(
    axes: Axes,
    values: Float[np.ndarray, "rows columns"],
    limit: float,
    image: Picture,
    place: Box | None = None,
) -> None:
    """Draw a map over the faint input; the stronger, the more opaque.

    ``place`` is where the map lies in the picture, edge to edge: strides and padding shift it. It
    is the whole picture when None.
    """
    picture(axes, image, faint=0.35)
    height, width = np.asarray(image).shape[1:]
    top, left, bottom, right = place or (0, 0, height, width)
    axes.imshow(
        values,
        cmap=SIGNED,
        vmin=-limit,
        vmax=limit,
        alpha=np.clip(2.5 * np.abs(values) / limit, 0.15, 0.9),
        extent=(left, right, bottom, top),
        interpolation="nearest",
    )
    axes.set(xlim=(0, width), ylim=(height, 0))


def signed_bars(
    axes: Axes, heights: Float[np.ndarray, "n"], *, highlight: int | None = None
) -> None:
    """Draw bars coloured by sign; all but the highlighted one are faint."""
    colours = np.where(heights > 0, POSITIVE, NEGATIVE).tolist()
    bars = axes.bar(np.arange(len(heights)), heights, color=colours, width=0.85)
    for index, bar in enumerate(bars):
        bar.set_alpha(1 if highlight in (None, index) else 0.3)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def colour_bar(
    figure: Figure,
    axes: Any,
    limit: float,
    label: str,
    *,
    location: Literal["right", "bottom"] = "right",
) -> Colorbar:
    """Draw the scale that the axes share, and return it."""
    scale = ScalarMappable(Normalize(-limit, limit), SIGNED)
    bar = figure.colorbar(scale, ax=axes, location=location, fraction=0.04, pad=0.02)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return bar


def headline(figure: Figure, text: str) -> None:
    """Write a figure's title, in as many lines as it needs to fit."""
    letters = int(11 * figure.get_figwidth())
    lines = [textwrap.fill(line, letters) for line in text.splitlines()]
    figure.suptitle("\n".join(lines), fontsize=11)


def stacked(figure: Figure, heights: Sequence[float]) -> list[SubFigure]:
    """Cut a figure into parts, one below the other."""
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    return [*parts[:, 0]]


def outline(axes: Axes, box: Box, *, dotted: bool = False) -> None:
    """Outline a part of a picture."""
    top, left, bottom, right = box
    strokes = (("white", 0.8, ":"),) if dotted else (("white", 2.4, "-"), ("black", 1.0, "-"))
    for colour, width, style in strokes:
        size = right - left, bottom - top
        axes.add_patch(Rectangle((left, top), *size, fill=False, ec=colour, lw=width, ls=style))


def as_numpy(tensor: Shaped[Tensor, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return the numbers in float64, on the CPU."""
    return torch.as_tensor(tensor).detach().cpu().double().numpy()
