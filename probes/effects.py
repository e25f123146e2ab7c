"""Effects of edits on an agent's moves, state by state, against controls of equal size."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import only_direction, scale_about_mean
from rlbilinear.envs.pairs import NO_MOVE
from rlbilinear.probes import missing
from rlbilinear.probes.edited import Seen
from rlbilinear.probes.interventions import (
    How,
    Intervention,
    Replace,
    Resample,
    Scale,
    logits_under,
)
from rlbilinear.probes.moves import (
    Moves,
    has_policy,
    move_distribution,
    right_moves,
    total_variation,
)
from rlbilinear.probes.study import Direction, Study

FACTORS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""Doses: by how much the direction's departure from its mean is multiplied; 0 ablates, 1 keeps."""

DOSE_METRICS = {"right move": "right", "probability moved": "total_variation"}


def move_effects(
    original: Moves,
    edited: Moves,
    expert: Int[np.ndarray, "n"],
    levels: Int[np.ndarray, "n"],
) -> pd.DataFrame:
    """Compare an edited policy with the original, state by state.

    Returns:
        Columns ``level``; ``loss``, the fall of the probability of the expert's move; ``right``,
        whether the edited agent's most likely move is the expert's (both NaN where the expert has
        none); ``total_variation``, the probability that has moved elsewhere; ``finite``, 0 where
        an agent's outputs are not finite, and the others are NaN.
    """
    states = np.arange(len(expert))
    known = expert != NO_MOVE
    loss = original[states, expert] - edited[states, expert]
    return pd.DataFrame(
        {
            "level": levels,
            "loss": np.where(known, loss, np.nan),
            "right": right_moves(edited, expert),
            "total_variation": total_variation(original, edited),
            "finite": (has_policy(original) & has_policy(edited)).astype(float),
        }
    )


def effects_of(
    seen: Seen,
    edited: Iterable[Agent],
    expert: Int[np.ndarray, "n"],
    levels: Int[np.ndarray, "n"],
) -> list[pd.DataFrame]:
    """Return `move_effects` of each edited agent on the same states."""
    original = seen.moves(seen.agent)
    return [move_effects(original, seen.moves(each), expert, levels) for each in edited]


def matched_factor(study: Study, direction: Direction, control: Direction, factor: float) -> float:
    """Return the factor for a control direction that changes the layer's output as much.

    ``(1 - factor) spread(direction) = (1 - matched) spread(control)``, in root mean square.
    """
    return 1 - (1 - factor) * study.spread(direction) / study.spread(control)


def edit_direction(study: Study, direction: Direction, factor: float) -> Agent:
    """Scale a direction at the study's layer about its mean, in the weights."""
    return scale_about_mean(study.agent, study.layer, direction, factor, study.mean)


def control_edits(study: Study, direction: Direction, factor: float) -> dict[str, list[Agent]]:
    """Edit each control direction by as much as a given one would be; by kind of control."""
    return {
        kind: [
            edit_direction(study, control, matched_factor(study, direction, control, factor))
            for control in controls
        ]
        for kind, controls in study.controls.items()
    }


def mean_effects(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average the effects of several controls on the same states."""
    return sum(table.astype(float) for table in tables) / len(tables)


def against_control(
    name: str, effect: pd.DataFrame, control: pd.DataFrame, metric: str = "loss"
) -> dict[str, object]:
    """Summarise an effect and its control in one row: both means with intervals, and the test.

    Returns:
        ``intervention``, ``metric``, ``effect``, ``low``, ``high``, ``control``, ``control_low``,
        ``control_high``, ``difference``, ``difference_low``, ``difference_high``,
        ``effect_size``, ``p`` (sign-flip test of the difference, uncorrected), ``levels``;
        ``finite`` and ``control_finite``, the shares of states in which the outputs are finite:
        below 1 the effect is NaN, and p 1.
    """
    levels = effect["level"].to_numpy()
    value, other = effect[metric].to_numpy(), control[metric].to_numpy()
    own, its = missing.interval(value, levels), missing.interval(other, levels)
    paired = missing.difference(value, other, levels)
    return {
        "intervention": name,
        "metric": metric,
        "effect": own.estimate,
        "low": own.low,
        "high": own.high,
        "control": its.estimate,
        "control_low": its.low,
        "control_high": its.high,
        "difference": paired.difference,
        "difference_low": paired.low,
        "difference_high": paired.high,
        "effect_size": paired.effect_size,
        "p": paired.p_value,
        "levels": paired.n_levels,
        "finite": effect["finite"].mean(),
        "control_finite": control["finite"].mean(),
    }


def dose_response(study: Study, directions: Mapping[str, Direction]) -> pd.DataFrame:
    """Scale each direction by each of `FACTORS`, beside the first random one changed as much.

    Returns:
        Columns ``intervention``, ``kind`` (``edit`` or ``control``), ``factor``, ``metric``
        (``right move`` and ``probability moved``), ``value``, ``low``, ``high``, ``finite``.
    """
    pairs, control, rows = study.pairs, study.random[0], []
    seen = Seen(study.agent, pairs.base.observations)
    for name, direction in directions.items():
        for factor in FACTORS:
            matched = matched_factor(study, direction, control, factor)
            agents = (
                edit_direction(study, direction, factor),
                edit_direction(study, control, matched),
            )
            tables = effects_of(seen, agents, pairs.base.moves, pairs.levels)
            for kind, table in zip(("edit", "control"), tables, strict=True):
                for metric, column in DOSE_METRICS.items():
                    value = missing.interval(table[column].to_numpy(), pairs.levels)
                    rows.append(
                        {
                            "intervention": name if kind == "edit" else f"random, sized as {name}",
                            "kind": kind,
                            "factor": factor,
                            "metric": metric,
                            "value": value.estimate,
                            "low": value.low,
                            "high": value.high,
                            "finite": table["finite"].mean(),
                        }
                    )
    return pd.DataFrame(rows)


def ways_to_edit(study: Study) -> pd.DataFrame:
    """Take a direction away, or keep only it, in several ways, in weights and in activations.

    Returns:
        For each direction a row for each way: ``direction``; ``way``; ``space``, weights or
        activations; ``loss`` of the right move's probability, with ``low`` and ``high``; ``right``,
        how often the most likely move is right; ``finite``, the share of states with finite output:
        below 1 the others are NaN. Ablating about the mean is the same function in both.
    """
    states, levels = study.pairs.base, study.pairs.levels
    seen = Seen(study.agent, states.observations)
    original = seen.moves(study.agent)
    hows: dict[str, How] = {
        "at its mean": Replace(study.mean),
        "zero": Scale(0.0),
        "resampled from the fitting levels": Resample(study.fit.observations, study.seed),
    }
    rows = []
    for name, direction in study.directions.items():
        kept = only_direction(study.agent, study.layer, direction, study.mean)
        ways = {
            ("at its mean", "weights"): edit_direction(study, direction, 0.0),
            ("only it kept, the rest at its mean", "weights"): kept,
        }
        moves = {way: seen.moves(edited) for way, edited in ways.items()}
        for how, intervention in hows.items():
            change = Intervention(study.layer, intervention, direction[None])
            logits = logits_under(study.agent, states.observations, [change])
            moves[how, "activations"] = move_distribution(logits)
        for (way, space), edited in moves.items():
            effect = move_effects(original, edited, states.moves, levels)
            loss = missing.interval(effect["loss"].to_numpy(), levels)
            rows.append(
                {
                    "direction": name,
                    "way": way,
                    "space": space,
                    "loss": loss.estimate,
                    "low": loss.low,
                    "high": loss.high,
                    "right": missing.mean(effect["right"]),
                    "finite": effect["finite"].mean(),
                }
            )
    return pd.DataFrame(rows)
