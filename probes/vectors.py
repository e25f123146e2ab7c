"""Cheese or corner: what an agent chooses where the ways part, and vectors that turn it.

After "Understanding and controlling a maze-solving policy network" (Turner et al. 2023): what a
layer computes of a maze with its cheese, minus what it computes without, is the cheese vector of
that maze; subtracted in every state of it, their agent ignored the cheese. The top-right vector is
that of a path on to the world's top right corner; added, it drew the agent there.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlbilinear.agents import Agent
from rlbilinear.envs import (
    Cell,
    Maze,
    cheese_pair,
    decision_square,
    expert_moves,
    observe,
    top_right,
    top_right_pair,
)
from rlbilinear.envs.pairs import ContrastPair
from rlbilinear.probes.interventions import Add, Intervention, logits_under
from rlbilinear.probes.moves import move_distribution
from rlbilinear.statistics import bootstrap_interval

AS_IT_IS, NO_CHEESE = "as it is", "no cheese"
"""The maze, and the maze without its cheese: what a perfect cheese vector would give."""


def contrast_vectors(
    agent: Agent, layer: str, pairs: Sequence[ContrastPair]
) -> Float[Tensor, "n *output"]:
    """Return a layer's output of each pair's maze with the thing, minus that without.

    Raises:
        ValueError: unknown layer; the message lists them.
    """
    with_it = observe([pair.positive for pair in pairs])
    without = observe([pair.negative for pair in pairs])
    return agent.activations(with_it, [layer])[layer] - agent.activations(without, [layer])[layer]


def decision_table(
    agent: Agent,
    mazes: Mapping[int, Maze],
    layer: str,
    *,
    coefficient: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Ask the agent where the way to the cheese leaves the way to the top right corner.

    The vectors are those of each maze with the mouse where it is given; the question is asked with
    the mouse at the decision square. Conditions: the maze ``as it is``; with ``no cheese``; ``minus
    cheese vector``; ``plus top-right vector``; ``both``; and as controls ``minus cheese vector of
    another maze`` (the next one's) and ``minus random vector``, of the cheese vector's norm.

    Args:
        agent: whom to ask.
        mazes: by level, mazes with one cheese and a decision square that do not reach the world's
            top right corner.
        layer: where vectors are added; the published ones are of ``block3`` of ``impala``.
        coefficient: by which vectors are multiplied.
        seed: of the random vectors.

    Returns:
        A row for each level and condition: ``level``, ``condition``, ``towards_cheese``,
        ``towards_corner`` (probabilities of the first moves), ``elsewhere``.

    Raises:
        ValueError: fewer than two mazes; one without its cheese or without a decision square, or
            that reaches the corner, by its level; unknown layer.
    """
    if len(mazes) < 2:
        raise ValueError(f"expected two or more mazes, got {len(mazes)}")
    squares = {level: _square(level, maze) for level, maze in mazes.items()}
    placed = {level: maze.with_mouse(squares[level]) for level, maze in mazes.items()}
    seen, blank = observe(placed.values()), observe([m.with_cheese() for m in placed.values()])
    cheese = contrast_vectors(agent, layer, [cheese_pair(maze) for maze in mazes.values()])
    corner = contrast_vectors(agent, layer, [top_right_pair(maze) for maze in mazes.values()])
    noise = torch.randn(cheese.shape, generator=torch.Generator().manual_seed(seed)).to(cheese)
    noise = (_unit(noise).mT * cheese.flatten(1).norm(dim=1)).mT.reshape(cheese.shape)
    added = {
        "minus cheese vector": -cheese,
        "plus top-right vector": corner,
        "both": corner - cheese,
        "minus cheese vector of another maze": -cheese.roll(-1, 0),
        "minus random vector": -noise,
    }
    logits = {AS_IT_IS: agent.logits(seen), NO_CHEESE: agent.logits(blank)}
    for name, vectors in added.items():
        change = Intervention(layer, Add(coefficient * vectors))
        logits[name] = logits_under(agent, seen, [change])
    right = {
        "towards_cheese": _moves(mazes, squares, [maze.cheese[0] for maze in mazes.values()]),
        "towards_corner": _moves(mazes, squares, [top_right(maze) for maze in mazes.values()]),
    }
    states = np.arange(len(mazes))
    tables = []
    for name, of_actions in logits.items():
        moves = move_distribution(of_actions)
        table = pd.DataFrame({"level": list(mazes), "condition": name})
        for column, wanted in right.items():
            table[column] = moves[states, wanted]
        table["elsewhere"] = 1 - table["towards_cheese"] - table["towards_corner"]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def decision_summary(table: pd.DataFrame, *, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
    """Average a `decision_table` over levels.

    Returns:
        A row for each condition and way (``towards_cheese``, ``towards_corner``): ``condition``,
        ``way``, ``probability`` with its bootstrap interval ``low`` and ``high``, ``levels``.
    """
    rows = []
    for condition, group in table.groupby("condition", sort=False):
        for way in ("towards_cheese", "towards_corner"):
            interval = bootstrap_interval(
                group[way].to_numpy(), group["level"].to_numpy(), seed=seed, n_resamples=resamples
            )
            rows.append(
                {
                    "condition": condition,
                    "way": way,
                    "probability": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "levels": group["level"].nunique(),
                }
            )
    return pd.DataFrame(rows)


def _square(level: int, maze: Maze) -> Cell:
    if len(maze.cheese) != 1:
        raise ValueError(f"level {level} has {len(maze.cheese)} cheeses, expected one")
    square = decision_square(maze)
    if square is None:
        raise ValueError(f"level {level} has no decision square; Constraints can ask for one")
    if top_right(maze) == Cell(maze.size - 1, maze.size - 1):
        raise ValueError(f"level {level} reaches the world's top right corner already")
    return square


def _unit(vectors: Float[Tensor, "n *output"]) -> Float[Tensor, "n flat"]:
    return torch.nn.functional.normalize(vectors.flatten(1))


def _moves(
    mazes: Mapping[int, Maze], squares: Mapping[int, Cell], goals: Iterable[Cell]
) -> Int[np.ndarray, "n"]:
    """Return the first move on the way from each maze's square to its goal."""
    return np.array(
        [
            expert_moves(maze, goal)[squares[level]]
            for (level, maze), goal in zip(mazes.items(), goals, strict=True)
        ]
    )
