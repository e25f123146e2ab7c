"""Kinds of mazes: connected, a tree, one that the game itself could generate (or why not)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int32
from scipy import ndimage

from rlbilinear.envs.grid import Cell, Grid, cells_of
from rlbilinear.envs.levels import WORLD_SIZE
from rlbilinear.envs.maze import Maze, expect_maze
from rlbilinear.envs.solver import grid_of
from rlbilinear.envs.state import WALL


def components(maze: Maze) -> Int32[np.ndarray, "rows columns"]:
    """Return the number, from 1, of the piece that each cell is in; 0 on walls.

    Ways join the cells of a piece, and no way leads to another.
    """
    expect_maze(maze)
    return ndimage.label(maze.grid != WALL, output=np.int32)[0]


def dead_ends(maze: Maze | Grid) -> tuple[Cell, ...]:
    """Return the free cells with exactly one free neighbour, by row and column.

    In a level the mouse's start is often one, and so may be the cheese's cell.

    Args:
        maze: a maze, or its grid.
    """
    free = grid_of(maze) != WALL
    around = np.pad(free, 1).astype(np.int8)
    neighbours = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
    return cells_of(free & (neighbours == 1))


def is_connected(maze: Maze) -> bool:
    """Return whether ways join all free cells (of which there is at least one)."""
    return components(maze).max() == 1


def is_tree(maze: Maze) -> bool:
    """Return whether exactly one way joins any two free cells (of which there is at least one)."""
    return is_connected(maze) and _loops(maze) == 0


def on_distribution(maze: Maze, *, in_play: bool = False) -> bool:
    """Return whether the game generates such mazes; see `off_distribution`."""
    return not off_distribution(maze, in_play=in_play)


def off_distribution(maze: Maze, *, in_play: bool = False) -> tuple[str, ...]:
    """Return why the game never starts with such a maze, one sentence a reason; none if it does.

    Every maze without a reason can come out of the generator: a spanning tree of rooms, of an
    odd size, in the middle of its mode's world, one cheese anywhere but on the start, the mouse
    on the start and facing left. What is beside the maze in a state it was read from (such as
    switches of the game) is not looked at.

    Args:
        maze: the maze.
        in_play: accept what comes up while a level is played: the mouse anywhere but on the
            cheese, facing either way.
    """
    expect_maze(maze)
    return tuple(_reasons(maze, in_play))


def _reasons(maze: Maze, in_play: bool) -> Iterator[str]:
    world = WORLD_SIZE[maze.mode]
    if maze.size != world:
        yield f"world size {maze.size} is not {maze.mode}'s {world}"
    rows, columns = np.nonzero(maze.grid != WALL)
    if not len(rows):
        yield "no free cell"
        return
    margins = {
        "left": int(columns.min()),
        "right": maze.size - 1 - int(columns.max()),
        "bottom": int(rows.min()),
        "top": maze.size - 1 - int(rows.max()),
    }
    if len(set(margins.values())) == 1:
        margin = margins["left"]
        yield from _wrong_cells(maze, margin)
    else:
        margin = maze.margin
        widths = ", ".join(f"{width} at the {side}" for side, width in margins.items())
        yield f"the maze is not in the middle of the world: walls of width {widths}"
    start = Cell(margin, margin)
    pieces = int(components(maze).max())
    if pieces > 1:
        yield f"it is disconnected: {pieces} pieces that no way joins"
    if loops := _loops(maze):
        yield "it has a loop" if loops == 1 else f"it has {loops} loops"
    if len(maze.cheese) != 1:
        yield f"{len(maze.cheese)} cheeses" if maze.cheese else "no cheese"
    if start in maze.cheese:
        yield f"the cheese is on the start, the bottom left corner {start}"
    yield from _wrong_mouse(maze, start, in_play)


def _wrong_cells(maze: Maze, margin: int) -> Iterator[str]:
    """Yield what is wrong with a maze of equal margins, cell by cell."""
    side = maze.size - 2 * margin
    if side < 3 or side % 2 == 0:
        yield f"a maze of side {side}: levels are odd, 3 or more"
        return
    inside = slice(margin, margin + side)
    even, odd = np.zeros((2, maze.size), bool)
    even[inside], odd[inside] = np.arange(side) % 2 == 0, np.arange(side) % 2 == 1
    wall = maze.grid == WALL
    if rooms := cells_of(wall & np.outer(even, even)):
        yield f"a wall on {_named(rooms)}, where levels have a room"
    if pillars := cells_of(~wall & np.outer(odd, odd)):
        yield f"no wall on {_named(pillars)}, where levels have one"


def _wrong_mouse(maze: Maze, start: Cell, in_play: bool) -> Iterator[str]:
    if not in_play:
        if maze.mouse != start:
            yield f"the mouse is on {maze.mouse}, not in the bottom left corner {start}"
        if maze.facing != "left":
            yield "the mouse faces right, not left"
    elif maze.grid[maze.mouse] == WALL:
        yield f"the mouse is in a wall, on {maze.mouse}"
    elif maze.mouse in maze.cheese:
        yield f"the mouse is on the cheese, on {maze.mouse}"


def _loops(maze: Maze) -> int:
    """Count the passages that could be closed without cutting any cell off."""
    free = maze.grid != WALL
    passages = (free[1:] & free[:-1]).sum() + (free[:, 1:] & free[:, :-1]).sum()
    return int(passages - free.sum() + components(maze).max())


def _named(cells: Sequence[Cell]) -> str:
    return f"{cells[0]}" + (f" and {len(cells) - 1} more" if len(cells) > 1 else "")
