"""Editing a maze step by step: a value that remembers what the maze was, and pictures of it.

`rlbilinear.envs.notebook` puts buttons on this, `scripts/edit_maze.py` a text file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from jaxtyping import UInt8
from numpy import ndarray

from rlbilinear.envs.fields import MovePolicy, vector_field
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.overlays import arrows
from rlbilinear.envs.render import human_view

Tool = Literal["wall", "mouse", "cheese"]
TOOLS: tuple[Tool, ...] = get_args(Tool)


@dataclass(frozen=True)
class Editing:
    """A maze being edited.

    Attributes:
        maze: as it is now.
        past: what it was before each edit, oldest first.
        future: what was undone, the next to redo last.
    """

    maze: Maze
    past: tuple[Maze, ...] = ()
    future: tuple[Maze, ...] = ()

    def use(self, tool: Tool, cell: Cell) -> Editing:
        """Use a tool on a cell, as a click does.

        "wall" builds a wall or takes it away; "mouse" puts the mouse there; "cheese" puts a cheese
        there, beside those that there are, or takes it away.

        Raises:
            ValueError: an unknown tool, or says why the maze does not allow it.
        """
        if tool not in TOOLS:
            raise ValueError(f"a tool is one of {', '.join(TOOLS)}, got {tool!r}")
        maze = self.maze
        if tool == "mouse":
            return self.to(maze.with_mouse(cell))
        if tool == "wall":
            built = maze.with_wall(cell)
            return self.to(maze.with_wall(cell, False) if built == maze else built)
        if cell in maze.cheese:
            return self.to(maze.with_cheese(*(other for other in maze.cheese if other != cell)))
        return self.to(maze.with_cheese(*maze.cheese, cell))

    def to(self, maze: Maze) -> Editing:
        """Go on with another maze, whatever the edit; an equal one changes nothing."""
        return self if maze == self.maze else Editing(maze, (*self.past, self.maze))

    def undo(self) -> Editing:
        """Take back the last edit; nothing happens where there is none."""
        if not self.past:
            return self
        return Editing(self.past[-1], self.past[:-1], (*self.future, self.maze))

    def redo(self) -> Editing:
        """Make the edit again that was undone last; nothing happens where there is none."""
        if not self.future:
            return self
        return Editing(self.future[-1], (*self.past, self.maze), self.future[:-1])


def picture(maze: Maze, policy: MovePolicy | None = None) -> UInt8[ndarray, "512 512 3"]:
    """Return the human view, with an arrow in each cell where a policy sends the mouse from there.

    Args:
        maze: the maze.
        policy: from observations to the probability of each `Move`; None draws no arrows.

    Raises:
        ValueError: the policy does not return five probabilities for each observation.
    """
    view = human_view(maze)
    return view if policy is None else arrows(view, maze, vector_field(maze, policy))
