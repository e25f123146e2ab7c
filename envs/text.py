"""Mazes as text: two characters per cell, the top row first, below a line for what is not drawn.

The line is, for example, "maze mode=easy facing=left background=3 maze_dim=5 level_seed=8".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rlbilinear.envs.grid import LARGEST_WORLD, Cell, Grid
from rlbilinear.envs.state import CHEESE, SPACE, WALL

_DRAWN = {WALL: "██", SPACE: "  ", CHEESE: "C "}
_MOUSE_DRAWN = {WALL: "M█", SPACE: "M ", CHEESE: "MC"}
_READ = {
    **{symbol: code for drawn in (_DRAWN, _MOUSE_DRAWN) for code, symbol in drawn.items()},
    **{"##": WALL, "M#": WALL, "..": SPACE, ". ": SPACE},
}
_HEADER = "maze"


class Drawing(NamedTuple):
    """What a text says of a maze."""

    grid: Grid
    mouse: Cell
    mode: str = "easy"
    facing: str = "left"
    background: int = 0
    maze_dim: int | None = None
    level_seed: int | None = None


_FIELDS = Drawing._fields[2:]


def draw(grid: Grid, mouse: Cell) -> str:
    """Draw a maze: ██ wall, C cheese, M mouse, MC mouse on cheese, M█ mouse in a wall.

    Spaces at the end of a row are left out. A row without anything is drawn as a dot, so that
    blank lines around a drawing mean nothing.
    """
    rows = [[_DRAWN[code] for code in row] for row in grid.tolist()]
    rows[mouse.row][mouse.column] = _MOUSE_DRAWN[int(grid[mouse])]
    return "\n".join("".join(row).rstrip() or "." for row in reversed(rows))


def header(**fields: object) -> str:
    """Return the first line, of the fields that are not None."""
    return " ".join([_HEADER, *(f"{k}={v}" for k, v in fields.items() if v is not None)])


def read(text: str) -> Drawing:
    """Read what `draw` draws, with or without the first line.

    ## stands for a wall too, a dot for a free cell. Blank lines before and after are ignored;
    cells that a line is short of are free.

    Raises:
        ValueError: names the line and what in it is not accepted.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    filled = [number for number, line in enumerate(lines) if line]
    fields: dict[str, Any] = {}
    if filled and lines[filled[0]].startswith(_HEADER):
        fields = _read_header(lines[filled[0]])
        del filled[0]
    if not filled:
        raise ValueError("the text has no drawing of a maze")
    first, last = filled[0], filled[-1]
    size = last + 1 - first
    if size > LARGEST_WORLD:
        raise ValueError(f"a drawing of {size} lines; a maze has at most {LARGEST_WORLD}")
    if not 1 <= fields.get("maze_dim", 1) <= size:
        raise ValueError(f"a maze of {fields['maze_dim']} in a world of {size}")
    grid = np.full((size, size), SPACE, "<i4")
    mice: list[Cell] = []
    for number in range(first, last + 1):
        line = lines[number] + " " * (len(lines[number]) % 2)
        if len(line) > 2 * size:
            raise ValueError(
                f"line {number + 1} has {len(line) // 2} cells of two characters each; "
                f"a maze of {size} lines has {size} a line"
            )
        row = last - number
        for column, symbol in enumerate(map("".join, zip(line[::2], line[1::2], strict=True))):
            if symbol not in _READ:
                raise ValueError(
                    f"line {number + 1}, characters {2 * column + 1} and {2 * column + 2}: "
                    f"{symbol!r} is not a cell; accepted are "
                    f"{', '.join(map(repr, _READ))}"
                )
            grid[row, column] = _READ[symbol]
            if symbol[0] == "M":
                mice.append(Cell(row, column))
    if len(mice) != 1:
        raise ValueError(f"a drawing has one mouse (M), got {len(mice)}: {mice}")
    return Drawing(grid, mice[0], **fields)


def _read_header(line: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for field in line.removeprefix(_HEADER).split():
        name, equals, value = field.partition("=")
        if name not in _FIELDS or not equals or name in fields:
            raise ValueError(
                f"the first line says {field!r}; accepted are, once each, "
                f"{', '.join(f'{name}=...' for name in _FIELDS)}"
            )
        fields[name] = value
    for name in ("background", "maze_dim", "level_seed"):
        try:
            if name in fields:
                fields[name] = int(fields[name])
        except ValueError:
            raise ValueError(f"{name} is a whole number, got {fields[name]!r}") from None
    if not -(2**31) <= fields.get("level_seed", 0) < 2**31:
        raise ValueError(f"level seed {fields['level_seed']} does not fit in 32 bits")
    return fields
