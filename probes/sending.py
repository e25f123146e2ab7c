"""Sending an agent to every free cell of mazes, played to the end.

An agent is *sent* to a cell by an edit that depends on the cell alone, not on the maze. It has
reached it when the mouse stands there within `TWICE` times the shortest way plus `MORE` steps: the
bound within which an agent of the zoo has solved a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from rlbilinear.agents import Agent
from rlbilinear.envs import STEP_OF_MOVE, Cell, Maze, Move, distances, observe
from rlbilinear.envs.grid import UNREACHABLE
from rlbilinear.envs.state import CHEESE, WALL
from rlbilinear.probes.interventions import logits_after
from rlbilinear.probes.moves import LogMoves, has_policy, log_move_distribution

TWICE, MORE = 2, 10
"""Steps allowed: so many times the shortest way, and so many more."""
TOGETHER = 10
"""Mazes played side by side; bounds memory."""

Logits = Callable[[Int[np.ndarray, "n"], Int[np.ndarray, "n"]], Float[Tensor, "n actions"]]
"""From states and errands, by their indices, to the logits of the actions."""


@dataclass(frozen=True)
class Errand:
    """A cell to send the mouse of a maze to.

    Attributes:
        maze: with the mouse where it starts.
        target: a free cell.
        distance: of the shortest way, in steps.
    """

    maze: Maze
    target: Cell
    distance: int


Sender = Callable[[Sequence[Maze], Sequence[Errand]], Logits]
"""An agent and how it is sent; it is told of all states that may come, and of all errands."""
Edit = Callable[[Float[Tensor, "n *output"], Sequence[Errand]], Float[Tensor, "n *output"]]
"""From outputs of a layer to those of the agent that is sent on each errand."""


def errands(maze: Maze) -> list[Errand]:
    """Return an errand for each free cell that the mouse can walk to without eating a cheese.

    A cheese ends the episode: to it, and behind it, nobody can be sent.
    """
    closed = maze.with_cheese()
    for cell in maze.cheese:
        closed = closed.with_wall(cell)
    far = distances(closed, maze.mouse)
    return [
        Errand(maze, cell, int(far[cell]))
        for cell in closed.free_cells()
        if far[cell] not in (0, UNREACHABLE)
    ]


def send(
    mazes: Iterable[Maze],
    sender: Sender,
    *,
    greedy: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Send an agent to every free cell of mazes: an episode for each.

    The random choices come from the seed, the level and the target alone: all senders share them.

    Args:
        mazes: each with a level's seed of its own.
        sender: the agent, and how it is sent.
        greedy: take the most likely move instead of sampling.
        seed: seed of the sampling.
        progress: show a bar.

    Returns:
        A row an errand: ``level``, ``row``, ``column``, ``distance``; ``steps`` taken; ``reached``
        within the bound, 0 or 1; ``eaten``, whether the episode ended at a cheese; ``finite``, 0
        where the agent's outputs were not, which ends the episode.

    Raises:
        ValueError: no maze, or one without the seed of its level.
    """
    mazes = list(mazes)
    if not mazes or any(maze.level_seed is None for maze in mazes):
        raise ValueError("expected one or more mazes, each with the seed of its level")
    parts = [mazes[start : start + TOGETHER] for start in range(0, len(mazes), TOGETHER)]
    return pd.concat(
        [
            _play(part, sender, greedy, seed)
            for part in tqdm(parts, desc="mazes, ten by ten", disable=not progress)
        ],
        ignore_index=True,
    )


def by_edit(agent: Agent, layer: str, edit: Edit | None) -> Sender:
    """Send an agent by an edit of a layer's output; without one, it is not sent.

    The outputs of the layer are computed once, for all errands.
    """

    def sender(states: Sequence[Maze], wanted: Sequence[Errand]) -> Logits:
        outputs = agent.activations(observe(states), [layer])[layer]

        def logits(at: np.ndarray, on: np.ndarray) -> Float[Tensor, "n actions"]:
            rows = outputs[torch.from_numpy(at)]
            if edit is not None:
                rows = edit(rows, [wanted[index] for index in on])
            return logits_after(agent, layer, rows)

        return logits

    return sender


def by_cheese(agent: Agent) -> Sender:
    """Send an agent by a real cheese on the target, and no other."""

    def sender(states: Sequence[Maze], wanted: Sequence[Errand]) -> Logits:
        def logits(at: np.ndarray, on: np.ndarray) -> Float[Tensor, "n actions"]:
            shown = [
                states[state].with_cheese(wanted[index].target)
                for state, index in zip(at, on, strict=True)
            ]
            return agent.logits(observe(shown), check_finite=False)

        return logits

    return sender


def _play(mazes: Sequence[Maze], sender: Sender, greedy: bool, seed: int) -> pd.DataFrame:
    board = _Board.of(mazes)
    wanted = [errand for maze in mazes for errand in errands(maze)]
    policy = _Policy(sender(board.states, wanted), len(wanted))
    state = np.array([board.index(each.maze, each.maze.mouse) for each in wanted])
    distance = np.array([each.distance for each in wanted])
    limit = TWICE * distance + MORE
    # The mouse may look either way when it is there.
    goals = np.array(
        [[board.index(each.maze, each.target, side) for side in (False, True)] for each in wanted]
    )
    noise = [_noise(each, steps, seed) for each, steps in zip(wanted, limit, strict=True)]
    steps, finite = np.zeros(len(wanted), int), np.ones(len(wanted))
    playing = np.arange(len(wanted))
    while len(playing):
        moves = policy(state[playing], playing)
        known = has_policy(moves)
        finite[playing[~known]] = 0
        playing, moves = playing[known], moves[known]
        if not greedy:
            moves = moves + np.array([noise[i][steps[i]] for i in playing]).reshape(moves.shape)
        state[playing] = board.after[state[playing], moves.argmax(1)]
        steps[playing] += 1
        there = (goals[playing] == state[playing, None]).any(1)
        over = there | board.eaten[state[playing]] | (steps[playing] >= limit[playing])
        playing = playing[~over]
    return pd.DataFrame(
        {
            "level": [each.maze.level_seed for each in wanted],
            "row": [each.target.row for each in wanted],
            "column": [each.target.column for each in wanted],
            "distance": distance,
            "steps": steps,
            "reached": (goals == state[:, None]).any(1).astype(float),
            "eaten": board.eaten[state].astype(float),
            "finite": finite,
        }
    )


class _Policy:
    """What a sent agent does, computed once for each state and errand: lost mice come again."""

    def __init__(self, logits: Logits, errands: int) -> None:
        self._logits, self._errands = logits, errands
        self._found: dict[int, Float[np.ndarray, "5"]] = {}

    def __call__(self, state: np.ndarray, errand: np.ndarray) -> LogMoves:
        keys = (state * self._errands + errand).tolist()
        new = [at for at, key in enumerate(keys) if key not in self._found]
        if new:
            moves = log_move_distribution(self._logits(state[new], errand[new]))
            self._found |= zip([keys[at] for at in new], moves, strict=True)
        return np.stack([self._found[key] for key in keys])


@dataclass(frozen=True, eq=False)
class _Board:
    """Where each move leads: mazes as a table.

    Attributes:
        states: each maze with the mouse on every free cell, looking left and right.
        after: the state that each `Move` leads to.
        eaten: states in which the mouse has just eaten a cheese, which ends the episode.
    """

    states: tuple[Maze, ...]
    after: Int[np.ndarray, "states 5"]
    eaten: Bool[np.ndarray, "states"]
    _index: dict[tuple[int | None, Cell, bool], int]

    @classmethod
    def of(cls, mazes: Sequence[Maze]) -> _Board:
        states = tuple(
            side.with_mouse(cell)
            for maze in mazes
            for side in (maze.with_facing("left"), maze.with_facing("right"))
            for cell in maze.free_cells()
        )
        index = {_key(state): number for number, state in enumerate(states)}
        after = [[index[_key(moved(state, move))] for move in Move] for state in states]
        eaten = [state.grid[state.mouse] == CHEESE for state in states]
        return cls(states, np.array(after), np.array(eaten), index)

    def index(self, maze: Maze, cell: Cell, right: bool | None = None) -> int:
        """Return the state of a maze with the mouse on a cell, looking as it does at the start."""
        looks = maze.facing == "right" if right is None else right
        return self._index[maze.level_seed, cell, looks]


def moved(maze: Maze, move: Move) -> Maze:
    """Return the maze after a move: the mouse a cell further, or before a wall where it was.

    Left and right turn it, before a wall too.
    """
    rows, columns = STEP_OF_MOVE[move]
    cell = Cell(maze.mouse.row + rows, maze.mouse.column + columns)
    inside = 0 <= cell.row < maze.size and 0 <= cell.column < maze.size
    if move in (Move.LEFT, Move.RIGHT):
        maze = maze.with_facing("left" if move == Move.LEFT else "right")
    return maze.with_mouse(cell) if inside and maze.grid[cell] != WALL else maze


def _key(state: Maze) -> tuple[int | None, Cell, bool]:
    return state.level_seed, state.mouse, state.facing == "right"


def _noise(errand: Errand, steps: int, seed: int) -> Float[np.ndarray, "steps 5"]:
    rng = np.random.default_rng([seed, errand.maze.level_seed or 0, *errand.target])
    return rng.gumbel(size=(steps, len(Move)))
