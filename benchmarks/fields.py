"""The other way to read and write a state: one field after the other, as older tools do.

Less what these do besides: a deep copy at each look, and a search for where the fields are.
"""

import math
import struct
from typing import Any, NamedTuple

import numpy as np

from rlbilinear.envs.state import CHEESE, SPACE

_ENTITY = 6 * "f" + 6 * "i" + 3 * "f" + 6 * "i" + "f" + 3 * "i" + 6 * "f"
_MAZE = "".join(
    (
        *("is", 17 * "i", "is", "is"),
        *("f", 9 * "i", "f", 5 * "i", "E"),
        *("ii", 3 * "f", 3 * "i", 8 * "f", 3 * "i", "is"),
        *(3 * "i", 6 * "f", "iiG", "iii"),
    )
)
"""A maze's fields: i and f numbers, s text, E entities, G the grid's cells."""


class Fields(NamedTuple):
    """A maze's state in numbers and texts, and where among them mouse and grid begin."""

    kinds: list[str]
    values: list[Any]
    mouse: int
    grid: int


def read_fields(raw: bytes) -> Fields:
    """Read a maze's whole state."""
    kinds: list[str] = []
    values: list[Any] = []
    at = mouse = grid = 0

    def number(kind: str) -> Any:
        nonlocal at
        (value,) = struct.unpack("<" + kind, raw[at : at + 4])
        at += 4
        kinds.append(kind)
        values.append(value)
        return value

    for kind in _MAZE:
        if kind in "if":
            number(kind)
        elif kind == "s":
            length = number("i")
            kinds.append(kind)
            values.append(raw[at : at + length])
            at += length
        elif kind == "E":
            count = number("i")
            mouse = len(values)
            for field in count * _ENTITY:
                number(field)
        else:
            count = number("i")
            grid = len(values)
            for _ in range(count):
                number("i")
    return Fields(kinds, values, mouse, grid)


def write_fields(fields: Fields) -> bytes:
    """Write a maze's whole state."""
    return b"".join(
        value if kind == "s" else struct.pack("<" + kind, value)
        for kind, value in zip(fields.kinds, fields.values, strict=True)
    )


def look_field_by_field(raw: bytes) -> tuple[np.ndarray, tuple[int, int], list[tuple[int, int]]]:
    """Return grid, mouse and cheese (row, column) of a maze's state."""
    values, mouse, start = (read := read_fields(raw)).values, read.mouse, read.grid
    cells = values[start : start + values[start - 1]]
    side = math.isqrt(len(cells))
    grid = np.array(cells).reshape(side, side)
    cheese = [(int(row), int(column)) for row, column in np.argwhere(grid == CHEESE)]
    return grid, (int(values[mouse + 1]), int(values[mouse])), cheese


def move_mouse_field_by_field(raw: bytes, row: int, column: int) -> bytes:
    """Return a maze's state with the mouse elsewhere."""
    fields = read_fields(raw)
    fields.values[fields.mouse : fields.mouse + 2] = column + 0.5, row + 0.5
    return write_fields(fields)


def move_cheese_field_by_field(raw: bytes, row: int, column: int) -> bytes:
    """Return a maze's state with the cheese elsewhere."""
    fields = read_fields(raw)
    count = fields.values[fields.grid - 1]
    for index in range(fields.grid, fields.grid + count):
        if fields.values[index] == CHEESE:
            fields.values[index] = SPACE
    fields.values[fields.grid + row * math.isqrt(count) + column] = CHEESE
    return write_fields(fields)
