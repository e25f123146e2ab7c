"""Concepts: what a probe may look for in a maze, and where a cell lies on a feature map.

Cells are (row, column) with row 0 at the bottom; feature maps, like pixels, are (y, x) with 0 at
the top. `overlap` and `to_cells` convert between the two, and only they.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float

from rlbilinear.envs.maze import Cell, Maze

Kind = Literal["presence", "position"]


@dataclass(frozen=True)
class Concept:
    """A function of the state that a probe learns to read.

    Attributes:
        name: what it is called in tables.
        kind: ``presence``: a map (rows, columns), row 0 at the bottom, 1 in the cells that have it;
            ``position``: the (row, column) of its cell, nan when there is none.
        label: maze -> float array, of the shape that ``kind`` says.
    """

    name: str
    kind: Kind
    label: Callable[[Maze], Float[np.ndarray, "*shape"]]

    def labels(self, mazes: Iterable[Maze]) -> Float[np.ndarray, "n *shape"]:
        """Label many mazes, all of one world size."""
        return np.stack([self.label(maze) for maze in mazes])


Cells = Callable[[Maze], Sequence[Cell]]


def _presence(cells: Cells, maze: Maze) -> Float[np.ndarray, "rows columns"]:
    found = np.zeros(maze.grid.shape, np.float32)
    for cell in cells(maze):
        found[cell.row, cell.column] = 1
    return found


def _position(cells: Cells, maze: Maze) -> Float[np.ndarray, "2"]:
    there = cells(maze)
    if len(there) > 1:
        raise ValueError(f"a position is of one cell, this maze has {len(there)}: {there}")
    cell = (there[0].row, there[0].column) if there else (np.nan, np.nan)
    return np.array(cell, np.float32)


def _cheese(maze: Maze) -> Sequence[Cell]:
    return maze.cheese


def _mouse(maze: Maze) -> Sequence[Cell]:
    return (maze.mouse,)


cheese_presence = Concept("cheese_presence", "presence", partial(_presence, _cheese))
cheese_position = Concept("cheese_position", "position", partial(_position, _cheese))
mouse_presence = Concept("mouse_presence", "presence", partial(_presence, _mouse))
mouse_position = Concept("mouse_position", "position", partial(_position, _mouse))

CONCEPTS = {
    each.name: each for each in (cheese_presence, cheese_position, mouse_presence, mouse_position)
}
"""The concepts, by name."""


ConceptLike = Concept | str
"""A concept, or the name of one of `CONCEPTS`."""


def concept(named: ConceptLike) -> Concept:
    """Return a concept, looked up if it is a name.

    Raises:
        ValueError: unknown name; the message lists the choices.
        TypeError: neither a concept nor a name.
    """
    if isinstance(named, Concept):
        return named
    choices = ", ".join(CONCEPTS)
    if not isinstance(named, str):
        raise TypeError(f"expected a Concept, or one of {choices}; got {type(named).__name__}")
    if named not in CONCEPTS:
        raise ValueError(f"unknown concept {named!r}; choose from {choices}")
    return CONCEPTS[named]


def concepts(named: ConceptLike | Iterable[ConceptLike]) -> list[Concept]:
    """Return concepts, looked up where they are names; a single one is a list of one.

    Raises:
        ValueError: unknown name; the message lists the choices.
        TypeError: neither concepts nor names.
    """
    if isinstance(named, str | Concept) or not isinstance(named, Iterable):
        return [concept(named)]
    return [concept(each) for each in named]


def overlap(
    cells: Float[np.ndarray, "*batch rows columns"], feature_shape: tuple[int, int]
) -> Float[np.ndarray, "*batch height width"]:
    """Carry a map over cells to a feature map, by shared area.

    A feature map of height x width divides the picture into as many equal pixels. A pixel's value
    is the mean of the cell map over the pixel's area; for a map of zeros and ones that is the
    fraction of the pixel covered by the labelled cells, in [0, 1]. With 15 cells on 16 pixels a
    cell lies on up to 4 pixels, and its fractions sum to (16 / 15)².

    Args:
        cells: row 0 at the bottom.
        feature_shape: (height, width) of the feature map.

    Returns:
        The map with y = 0 at the top.

    Raises:
        ValueError: ``cells`` has fewer than two dimensions, or a size is not positive.
    """
    rows, columns = _last_two(cells)
    height, width = feature_shape
    return area_weights(rows, height)[:, ::-1] @ cells @ area_weights(columns, width).T


def to_cells(
    maps: Float[np.ndarray, "*batch height width"], world: int
) -> Float[np.ndarray, "*batch world world"]:
    """Average feature maps over each cell's area.

    The same conversion as `overlap`, the other way: a cell's value is the mean of the map over the
    cell's area, so a constant map stays the constant.

    Args:
        maps: y = 0 at the top.
        world: cells along a side of the picture.

    Returns:
        The map over cells with row 0 at the bottom.

    Raises:
        ValueError: ``maps`` has fewer than two dimensions, or a size is not positive.
    """
    height, width = _last_two(maps)
    return area_weights(height, world)[::-1] @ maps @ area_weights(width, world).T


def area_weights(parts: int, others: int) -> Float[np.ndarray, "others parts"]:
    """Weights that average a line cut into equal ``parts`` over each of ``others`` equal cuts.

    Raises:
        ValueError: a number that is not positive.
    """
    if parts < 1 or others < 1:
        raise ValueError(f"sizes must be positive, got {parts} and {others}")
    # Lengths in units of 1 / (parts * others) are whole numbers: the weights are exact.
    start, cut = np.arange(parts) * others, np.arange(others)[:, None] * parts
    shared = np.minimum(start + others, cut + parts) - np.maximum(start, cut)
    return (np.maximum(shared, 0) / parts).astype(np.float32)


def _last_two(array: np.ndarray) -> tuple[int, int]:
    if array.ndim < 2:
        raise ValueError(f"expected maps (..., height, width), got shape {array.shape}")
    return array.shape[-2], array.shape[-1]
