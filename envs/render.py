"""Mazes to pictures: the agent's view and the human view, and cells to pixels and back.

This is the only place where rows that count from the bottom meet pixels that count from the top.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8

from envs.maze import Cell, Maze
from envs.simulator import Simulator, template_state
from envs.state import Generator, State, parse
from envs.validation import check_maze

AGENT_PIXELS, HUMAN_PIXELS = 64, 512

_lock = threading.Lock()


def observe(mazes: Sequence[Maze]) -> UInt8[np.ndarray, "n 3 64 64"]:
    """Return what the agent would see in each maze, drawn by the simulator without a step.

    About 70 microseconds a maze on one core; sizes and modes may be mixed. The simulator is
    loaded at the first call.

    Raises:
        ValueError: a maze is not sound (only one that was put together by hand can be).
        ImportError: the simulator cannot be loaded.
    """
    images = np.empty((len(mazes), AGENT_PIXELS, AGENT_PIXELS, 3), np.uint8)
    with _lock:
        simulator = _painter(False)
        for image, maze in zip(images, mazes, strict=True):
            _show(simulator, maze)
            image[:] = simulator.observe().images[0]
    return images.transpose(0, 3, 1, 2)


def human_view(maze: Maze) -> UInt8[np.ndarray, "512 512 3"]:
    """Return the picture that a human player would see.

    Raises:
        ValueError: the maze is not sound (only one that was put together by hand can be).
        ImportError: the simulator cannot be loaded.
    """
    with _lock:
        simulator = _painter(True)
        _show(simulator, maze)
        simulator.observe()
        return simulator.info("rgb")[0].copy()


def cell_to_pixels(cell: Cell, world: int, pixels: int = AGENT_PIXELS) -> tuple[slice, slice]:
    """Return the pixels (y, x), from the top left, whose centres lie in a cell.

    For pictures of the whole world, which is every mode's but memory's.

    Args:
        cell: the cell, row 0 at the bottom.
        world: side of the world in cells.
        pixels: side of the picture, 64 for the agent's view and 512 for the human view.

    Raises:
        ValueError: the cell is outside of the world.
    """
    if not (0 <= cell.row < world and 0 <= cell.column < world):
        raise ValueError(f"{cell} is outside of the {world}x{world} world")
    return _extent(world - 1 - cell.row, world, pixels), _extent(cell.column, world, pixels)


def pixel_to_cell(y: int, x: int, world: int, pixels: int = AGENT_PIXELS) -> Cell:
    """Return the cell in which the centre of a pixel lies; see `cell_to_pixels`.

    Raises:
        ValueError: the pixel is outside of the picture.
    """
    if not (0 <= y < pixels and 0 <= x < pixels):
        raise ValueError(f"pixel y={y}, x={x} is outside of the {pixels}x{pixels} picture")
    from_top, column = (int((i + 0.5) * world / pixels) for i in (y, x))
    return Cell(world - 1 - from_top, column)


def top_row_first(
    cells: Shaped[np.ndarray, "*batch rows columns"],
) -> Shaped[np.ndarray, "*batch rows columns"]:
    """Return a map over cells (row 0 at the bottom) as an image (row 0 at the top), or back."""
    return cells[..., ::-1, :]


def _extent(index: int, world: int, pixels: int) -> slice:
    first, stop = (math.ceil(i * pixels / world - 0.5) for i in (index, index + 1))
    return slice(first, stop)


@functools.cache
def _painter(human: bool) -> Simulator:
    return Simulator("maze", num_threads=0, human_view=human)


@functools.cache
def _canvas(mode: str) -> State:
    """Return a state to draw with: its empty generators are read in no time, and never used."""
    empty = Generator(1, b"")
    return parse(template_state("maze", mode))._replace(
        level_generator=empty, generator=empty, asset_generator=empty
    )


def _show(simulator: Simulator, maze: Maze) -> None:
    state = maze.to_state(_canvas(maze.mode))
    check_maze(state)
    simulator.set_unchecked(0, state.to_bytes())
