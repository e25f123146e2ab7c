"""Drawing over a picture of a world: heatmaps, dots, paths and arrows, cell by cell.

Each function takes a picture (any square one: the agent's view, the human view, either of them
enlarged) and what it shows, and returns a new picture; so they compose. Coordinates are those of
`envs.render`: in every mode, what is drawn over a cell lies where the simulator draws that cell.
Cells that the picture does not show are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from rlbilinear.envs.maze import Cell
from rlbilinear.envs.render import Shown, Window, cell_centre, cell_to_pixels, window

Picture = UInt8[np.ndarray, "side side 3"]
Point = tuple[float, float]
"""(x, y) in pixels from the top left corner."""

_FINE_SIDE, _LEAST_FINE = 2048, 4
"""Shapes are drawn about this large, at least 4 times larger than the picture, then averaged: edges
are smooth, and Pillow's rounding to whole pixels does not show."""
_RIM = 0.4
"""Width of the pale rim around arrows and paths, as a part of theirs."""


def heatmap(
    picture: Picture,
    shown: Shown,
    values: Float[np.ndarray, "rows columns"],
    *,
    colours: str = "viridis",
    limits: tuple[float, float] | None = None,
    opacity: float = 0.6,
) -> Picture:
    """Colour cells by their values; exactly the pixels of `cell_to_pixels` change.

    Args:
        picture: what to draw over.
        shown: what the picture shows.
        values: one for each cell of the world, row 0 at the bottom; NaN leaves a cell as it is.
        colours: a colour map of matplotlib, such as "viridis", or "RdBu_r" for signed values.
        limits: the values of the map's two ends; None takes the smallest and the largest value.
        opacity: 1 hides what is below, 0 changes nothing.

    Raises:
        ValueError: an argument is not accepted; the message says what is.
    """
    part, values = _check(picture, shown, opacity), np.asarray(values, float)
    _check_shape(part, values, (part.rows, part.columns))
    if colours not in matplotlib.colormaps:
        raise ValueError(
            f"no colour map {colours!r}; matplotlib has {', '.join(matplotlib.colormaps)}"
        )
    coloured = np.isfinite(values)
    low, high = limits or (
        (values[coloured].min(), values[coloured].max()) if coloured.any() else (0.0, 1.0)
    )
    if not low <= high:
        raise ValueError(f"expected limits in ascending order, got {low}, {high}")
    shares = (values[coloured] - low) / ((high - low) or 1.0)
    rgb = matplotlib.colormaps[colours](shares)[:, :3] * 255
    drawn = picture.astype(float)
    for (row, column), colour in zip(np.argwhere(coloured).tolist(), rgb, strict=True):
        pixels = drawn[cell_to_pixels(Cell(row, column), part, len(picture))]
        pixels += opacity * (colour - pixels)
    return drawn.round().astype(np.uint8)


def dots(
    picture: Picture,
    shown: Shown,
    cells: Iterable[Cell],
    *,
    colour: str = "#ffd320",
    size: float = 0.5,
    opacity: float = 1.0,
) -> Picture:
    """Draw a dot in the middle of each cell.

    Args:
        picture: what to draw over.
        shown: what the picture shows.
        cells: where.
        colour: any colour of matplotlib.
        size: diameter, in cells.
        opacity: 1 hides what is below.

    Raises:
        ValueError: a cell is outside of the world, or an argument is not accepted.
    """
    part = _check(picture, shown, opacity)
    mask = _Mask(picture, part)
    for cell in _inside(part, cells):
        mask.disc(mask.centre(cell), size / 2)
    return mask.paint(picture, colour, opacity)


def path(
    picture: Picture,
    shown: Shown,
    cells: Sequence[Cell],
    *,
    colour: str = "#0072b2",
    width: float = 0.2,
    opacity: float = 1.0,
) -> Picture:
    """Draw a line through the middles of cells, such as those of `shortest_path`, with a pale rim.

    Args:
        picture: what to draw over.
        shown: what the picture shows.
        cells: one after the other; a single one gives a dot.
        colour: any colour of matplotlib.
        width: width of the line, in cells.
        opacity: 1 hides what is below.

    Raises:
        ValueError: a cell is outside of the world, or an argument is not accepted.
    """
    part = _check(picture, shown, opacity)
    inside = _inside(part, cells)
    for wide, ink in ((width * (1 + _RIM), "white"), (width, colour)):
        mask = _Mask(picture, part)
        points = [mask.centre(cell) for cell in inside]
        for point in points:
            mask.disc(point, wide / 2)
        for start, end in pairwise(points):
            mask.line(start, end, wide)
        picture = mask.paint(picture, ink, opacity)
    return picture


def arrows(
    picture: Picture,
    shown: Shown,
    field: Float[np.ndarray, "rows columns 2"],
    *,
    colour: str = "black",
    length: float = 0.85,
    width: float = 0.11,
    opacity: float = 1.0,
) -> Picture:
    """Draw an arrow through the middle of each cell, such as where a policy sends the mouse.

    Args:
        picture: what to draw over.
        shown: what the picture shows.
        field: for each cell (up, right), row 0 at the bottom; NaN draws nothing. See
            `rlbilinear.envs.fields.vector_field`.
        colour: any colour of matplotlib; arrows have a pale rim, so dark ones show on any ground.
        length: in cells, of an arrow of norm 1.
        width: width of the shaft, in cells; the head is three times as wide, and shrinks with the
            arrow.
        opacity: 1 hides what is below.

    Raises:
        ValueError: a field of another shape, or an argument that is not accepted.
    """
    part, field = _check(picture, shown, opacity), np.asarray(field, float)
    _check_shape(part, field, (part.rows, part.columns, 2))
    cells = np.argwhere(np.isfinite(field).all(2)).tolist()
    for rim, ink in ((width * _RIM / 2, "white"), (0.0, colour)):
        mask = _Mask(picture, part)
        for row, column in cells:
            up, right = field[row, column] * length
            mask.arrow(mask.centre(Cell(row, column)), float(right), -float(up), width, rim)
        picture = mask.paint(picture, ink, opacity)
    return picture


class _Mask:
    """Shapes drawn in one colour; sizes are in cells, points in pixels of the picture."""

    def __init__(self, picture: Picture, part: Window) -> None:
        self._side, self._part = len(picture), part
        self._cell = self._side / part.side
        self._fine = max(_FINE_SIDE // self._side, _LEAST_FINE)
        self._image = Image.new("L", (self._side * self._fine, self._side * self._fine))
        self._draw = ImageDraw.Draw(self._image)

    def centre(self, cell: Cell) -> Point:
        y, x = cell_centre(cell, self._part, self._side)
        return x, y

    def disc(self, centre: Point, radius: float) -> None:
        x, y = centre
        reach = max(radius * self._cell - 0.5 / self._fine, 0)  # to the middle of the last pixel
        corners = [self._enlarged(x + sign * reach, y + sign * reach) for sign in (-1, 1)]
        self._draw.ellipse(corners, fill=255)

    def line(self, start: Point, end: Point, width: float) -> None:
        along = np.subtract(end, start)
        if norm := float(np.hypot(*along)):
            aside = along[::-1] * (-1, 1) / norm * width * self._cell / 2
            self._polygon(start + aside, end + aside, end - aside, start - aside)

    def arrow(self, centre: Point, x: float, y: float, width: float, rim: float) -> None:
        """Draw an arrow with its middle at the centre; a short one is all head, then a dot."""
        norm = float(np.hypot(x, y))
        if norm < width:
            self.disc(centre, width / 2 + rim)
            return
        along = np.array([x, y]) / norm * self._cell
        aside = along[::-1] * (-1, 1)
        head = min(3 * width, norm)
        tip, neck, tail = norm / 2 + 2 * rim, norm / 2 - head - rim, -norm / 2 - rim
        outline = [(tail, width / 2 + rim), (neck, width / 2 + rim), (neck, head / 2 + 1.5 * rim)]
        sides = [[centre + a * along + sign * b * aside for a, b in outline] for sign in (1, -1)]
        self._polygon(*sides[0], centre + tip * along, *sides[1][::-1])

    def paint(self, picture: Picture, colour: str, opacity: float) -> Picture:
        size = (self._side, self._side)
        covered = np.asarray(self._image.resize(size, Image.Resampling.BOX), float) / 255
        below = picture.astype(float)
        ink = np.array(to_rgb(colour)) * 255
        return (below + opacity * covered[..., None] * (ink - below)).round().astype(np.uint8)

    def _polygon(self, *points: np.ndarray) -> None:
        self._draw.polygon([self._enlarged(*point) for point in points], fill=255)

    def _enlarged(self, x: float, y: float) -> tuple[int, int]:
        """Return a point in Pillow's coordinates: the first pixel is 0 (it cuts off fractions)."""
        return round(x * self._fine - 0.5), round(y * self._fine - 0.5)


def _inside(part: Window, cells: Iterable[Cell]) -> list[Cell]:
    found = list(cells)
    for cell in found:
        cell_to_pixels(cell, part)  # raises for a cell outside of the world
    return found


def _check(picture: Picture, shown: Shown, opacity: float) -> Window:
    side = len(picture)
    if picture.dtype != np.uint8 or picture.shape != (side, side, 3):
        raise ValueError(
            f"expected a square uint8 picture (side, side, 3), got {picture.dtype} of shape "
            f"{picture.shape}"
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"an opacity is 0 to 1, got {opacity}")
    return window(shown)


def _check_shape(part: Window, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(
            f"expected an array {shape} over the cells of a {part.columns}x{part.rows} world, got "
            f"{values.shape}"
        )
