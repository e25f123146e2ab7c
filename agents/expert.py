"""Mazes in play, each state labelled with the shortest path's next move."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from rlbilinear.agents.expert_levels import ExpertLevels
from rlbilinear.envs import MOVE_OF_ACTION, STEP_OF_MOVE, Maze, Move
from rlbilinear.envs.grid import search
from rlbilinear.envs.state import WALL


class ExpertMazes(ExpertLevels[Maze]):
    """Mazes, and the first move of a shortest path to the cheese in each of their states.

    A level starts with the mouse in its corner or at any free cell. One move leads to one
    neighbouring cell or, at a wall, nowhere. Arguments are those of `ExpertLevels`.
    """

    game = "maze"

    @property
    def moves(self) -> Int64[np.ndarray, "envs"]:
        """The expert's move (a `Move`) in each environment's state."""
        return self._moves[self._here]

    @property
    def right(self) -> Bool[np.ndarray, "envs 15"]:
        """Which actions make the expert's move."""
        return self.moves[:, None] == MOVE_OF_ACTION

    @property
    def steps_to_go(self) -> Int64[np.ndarray, "envs"]:
        """The expert's steps to the cheese."""
        return self._distances[self._here]

    @property
    def _here(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.arange(self.num_envs), self._mouse[:, 0], self._mouse[:, 1]

    def _make_room(self, state: bytes) -> None:
        world = Maze.from_bytes(state).size
        self._open = np.zeros((self.num_envs, world, world), bool)
        self._moves = np.zeros((self.num_envs, world, world), np.int64)
        self._distances = np.zeros((self.num_envs, world, world), np.int64)
        self._mouse = np.zeros((self.num_envs, 2), np.int64)

    def _begin(self, index: int, state: bytes) -> Maze:
        maze = Maze.from_bytes(state)
        (cheese,) = maze.cheese
        self._open[index] = maze.grid != WALL
        self._distances[index], self._moves[index] = search(maze.grid, cheese)
        self._mouse[index] = maze.mouse
        return maze

    def _elsewhere(self, index: int, level: Maze) -> bytes:
        (cheese,) = level.cheese
        cells = [cell for cell in level.free_cells() if cell != cheese]
        cell = cells[self._random.integers(len(cells))]
        self._mouse[index] = cell
        return level.with_mouse(cell).to_bytes()

    def _follow(self) -> None:
        target = np.clip(self._mouse + _STEPS[self._actions], 0, self._open.shape[1] - 1)
        free = self._open[np.arange(self.num_envs), target[:, 0], target[:, 1]]
        self._mouse[free] = target[free]


_STEPS = np.array([STEP_OF_MOVE[Move(move)] for move in (*MOVE_OF_ACTION, Move.STAY)])
"""(rows, columns) each action moves the mouse; the last is `NEW_LEVEL`, which stands still."""
