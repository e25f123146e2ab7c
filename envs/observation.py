"""Observations of situations given as values, in batches and without stepping."""

from __future__ import annotations

import dataclasses
import functools
import operator
import reprlib
import struct
import threading
from collections.abc import Iterable
from typing import overload

import numpy as np
from jaxtyping import UInt8

from rlbilinear.envs.grid import Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_things import check_heist
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.simulator import Simulator, template_state
from rlbilinear.envs.state import EPISODE_FORMAT, OPTIONS_FORMAT, Generator, State, parse
from rlbilinear.envs.state_checks import check_maze

_PLACE = struct.Struct("<2f")
_MOUSE_AT = 8 + len("maze") + OPTIONS_FORMAT.size + 2 * 8 + EPISODE_FORMAT.size + 4
"""Where a canvas's bytes have the mouse's x and y, behind two empty generators."""

_lock = threading.Lock()
_all_but_mouse = operator.attrgetter(
    *(field.name for field in dataclasses.fields(Maze) if field.name != "mouse")
)


@overload
def placements(state: Maze, cells: Iterable[Cell] | None = None) -> list[Maze]: ...
@overload
def placements(state: Heist, cells: Iterable[Cell] | None = None) -> list[Heist]: ...
def placements(
    state: Maze | Heist, cells: Iterable[Cell] | None = None
) -> list[Maze] | list[Heist]:
    """Return a state with its mouse or agent on each of the cells, else the same.

    Args:
        state: a maze or heist.
        cells: where to; None takes all of `state.free_cells()`.

    Raises:
        ValueError: names the cell that is outside or a wall, or says that something else was given.
    """
    if not isinstance(state, Maze | Heist):
        raise ValueError(f"expected a Maze or a Heist, got {reprlib.repr(state)}")
    where = state.free_cells() if cells is None else cells
    if isinstance(state, Maze):
        return [state.with_mouse(cell) for cell in where]
    return [state.with_agent(cell) for cell in where]


def observe(states: Iterable[Maze | Heist]) -> UInt8[np.ndarray, "n 3 64 64"]:
    """Return what the agent would see in each state, drawn by the simulator without a step.

    Sizes and modes may be mixed. Mazes that follow each other and differ in the mouse's cell alone,
    as `placements` makes them, cost little more than the drawing: `scripts/benchmark.py envs`
    measures it. The simulator is loaded at the first call.

    Args:
        states: mazes and heists; `Maze.from_seed` and `Heist.from_seed` make one of a level's seed.

    Raises:
        ValueError: a state is not sound (only one that was put together by hand can be), or
            something else was given.
        ImportError: the simulator cannot be loaded.
    """
    if isinstance(states, Maze | Heist) or not isinstance(states, Iterable):
        raise ValueError(f"states are several mazes or heists, got {reprlib.repr(states)}")
    states = list(states)
    images = np.empty((len(states), 64, 64, 3), np.uint8)
    with _lock:
        scene: _MazeScene | None = None
        for image, state in zip(images, states, strict=True):
            if isinstance(state, Maze):
                if scene is None or not scene.shares(state):
                    scene = _MazeScene(state)
                simulator, raw = _painter("maze"), scene.state(state.mouse)
            else:
                simulator, raw = _painter("heist"), drawable(state)
            simulator.set_unchecked(0, raw)
            image[:] = simulator.observe().images[0]
    return images.transpose(0, 3, 1, 2)


def drawable(level: Maze | Heist) -> bytes:
    """Return a state that the simulator draws as the situation, and never goes on to play.

    Raises:
        ValueError: the situation is not sound, or something else was given.
    """
    if isinstance(level, Maze):
        state = level.to_state(_canvas("maze", level.mode))
        check_maze(state)
    elif isinstance(level, Heist):
        state = level.to_state(_canvas("heist", level.mode))
        check_heist(state)
    else:
        raise ValueError(f"expected a Maze or a Heist, got {type(level).__name__}")
    if state.options.use_generated_assets:  # the one switch that the simulator dies of
        raise ValueError("the simulator has no generated assets, which the situation asks for")
    return state.to_bytes()


class _MazeScene:
    """All of a maze but the mouse's cell, checked and written once."""

    def __init__(self, maze: Maze) -> None:
        self._size, self._rest = maze.size, _all_but_mouse(maze)
        self._raw = bytearray(drawable(maze))

    def shares(self, maze: Maze) -> bool:
        """Return whether a maze is this one but for the mouse's cell."""
        return all(map(operator.is_, self._rest, _all_but_mouse(maze)))

    def state(self, mouse: Cell) -> bytes:
        """Return the state with the mouse on a cell."""
        if not (0 <= mouse.row < self._size and 0 <= mouse.column < self._size):
            raise ValueError(f"a mouse on {mouse}, outside of the {self._size}x{self._size} world")
        _PLACE.pack_into(self._raw, _MOUSE_AT, mouse.column + 0.5, mouse.row + 0.5)
        return bytes(self._raw)


@functools.cache
def _painter(game: str) -> Simulator:
    return Simulator(game, num_threads=0)


@functools.cache
def _canvas(game: str, mode: str) -> State:
    """Return a state to draw with: its empty generators are read in no time, and never used."""
    empty = Generator(1, b"")
    return parse(template_state(game, mode))._replace(
        level_generator=empty, generator=empty, asset_generator=empty
    )
