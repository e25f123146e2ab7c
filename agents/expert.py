"""Mazes in play, each state labelled with the shortest path's next move."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from rlbilinear.envs import MOVE_OF_ACTION, STEP_OF_MOVE, Levels, Maze, Move, ProcgenVecEnv
from rlbilinear.envs.grid import search
from rlbilinear.envs.state import WALL

NEW_LEVEL = -1
"""The simulator's action that ends an episode."""


class ExpertMazes:
    """Maze environments whose levels change all the time, and the expert's moves in them.

    A level starts with the mouse in its corner or, more often, at any free cell; it ends at the
    cheese or at random. Whoever steps the environments chooses the actions, so that the states
    are those the student itself gets into, loops included.

    Args:
        num_envs: number of mazes played at once.
        levels: seeds to draw levels from, with replacement.
        seed: of levels, mouse cells and ends; the same seed gives the same states.
        mode: distribution mode.
        new_level: probability at each step that an environment goes on to another level.
        anywhere: share of levels that start with the mouse at a random free cell.
    """

    def __init__(
        self,
        num_envs: int,
        levels: Levels,
        seed: int,
        *,
        mode: str = "easy",
        new_level: float = 1 / 24,
        anywhere: float = 0.6,
    ) -> None:
        self.num_envs = num_envs
        self._env = ProcgenVecEnv(
            "maze",
            num_envs,
            num_levels=levels.count,
            start_level=levels.start,
            mode=mode,
            seed=seed,
            num_threads=1,
        )
        self._random = np.random.default_rng(seed)
        self._new_level, self._anywhere = new_level, anywhere
        world = Maze.from_bytes(self._env.get_states([0])[0]).size
        self._open = np.zeros((num_envs, world, world), bool)
        self._moves = np.zeros((num_envs, world, world), np.int64)
        self._distances = np.zeros((num_envs, world, world), np.int64)
        self._mouse = np.zeros((num_envs, 2), np.int64)
        self._actions = np.zeros(num_envs, np.int64)
        self._start(np.arange(num_envs))
        self.observations: UInt8[np.ndarray, "envs 3 64 64"] = self._env.observe()

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

    def step_async(self, actions: Int64[np.ndarray, "envs"]) -> None:
        """Start a step; the simulator runs while the caller does other things."""
        ends = self._random.random(self.num_envs) < self._new_level
        self._actions = np.where(ends, NEW_LEVEL, actions)
        self._env.step_async(self._actions.astype(np.int32))

    def step_wait(self) -> None:
        """Finish the step: `observations`, `moves` and `steps_to_go` are those of the new states.

        One move leads to one neighbouring cell or, at a wall, nowhere, so the mouse is followed
        without reading the simulator's state, which is read once a level.
        """
        observations, _, dones, _ = self._env.step_wait()
        self.observations = np.asarray(observations)
        target = np.clip(self._mouse + _STEPS[self._actions], 0, self._open.shape[1] - 1)
        free = self._open[np.arange(self.num_envs), target[:, 0], target[:, 1]]
        self._mouse[free] = target[free]
        if dones.any() and len(self._start(np.flatnonzero(dones))):
            self.observations = self._env.observe()

    def _start(self, which: np.ndarray) -> list[int]:
        """Read the new levels of these environments, move some mice, return where."""
        moved: list[int] = []
        states: list[bytes] = []
        for index, state in zip(which, self._env.get_states(which), strict=True):
            maze = Maze.from_bytes(state)
            (cheese,) = maze.cheese
            self._open[index] = maze.grid != WALL
            self._distances[index], self._moves[index] = search(maze.grid, cheese)
            self._mouse[index] = maze.mouse
            if self._random.random() < self._anywhere:
                cells = [cell for cell in maze.free_cells() if cell != cheese]
                cell = cells[self._random.integers(len(cells))]
                self._mouse[index] = cell
                moved.append(int(index))
                states.append(maze.with_mouse(cell).to_bytes())
        if moved:
            self._env.set_states(states, moved)
        return moved

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()


_STEPS = np.array([STEP_OF_MOVE[Move(move)] for move in (*MOVE_OF_ACTION, Move.STAY)])
"""(rows, columns) each action moves the mouse; the last is `NEW_LEVEL`, which stands still."""
