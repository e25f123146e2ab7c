"""Steering, state by state: plant a cheese by a bias at a place, and see where the agent goes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs import Cell, Maze, observe
from probes.interventions import steered_logits
from probes.moves import move_distribution
from probes.study import Direction, Study

PlaceMaps = Mapping[Cell, Float[Tensor, "channels height width"]]
"""What a cheese in a cell adds to a layer's output (`probes.retarget.cheese_maps`)."""

GAINS = (0.5, 1.0, 1.5, 2.0)
"""Sizes of the planted bias, as multiples of what a real cheese adds."""


def along(
    change: Float[Tensor, "channels height width"],
    direction: Direction,
    written: Direction | None = None,
) -> Float[Tensor, "channels height width"]:
    """Keep of a change its component along a unit direction, or write it along another one."""
    component = torch.einsum("c,chw->hw", direction.to(change), change)
    return torch.einsum(
        "c,hw->chw", (direction if written is None else written).to(change), component
    )


@dataclass(frozen=True, eq=False)
class Plantings:
    """States in which a cheese is planted: same level and mouse, with no cheese or with their own.

    Attributes:
        erased: without cheese.
        real: with a real cheese at the target.
        own: with the level's own cheese, elsewhere.
        targets: where the cheese is planted.
        moves: the expert's move to the target.
        own_moves: the expert's move to the own cheese, another one.
        levels: the level of each.
    """

    erased: list[Maze]
    real: list[Maze]
    own: list[Maze]
    targets: list[Cell]
    moves: Int[np.ndarray, "n"]
    own_moves: Int[np.ndarray, "n"]
    levels: Int[np.ndarray, "n"]


def plantings(study: Study, maps: PlaceMaps) -> Plantings:
    """Choose a target from each of the study's pairs: where the cheese was moved to.

    Pairs whose own or moved cheese is in a cell without a map are left out.
    """
    pairs = study.pairs
    kept = [
        index
        for index, (base, source) in enumerate(
            zip(pairs.base.mazes, pairs.source.mazes, strict=True)
        )
        if base.cheese[0] in maps and source.cheese[0] in maps
    ]
    own = [pairs.base.mazes[index] for index in kept]
    real = [pairs.source.mazes[index] for index in kept]
    return Plantings(
        erased=[maze.with_cheese() for maze in own],
        real=real,
        own=own,
        targets=[maze.cheese[0] for maze in real],
        moves=pairs.source.moves[kept].astype(np.int64),
        own_moves=pairs.base.moves[kept].astype(np.int64),
        levels=pairs.levels[kept],
    )


def steering_table(
    study: Study, maps: PlaceMaps, planted: Plantings, directions: Mapping[str, Direction]
) -> pd.DataFrame:
    """Plant a cheese along each direction and see whether the agent makes the move to it.

    Returns:
        A row for each state and condition: ``state``, ``level``, ``condition``, ``gain``,
        ``right`` (the likeliest move is the expert's for the target), ``probability`` (of that
        move). Conditions: ``real cheese`` there; ``no edit``; each direction's name; ``all
        channels`` at once; ``random``: the difference direction's map written along a random
        direction, of the same norm; ``X beside the real one``: planted while the level's own
        cheese is seen elsewhere; ``X, real one erased``: the same with minus the own cheese's map
        added along the direction.
    """
    agent, layer = study.agent, study.layer
    erased, own = observe(planted.erased), observe(planted.own)
    changes = torch.stack([maps[cell] for cell in planted.targets])
    real_changes = torch.stack([maps[maze.cheese[0]] for maze in planted.own])
    rows = []

    def add(condition: str, gain: float, logits: Float[Tensor, "n actions"]) -> None:
        moves = move_distribution(logits)
        rows.append(
            pd.DataFrame(
                {
                    "state": np.arange(len(moves)),
                    "level": planted.levels,
                    "condition": condition,
                    "gain": gain,
                    "right": (moves.argmax(1) == planted.moves).astype(float),
                    "probability": moves[np.arange(len(moves)), planted.moves],
                }
            )
        )

    def plant(condition: str, gain: float, seen: np.ndarray, bias: Tensor) -> None:
        add(condition, gain, steered_logits(agent, layer, seen, (gain * bias).float()))

    add("real cheese", 1.0, agent.logits(observe(planted.real)))
    add("no edit", 0.0, agent.logits(erased))
    control = study.random[0]
    writes = {
        **{name: (direction, direction) for name, direction in directions.items()},
        "random": (directions["difference"], control),
    }
    for gain in GAINS:
        plant("all channels", gain, erased, changes)
        for name, (read, written) in writes.items():
            bias = torch.stack([along(change, read, written) for change in changes])
            plant(name, gain, erased, bias)
            if name != "random":
                plant(f"{name} beside the real one", gain, own, bias)
                removed = torch.stack([along(change, read) for change in real_changes])
                plant(f"{name}, real one erased", gain, own, bias - removed)
    return pd.concat(rows, ignore_index=True)
