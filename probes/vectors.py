"""Cheese or corner: what an agent chooses where the ways part, and vectors that turn it.

After "Understanding and controlling a maze-solving policy network" (Turner et al. 2023): what a
layer computes of a maze with its cheese, minus what it computes without, is the cheese vector of
that maze; subtracted in every state of it, their agent ignored the cheese. The top-right vector is
that of a path on to the world's top right corner; added, it drew the agent there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Decisions:
    """Mazes with the mouse where the way to the cheese leaves the way to the top right corner.

    Attributes:
        levels: the level of each.
        mazes: the mouse at the decision square.
        to_cheese: the first move on the way to the cheese.
        to_corner: the first move on the way to the corner.
    """

    levels: Int[np.ndarray, "n"]
    mazes: tuple[Maze, ...]
    to_cheese: Int[np.ndarray, "n"]
    to_corner: Int[np.ndarray, "n"]

    @classmethod
    def of(cls, mazes: Mapping[int, Maze]) -> "Decisions":
        """Put the mouse of each maze, by level, at its decision square.

        Raises:
            ValueError: a maze without exactly one cheese or without a decision square, by its
                level.
        """
        placed = {level: maze.with_mouse(_square(level, maze)) for level, maze in mazes.items()}
        return cls(
            np.array([*placed]),
            tuple(placed.values()),
            _moves((maze, maze.cheese[0]) for maze in placed.values()),
            _moves((maze, top_right(maze)) for maze in placed.values()),
        )

    def probabilities(
        self, logits: Float[Tensor, "n actions"]
    ) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Return the probability of the move to the cheese, and of that to the corner."""
        moves, states = move_distribution(logits), np.arange(len(self.levels))
        return moves[states, self.to_cheese], moves[states, self.to_corner]


def _square(level: int, maze: Maze) -> Cell:
    if len(maze.cheese) != 1:
        raise ValueError(f"level {level} has {len(maze.cheese)} cheeses, expected one")
    square = decision_square(maze)
    if square is None:
        raise ValueError(f"level {level} has no decision square; Constraints can ask for one")
    return square


def _moves(ways: Iterable[tuple[Maze, Cell]]) -> Int[np.ndarray, "n"]:
    return np.array([expert_moves(maze, goal)[maze.mouse] for maze, goal in ways])


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
        seed: seed of the random vectors.

    Returns:
        A row for each level and condition: ``level``, ``condition``, ``towards_cheese``,
        ``towards_corner`` (probabilities of the first moves), ``elsewhere``.

    Raises:
        ValueError: fewer than two mazes; one without its cheese or without a decision square, or
            that reaches the corner, by its level; unknown layer.
    """
    if len(mazes) < 2:
        raise ValueError(f"expected two or more mazes, got {len(mazes)}")
    decisions = Decisions.of(mazes)
    for level, maze in mazes.items():
        if top_right(maze) == Cell(maze.size - 1, maze.size - 1):
            raise ValueError(f"level {level} reaches the world's top right corner already")
    seen = observe(decisions.mazes)
    blank = observe([maze.with_cheese() for maze in decisions.mazes])
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
    tables = []
    for name, of_actions in logits.items():
        cheese_first, corner_first = decisions.probabilities(of_actions)
        tables.append(
            pd.DataFrame(
                {
                    "level": decisions.levels,
                    "condition": name,
                    "towards_cheese": cheese_first,
                    "towards_corner": corner_first,
                    "elsewhere": 1 - cheese_first - corner_first,
                }
            )
        )
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


def _unit(vectors: Float[Tensor, "n *output"]) -> Float[Tensor, "n flat"]:
    return torch.nn.functional.normalize(vectors.flatten(1))
