"""Pools to resample from by a rule: the same cheese cell, another one, the same mouse cell."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool

from rlbilinear.envs import Maze, observe
from rlbilinear.probes.interventions import Resample

RuleName = Literal[
    "same cheese cell", "another cheese cell", "same mouse cell", "another mouse cell"
]
Rule = Callable[[Maze, Maze], bool]
"""Whether the second maze may stand in for the first."""

RULES: dict[RuleName, Rule] = {
    "same cheese cell": lambda maze, other: set(maze.cheese) == set(other.cheese),
    "another cheese cell": lambda maze, other: not set(maze.cheese) & set(other.cheese),
    "same mouse cell": lambda maze, other: maze.mouse == other.mouse,
    "another mouse cell": lambda maze, other: maze.mouse != other.mouse,
}
"""The rules, by name. Mazes without cheese have the same cheese cells, and also other ones."""


def resample(
    mazes: Sequence[Maze], pool: Sequence[Maze], rule: RuleName | Rule, *, seed: int = 0
) -> Resample:
    """Resample each maze's activations from the mazes of a pool that a rule allows.

    With the same cheese cell an intervention keeps what a layer says of the cheese and changes all
    else; with another one it changes the cheese too.

    Args:
        mazes: whose observations the intervention runs on, in their order.
        pool: mazes to draw from, for example of other levels.
        rule: a name of `RULES`, or a function of a maze and one of the pool.
        seed: of the draws.

    Raises:
        ValueError: an unknown rule, no mazes or pool, or mazes for which the rule allows nothing.
    """
    if isinstance(rule, str) and rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; choose from {', '.join(get_args(RuleName))}")
    chosen = RULES[rule] if isinstance(rule, str) else rule
    if not mazes or not pool:
        raise ValueError(f"expected mazes and a pool, got {len(mazes)} and {len(pool)}")
    allowed: Bool[np.ndarray, "n pool"] = np.array(
        [[bool(chosen(maze, other)) for other in pool] for maze in mazes]
    )
    found = Resample(observe(pool), seed, allowed)
    found.drawn(len(mazes))  # says at once where nothing is allowed
    return found
