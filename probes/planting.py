"""Steering, state by state: plant a cheese by a bias at a place, and see where the agent goes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlbilinear.envs import Cell, Maze, observe
from rlbilinear.probes.interventions import logits_after
from rlbilinear.probes.moves import has_policy, move_distribution, right_moves
from rlbilinear.probes.study import Direction, Study

PlaceMaps = Mapping[Cell, Float[Tensor, "channels height width"]]
"""What a cheese in a cell adds to a layer's output (`retargeting.cheese_maps`)."""

GAINS = (0.5, 1.0, 1.5, 2.0)
"""Sizes of the planted bias, as multiples of what a real cheese adds."""


def along(
    change: Float[Tensor, "*batch channels height width"],
    direction: Direction,
    written: Direction | None = None,
) -> Float[Tensor, "*batch channels height width"]:
    """Keep of a change its component along a unit direction, or write it along another one."""
    written = direction if written is None else written
    component = torch.einsum("c,...chw->...hw", direction.to(change), change)
    return torch.einsum("c,...hw->...chw", written.to(change), component)


@dataclass(frozen=True, eq=False)
class Plantings:
    """States in which a cheese is planted: same level and mouse, with no cheese or with their own.

    Attributes:
        erased: without cheese.
        real: with a real cheese at the target.
        own: with the level's own cheese, elsewhere.
        targets: where the cheese is planted.
        moves: the expert's move to the target.
        levels: the level of each.
    """

    erased: list[Maze]
    real: list[Maze]
    own: list[Maze]
    targets: list[Cell]
    moves: Int[np.ndarray, "n"]
    levels: Int[np.ndarray, "n"]


def plantings(study: Study, maps: PlaceMaps) -> Plantings:
    """Choose a target from each of the study's pairs: where the cheese was moved to.

    Pairs whose own or moved cheese is in a cell without a map are left out.

    Raises:
        ValueError: no pair is left.
    """
    pairs = study.pairs
    kept = [
        index
        for index, (base, source) in enumerate(
            zip(pairs.base.mazes, pairs.source.mazes, strict=True)
        )
        if base.cheese[0] in maps and source.cheese[0] in maps
    ]
    if not kept:
        raise ValueError("no cheese of the pairs lies where one was measured: fit to more levels")
    own = [pairs.base.mazes[index] for index in kept]
    real = [pairs.source.mazes[index] for index in kept]
    return Plantings(
        erased=[maze.with_cheese() for maze in own],
        real=real,
        own=own,
        targets=[maze.cheese[0] for maze in real],
        moves=pairs.source.moves[kept],
        levels=pairs.levels[kept],
    )


def steering_table(
    study: Study, maps: PlaceMaps, planted: Plantings, directions: Mapping[str, Direction]
) -> pd.DataFrame:
    """Plant a cheese along each direction and see whether the agent makes the move to it.

    Returns:
        A row for each state and condition: ``state``, ``level``, ``condition``, ``gain``, ``right``
        (the most likely move is the expert's for the target), ``probability`` (of that move),
        ``finite`` (below 1 where outputs are not finite, and the others NaN). Conditions: ``real
        cheese`` at the target, and no other. In mazes without a cheese: ``no cheese``, not steered;
        ``planted: X``, along the direction X, along ``all channels`` or along each kind of the
        study's controls, with the difference direction's map (the mean over the directions of a
        kind). While the level's own cheese is seen elsewhere: ``own cheese``, not steered;
        ``beside: X``, planted; ``moved: X``, planted, and the own cheese's map taken away along the
        same direction.
    """
    agent, layer = study.agent, study.layer
    erased, own = (
        agent.activations(observe(mazes), [layer])[layer] for mazes in (planted.erased, planted.own)
    )
    new = torch.stack([maps[cell] for cell in planted.targets])
    old = torch.stack([maps[maze.cheese[0]] for maze in planted.own])
    states, rows = np.arange(len(planted.moves)), []

    def add(condition: str, gain: float, logits: Iterable[Float[Tensor, "n actions"]]) -> None:
        moves = [move_distribution(each) for each in logits]
        rows.append(
            pd.DataFrame(
                {
                    "state": states,
                    "level": planted.levels,
                    "condition": condition,
                    "gain": gain,
                    "right": np.mean([right_moves(each, planted.moves) for each in moves], 0),
                    "probability": np.mean([each[states, planted.moves] for each in moves], 0),
                    "finite": np.mean([has_policy(each) for each in moves], 0),
                }
            )
        )

    def plant(condition: str, outputs: Tensor, biases: Sequence[Tensor]) -> None:
        for gain in GAINS:
            planted_outputs = (outputs + (gain * bias).to(outputs) for bias in biases)
            logits = (logits_after(agent, layer, each) for each in planted_outputs)
            add(condition, gain, logits)

    add("real cheese", 1.0, [agent.logits(observe(planted.real))])
    add("no cheese", 1.0, [logits_after(agent, layer, erased)])
    add("own cheese", 1.0, [logits_after(agent, layer, own)])
    difference = directions["difference"]
    written = {
        **{name: [(direction, direction)] for name, direction in directions.items()},
        **{
            kind: [(difference, control) for control in controls]
            for kind, controls in study.controls.items()
        },
    }
    for name, ways in written.items():
        there = [along(new, *way) for way in ways]
        plant(f"planted: {name}", erased, there)
        plant(f"beside: {name}", own, there)
        plant(f"moved: {name}", own, [along(new - old, *way) for way in ways])
    plant("planted: all channels", erased, [new])
    plant("moved: all channels", own, [new - old])
    return pd.concat(rows, ignore_index=True)
