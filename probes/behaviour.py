"""Behaviour in a maze: the policy in every cell, and what follows from it.

A `Field` is the policy with the mouse at every free cell of a maze. All measures of it are taken
over the five moves, as actions with the same effect are one behaviour.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, takewhile
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from rlbilinear.agents.evaluation import evaluate
from rlbilinear.envs import (
    STEP_OF_MOVE,
    Cell,
    Maze,
    Move,
    decision_square,
    expert_moves,
    observe,
    shortest_path,
    top_right,
)
from rlbilinear.envs.fields import mean_steps, mouse_cells, on_grid
from rlbilinear.envs.maze import expect_mazes
from rlbilinear.envs.observation import placements
from rlbilinear.probes.interventions import Intervention, activations
from rlbilinear.probes.moves import (
    LogMoves,
    Moves,
    has_policy,
    kl_divergence,
    log_move_distribution,
    total_variation,
)
from rlbilinear.probes.named import AgentLike, as_agent


@dataclass(frozen=True, eq=False)
class Field:
    """The policy and value of an agent with the mouse at each cell of a maze.

    Attributes:
        maze: the maze; only its mouse was put elsewhere.
        cells: where the mouse was put: all free cells but those with cheese, where it never is in
            play (the cheese ends the episode).
        log_probabilities: of each move (`envs.Move`) in each cell, float64; NaN where the agent's
            outputs are not finite.
        values: the critic's, in each cell.
    """

    maze: Maze
    cells: tuple[Cell, ...]
    log_probabilities: LogMoves
    values: Float[np.ndarray, "n"]

    @cached_property
    def probabilities(self) -> Moves:
        """Of each move in each cell."""
        return np.exp(self.log_probabilities)

    @property
    def finite(self) -> Bool[np.ndarray, "n"]:
        """Where the agent's outputs are finite."""
        return has_policy(self.log_probabilities)

    def grid(
        self, values: Shaped[np.ndarray, "n *rest"]
    ) -> Float[np.ndarray, "rows columns *rest"]:
        """Place one value a cell on the maze's grid, row 0 at the bottom; NaN elsewhere.

        Raises:
            ValueError: not one value for each cell.
        """
        return on_grid(self.maze, self.cells, values)

    def table(self) -> pd.DataFrame:
        """Return a row a cell: ``row``, ``column``, a column for each move, ``value``."""
        table = pd.DataFrame(self.cells, columns=["row", "column"])
        for move in Move:
            table[move.name.lower()] = self.probabilities[:, move]
        table["value"] = self.values
        return table


def fields(
    agent: AgentLike, mazes: Sequence[Maze], interventions: Iterable[Intervention] = ()
) -> list[Field]:
    """Ask the agent with the mouse at every free cell of each maze (12 kB of memory a cell).

    Args:
        agent: whom to ask.
        mazes: facing and background stay as they are.
        interventions: made on every observation.
    """
    agent, mazes = as_agent(agent), expect_mazes(mazes)
    cells = [mouse_cells(maze) for maze in mazes]
    placed = [at for maze, own in zip(mazes, cells, strict=True) for at in placements(maze, own)]
    outputs = activations(agent, observe(placed), ["action_net", "value_net"], interventions)
    moves = log_move_distribution(outputs["action_net"])
    values = outputs["value_net"].squeeze(1).double().cpu().numpy()
    ends = np.cumsum([len(own) for own in cells])[:-1]
    parts = zip(mazes, cells, np.split(moves, ends), np.split(values, ends), strict=True)
    return [Field(*part) for part in parts]


def field(agent: AgentLike, maze: Maze, interventions: Iterable[Intervention] = ()) -> Field:
    """Ask the agent with the mouse at every free cell of one maze."""
    return fields(agent, [maze], interventions)[0]


def vector_field(field: Field) -> Float[np.ndarray, "rows columns 2"]:
    """Return the mean step from each cell as (up, right), in cells; NaN where the mouse cannot be.

    See `envs.fields.mean_steps`; `envs.vector_field` asks any policy, this is of one asked already.
    """
    return field.grid(mean_steps(field.probabilities))


def compare_fields(before: Field, after: Field) -> pd.DataFrame:
    """Compare two agents in each cell of one maze; average over cells for the maze's figure.

    Returns:
        A row a cell: ``row``, ``column``, ``kl`` (of before from after, KL(before || after), nats),
        ``total_variation`` (0 to 1), ``value_change``; and ``finite``, 0 where an agent's outputs
        are not finite and the others are NaN.

    Raises:
        ValueError: the fields are of different cells.
    """
    if before.cells != after.cells:
        raise ValueError("the fields are of different mazes: their free cells differ")
    table = pd.DataFrame(before.cells, columns=["row", "column"])
    table["kl"] = kl_divergence(before.log_probabilities, after.log_probabilities)
    table["total_variation"] = total_variation(before.probabilities, after.probabilities)
    table["value_change"] = after.values - before.values
    table["finite"] = (before.finite & after.finite).astype(float)
    return table


def toward(field: Field, goal: Cell) -> Float[np.ndarray, "cells"]:
    """Return in each cell the probability of the expert's move to the goal.

    Raises:
        ValueError: the goal is outside or a wall.
    """
    expert = expert_moves(field.maze, goal)
    moves = np.array([expert[cell] for cell in field.cells])
    chosen = field.probabilities[np.arange(len(moves)), moves]
    return np.where(moves >= 0, chosen, np.nan)  # no way to the goal: no right move


def toward_cheese(field: Field) -> Float[np.ndarray, "cells"]:
    """Return in each cell the probability of the expert's move to the cheese.

    Raises:
        ValueError: the maze has not exactly one cheese.
    """
    if len(field.maze.cheese) != 1:
        raise ValueError(f"expected a maze with one cheese, got {len(field.maze.cheese)}")
    return toward(field, field.maze.cheese[0])


class Decision(NamedTuple):
    """The policy where the way to the cheese leaves the way to the top right corner."""

    square: Cell
    towards_cheese: float
    towards_corner: float


def decision(field: Field) -> Decision | None:
    """Return the policy at the decision square; None where there is nothing to decide.

    Raises:
        ValueError: the maze has not exactly one cheese.
    """
    square = decision_square(field.maze)
    if square is None:
        return None
    at = field.cells.index(square)
    to_cheese, to_corner = toward_cheese(field)[at], toward(field, top_right(field.maze))[at]
    return Decision(square, float(to_cheese), float(to_corner))


class Way(NamedTuple):
    """How the policy follows the shortest way between two cells."""

    distance: int
    """Steps."""
    first_step: float
    """Probability of the first step; NaN without steps."""
    reach: float
    """Geometric mean of the steps' probabilities; 1 without steps."""
    sent: float
    """Whether every step is the most likely move, 0 or 1: the greedy agent goes there."""


def follow(field: Field, start: Cell, goal: Cell) -> Way:
    """Measure how the policy follows the shortest way.

    A cheese on the way ends the episode: reach is 0, and the agent is not sent there. Where the
    agent's outputs are not finite in a cell of the way, both are NaN.

    Raises:
        ValueError: a cell is outside or a wall, or there is no way.
    """
    path, walked = walk(field.maze, start, goal)
    return way(field.log_probabilities[[field.cells.index(cell) for cell in walked]], path)


def walk(maze: Maze, start: Cell, goal: Cell) -> tuple[list[Cell], list[Cell]]:
    """Return the shortest way, and its cells in which the agent acts: before any cheese or goal.

    Raises:
        ValueError: a cell is outside or a wall, or there is no way.
    """
    path = shortest_path(maze, start, goal)
    return path, list(takewhile(lambda cell: cell not in maze.cheese, path[:-1]))


def way(log_probabilities: LogMoves, path: Sequence[Cell]) -> Way:
    """Measure the steps of a path.

    Args:
        log_probabilities: of the moves in each of its cells but the last; fewer if a cheese ends
            it.
        path: neighbouring cells.
    """
    distance = len(path) - 1
    moves = [_MOVE_OF_STEP[b.row - a.row, b.column - a.column] for a, b in pairwise(path)]
    chosen = log_probabilities[np.arange(len(log_probabilities)), moves[: len(log_probabilities)]]
    first_step = float(np.exp(chosen[0])) if len(chosen) else np.nan
    if not has_policy(log_probabilities).all():
        return Way(distance, first_step, np.nan, np.nan)
    if len(chosen) < distance:
        return Way(distance, first_step, 0.0, 0.0)
    if not distance:
        return Way(0, np.nan, 1.0, 1.0)
    sent = float((log_probabilities.argmax(1) == moves).all())
    return Way(distance, first_step, float(np.exp(chosen.mean())), sent)


def reach(field: Field, start: Cell, goal: Cell) -> float:
    """Return the geometric mean of the step probabilities along the shortest way.

    Raises:
        ValueError: a cell is outside or a wall, or there is no way.
    """
    return follow(field, start, goal).reach


def reach_grid(field: Field, start: Cell | None = None) -> Float[np.ndarray, "rows columns"]:
    """Return `reach` to every free cell, from the maze's mouse if no start is given; NaN on walls.

    Raises:
        ValueError: the start is outside or a wall, or a free cell cannot be reached from it.
    """
    origin = field.maze.mouse if start is None else start
    grid = np.full(field.maze.grid.shape, np.nan)
    for cell in field.maze.free_cells():
        grid[cell] = reach(field, origin, cell)
    return grid


def paired_rollouts(
    agents: Mapping[str, AgentLike],
    levels: Iterable[int],
    *,
    mode: str = "easy",
    greedy: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Let agents play the same levels with the same sampling noise.

    Returns:
        The rows of `agents.evaluation.evaluate`, one for each level and agent, with a column
        ``agent`` first: ``level``, ``return``, ``steps``, ``success``, ``shortest``, ``solved``,
        and ``not_finite``, whether the episode ended, without success, where the agent's logits
        were not finite.

    Raises:
        ValueError: no agent, or levels that `evaluate` refuses.
    """
    if not agents:
        raise ValueError("expected at least one agent")
    seeds = list(levels)
    tables = []
    for name, given in agents.items():
        agent = as_agent(given)
        played = evaluate(
            agent,
            seeds,
            mode=mode,
            greedy=greedy,
            seed=seed,
            progress=progress,
            not_finite="count",
        )
        played.insert(0, "agent", name)
        tables.append(played)
    return pd.concat(tables, ignore_index=True)


_MOVE_OF_STEP = {step: move for move, step in STEP_OF_MOVE.items()}
