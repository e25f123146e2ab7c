"""Mazes to pictures: the agent's view and the human view, and cells to pixels and back.

This is the only place where rows that count from the bottom meet pixels that count from the top.
"""

from __future__ import annotations

import functools
import math
import threading
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from rlbilinear.envs.games import GAMES, MODE_CODES, is_whole
from rlbilinear.envs.grid import check_cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.observation import drawable, observe
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import PLAYER, State, parse

AGENT_PIXELS, HUMAN_PIXELS = 64, 512
_MEMORY_SIDE = 8
"""Cells a side of what maze's memory mode shows."""
_OWN_CENTRE = ("climber", "fruitbot")
"""Games that follow the player without keeping it in the middle of the picture."""

_lock = threading.Lock()


def agent_view(scene: Maze | Heist | bytes) -> UInt8[np.ndarray, "64 64 3"]:
    """Return the picture that the agent sees, of a maze, a heist or any game's state as bytes.

    Raises:
        ValueError: the state is malformed, or the value is not sound (only one that was put
            together by hand can be).
        ImportError: the simulator cannot be loaded.
    """
    if not isinstance(scene, bytes):
        return observe([scene])[0].transpose(1, 2, 0)
    with _lock:
        return _drawn(scene, human=False).observe().images[0].copy()


def human_view(scene: Maze | Heist | bytes) -> UInt8[np.ndarray, "512 512 3"]:
    """Return the picture that a human player would see; otherwise as `agent_view`."""
    with _lock:
        simulator = _drawn(scene, human=True)
        simulator.observe()
        return simulator.info("rgb")[0].copy()


class Window(NamedTuple):
    """The square part of a world that a picture shows, in cells.

    Attributes:
        left: the column at which it begins, such as 2.5 for the middle of the third.
        bottom: the row at which it begins, counted from the bottom.
        side: how many cells wide and high it is.
        rows: of the whole world; the picture may show more than that.
        columns: of the whole world.
    """

    left: float
    bottom: float
    side: float
    rows: int
    columns: int


Shown = Maze | Heist | State | Window | int
"""What a picture shows: a maze, a heist, a state of any game, a window, or (an int) all of a square
world of so many cells a side."""


def window(shown: Shown) -> Window:
    """Return the part of the world that the simulator draws.

    Most modes show all of it. The memory mode of maze and heist shows 8 cells around the mouse or
    agent; in mazes those at the picture's edge are so cut in half.
    """
    if isinstance(shown, Window):
        return shown
    if isinstance(shown, Maze):
        if shown.mode != "memory":
            return window(shown.size)
        x, y = shown.mouse.column + 0.5, shown.mouse.row + 0.5
        return _around(x, y, _MEMORY_SIDE, shown.size, shown.size)
    if isinstance(shown, Heist):
        shown = parse(drawable(shown))
    if isinstance(shown, State):
        return _state_window(shown)
    if is_whole(shown) and shown > 0:
        return Window(0, 0, int(shown), int(shown), int(shown))
    raise ValueError(f"expected a Maze, Heist, State, Window or the side of a world, got {shown!r}")


def cell_to_pixels(cell: Cell, shown: Shown, pixels: int = AGENT_PIXELS) -> tuple[slice, slice]:
    """Return the pixels (y, x), from the top left, whose centres lie in a cell.

    What the simulator draws in a cell lies there; only walls, which it draws 2 % too large on each
    side, and smoothed edges of the human view go up to that or one pixel further.

    Args:
        cell: the cell, row 0 at the bottom.
        shown: what the picture shows.
        pixels: side of the picture, 64 for the agent's view and 512 for the human view.

    Returns:
        Slices that are empty when the picture does not show the cell.

    Raises:
        ValueError: the cell is not a `Cell`, or outside of the world.
    """
    check_cell(cell)
    part = window(shown)
    if not (0 <= cell.row < part.rows and 0 <= cell.column < part.columns):
        raise ValueError(f"{cell} is outside of the {part.columns}x{part.rows} world")
    above = part.bottom + part.side - 1 - cell.row
    return _extent(above, part.side, pixels), _extent(cell.column - part.left, part.side, pixels)


def cell_centre(cell: Cell, shown: Shown, pixels: int = AGENT_PIXELS) -> tuple[float, float]:
    """Return where the middle of a cell lies (y, x), in pixels from the picture's top left corner.

    The middle of the first pixel is at 0.5. Cells that are not shown have negative coordinates, or
    such above `pixels`.

    Raises:
        ValueError: the cell is not a `Cell`.
    """
    check_cell(cell)
    part, scale = window(shown), pixels / window(shown).side
    y = (part.bottom + part.side - cell.row - 0.5) * scale
    return y, (cell.column + 0.5 - part.left) * scale


def pixel_to_cell(y: int, x: int, shown: Shown, pixels: int = AGENT_PIXELS) -> Cell:
    """Return the cell in which the centre of a pixel lies; see `cell_to_pixels`.

    Raises:
        ValueError: the pixel is outside of the picture, or shows what is outside of the world.
    """
    if not (is_whole(y) and is_whole(x) and is_whole(pixels)):
        raise ValueError(f"pixels are whole numbers, got y={y!r}, x={x!r} of {pixels!r}")
    if not (0 <= y < pixels and 0 <= x < pixels):
        raise ValueError(f"pixel y={y}, x={x} is outside of the {pixels}x{pixels} picture")
    part = window(shown)
    down, right = ((i + 0.5) * part.side / pixels for i in (y, x))
    row = math.ceil(part.bottom + part.side - down) - 1
    cell = Cell(row, math.floor(part.left + right))
    if not (0 <= cell.row < part.rows and 0 <= cell.column < part.columns):
        raise ValueError(
            f"pixel y={y}, x={x} shows what is outside of the {part.columns}x{part.rows} world"
        )
    return cell


def top_row_first(
    cells: Shaped[np.ndarray, "*batch rows columns"],
) -> Shaped[np.ndarray, "*batch rows columns"]:
    """Return a map over cells (row 0 at the bottom) as an image (row 0 at the top), or back."""
    return cells[..., ::-1, :]


def _extent(first: float, side: float, pixels: int) -> slice:
    edges = (math.ceil(i * pixels / side - 0.5) for i in (first, first + 1))
    return slice(*(min(max(edge, 0), pixels) for edge in edges))


def _around(x: float, y: float, side: float, rows: int, columns: int) -> Window:
    return Window(x - side / 2, y - side / 2, side, rows, columns)


def _state_window(state: State) -> Window:
    world = state.world
    columns, rows = world.main_width, world.main_height
    if not state.options.center_agent:
        side = max(columns, rows, world.min_visibility)
        return _around(columns / 2, rows / 2, side, rows, columns)
    x, y = state.view.center_x, state.view.center_y  # as it was drawn last
    if state.game not in _OWN_CENTRE:
        player = state.entities[state.entities["type"] == PLAYER][-1]
        x, y = float(player["x"]), float(player["y"])
    return _around(x, y, world.visibility, rows, columns)


@functools.cache
def _painter(game: str, human: bool, mode: str = "easy") -> Simulator:
    return Simulator(game, mode=mode, num_threads=0, human_view=human)


def _drawn(scene: Maze | Heist | bytes, human: bool) -> Simulator:
    """Return a simulator that shows the scene; the caller holds the lock."""
    if isinstance(scene, bytes):
        state = parse(scene)
        modes = {MODE_CODES[mode]: mode for mode in GAMES[state.game]}
        mode = modes.get(state.options.distribution_mode, "easy")  # refused below if unknown
        simulator = _painter(state.game, human, mode)
        simulator.set_states([scene])
    else:
        simulator = _painter("maze" if isinstance(scene, Maze) else "heist", human)
        simulator.set_unchecked(0, drawable(scene))
    return simulator
