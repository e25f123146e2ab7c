"""Concepts of mazes (easy mode). What is right is the first move of a shortest way to the cheese.

In a drawn state mouse and cheese are on any two free cells of a level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float

from rlbilinear.envs.grid import UNREACHABLE, Cell, cells_of
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.moves import MOVE_OF_ACTION
from rlbilinear.envs.render import cell_centre, observe
from rlbilinear.envs.solver import distances, expert_moves, shortest_path, top_right
from rlbilinear.envs.state import WALL
from rlbilinear.probes.causal.concepts import CausalConcept
from rlbilinear.probes.causal.world import World, as_label, pick, presence, shuffled

FAR = (5, 10, 20)
"""Where the bins of the distance to the cheese begin, in steps: 1-4, 5-9, 10-19, 20 and more."""

_FACINGS: tuple[Literal["left", "right"], ...] = ("left", "right")


def sample(level: int, rng: np.random.Generator) -> Maze:
    """Draw a state of a level."""
    maze = Maze.from_seed(level)
    cells = maze.free_cells()
    cheese, mouse = rng.choice(len(cells), 2, replace=False)
    maze = maze.with_cheese(cells[cheese]).with_mouse(cells[mouse])
    return maze.with_facing(_FACINGS[rng.integers(2)])


def sample_open(level: int, rng: np.random.Generator) -> Maze:
    """Draw a state; in half of them a wall is open, so that there are walls that can be closed."""
    maze = sample(level, rng)
    gap = pick(_gaps(maze), rng) if rng.random() < 0.5 else None
    return maze if gap is None else maze.with_wall(gap, False)


def right_move(maze: Maze) -> int | None:
    """Return the expert's `Move`; None where no cheese can be walked to."""
    if len(maze.cheese) != 1 or maze.mouse in maze.cheese:
        return None
    move = int(expert_moves(maze, maze.cheese[0])[maze.mouse])
    return None if move == UNREACHABLE else move


def at_decision(maze: Maze) -> int:
    """Return 1 where the ways to the cheese and to the top right corner part at once, else 0."""
    to_corner = int(expert_moves(maze, top_right(maze))[maze.mouse])
    return int(maze.mouse != top_right(maze) and right_move(maze) != to_corner)


def distance_bin(maze: Maze) -> int:
    """Return in which of the bins of `FAR` the distance from mouse to cheese is."""
    return int(np.searchsorted(FAR, distances(maze, maze.cheese[0])[maze.mouse], "right"))


def _move_cheese(maze: Maze, rng: np.random.Generator) -> Maze | None:
    return next(_other_cheeses(maze, rng), None)


def _other_cheeses(maze: Maze, rng: np.random.Generator) -> Iterator[Maze]:
    cells = [cell for cell in maze.free_cells() if cell not in (maze.mouse, *maze.cheese)]
    return (maze.with_cheese(cell) for cell in shuffled(cells, rng))


def _move_mouse(maze: Maze, rng: np.random.Generator) -> Maze | None:
    cells = [cell for cell in maze.free_cells() if cell not in (maze.mouse, *maze.cheese)]
    cell = pick(cells, rng)
    return None if cell is None else maze.with_mouse(cell)


def _toggle_wall(maze: Maze, rng: np.random.Generator) -> Maze | None:
    """Open or close a wall so that another first move becomes the shortest."""
    before, way = right_move(maze), shortest_path(maze, maze.mouse, maze.cheese[0])
    opened = [(cell, False) for cell in _gaps(maze)]
    closed = [(cell, True) for cell in way[1:-1]]
    kinds = [shuffled(opened, rng), shuffled(closed, rng)]
    for cell, present in (each for kind in shuffled(kinds, rng) for each in kind):
        changed = maze.with_wall(cell, present)
        if right_move(changed) not in (before, None):
            return changed
    return None


def _change_move(maze: Maze, rng: np.random.Generator) -> Maze | None:
    """Change the right move, by the cheese or by a wall: what both have in common is the move."""
    changed = _toggle_wall(maze, rng) if rng.random() < 0.5 else None
    others = _other_cheeses(maze, rng)
    return changed or next((o for o in others if right_move(o) != right_move(maze)), None)


def _change_decision(maze: Maze, rng: np.random.Generator) -> Maze | None:
    others = _other_cheeses(maze, rng)
    return next((other for other in others if at_decision(other) != at_decision(maze)), None)


def _change_distance(maze: Maze, rng: np.random.Generator) -> Maze | None:
    now, others = distance_bin(maze), _other_cheeses(maze, rng)
    return next((o for o in others if distance_bin(o) != now and _differ(o, maze)), None)


def _differ(one: Maze, two: Maze) -> bool:
    return right_move(one) != right_move(two)


def _gaps(maze: Maze) -> list[Cell]:
    """Return the walls that have a free cell on both sides: without one, two corridors join."""
    free = maze.grid != WALL
    across, along = np.zeros_like(free), np.zeros_like(free)
    across[:, 1:-1] = free[:, :-2] & free[:, 2:]
    along[1:-1] = free[:-2] & free[2:]
    return [*cells_of(~free & (across | along))]


def _at(cell: Cell, maze: Maze) -> tuple[float, float]:
    return cell_centre(cell, maze, pixels=1)


def _without_cheese(maze: Maze) -> Maze:
    """Take the cheese away: then there is neither a way to it, nor a distance, nor a decision."""
    return maze.with_cheese()


def _of_cheese(maze: Maze) -> Float[np.ndarray, "rows columns"]:
    return presence(maze.grid.shape, maze.cheese)


_CONCEPTS: tuple[CausalConcept[Maze], ...] = (
    CausalConcept(
        "cheese",
        "map",
        _of_cheese,
        _move_cheese,
        right_move,
        lambda maze: _at(maze.cheese[0], maze),
        _without_cheese,
    ),
    CausalConcept(
        "mouse",
        "map",
        lambda maze: presence(maze.grid.shape, [maze.mouse]),
        _move_mouse,
        right_move,
        lambda maze: _at(maze.mouse, maze),
    ),
    CausalConcept(
        "wall", "map", lambda maze: as_label(maze.grid == WALL), _toggle_wall, right_move
    ),
    CausalConcept(
        "next move",
        "class",
        lambda maze: _known(right_move(maze)),
        _change_move,
        right_move,
        without=_without_cheese,
    ),
    CausalConcept(
        "decision",
        "class",
        at_decision,
        _change_decision,
        right_move,
        without=_without_cheese,
    ),
    CausalConcept(
        "distance",
        "class",
        distance_bin,
        _change_distance,
        right_move,
        without=_without_cheese,
    ),
)


def _known(move: int | None) -> int:
    if move is None:
        raise ValueError("no way leads from the mouse to a cheese")
    return move


MAZE = World(
    "maze",
    sample,
    observe,
    MOVE_OF_ACTION.copy(),  # writable, as PyTorch wants it
    {each.name: each for each in _CONCEPTS},
    samples={"wall": sample_open},
)
