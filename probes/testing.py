"""The later steps of a validation: edit the weights, and measure what the agent then does."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from agents import Agent
from envs import EVALUATION, Maze
from probes import figures as draw
from probes.behaviour import compare, field, fields, paired_rollouts, reach_grid, vector_field
from probes.dataset import Pairs
from probes.edits import steer
from probes.effects import (
    against_control,
    control_edits,
    dose_response,
    edit_direction,
    effects_of,
    mean_effects,
)
from probes.maps import cell_heatmap, vector_fields
from probes.part import Claim, Part
from probes.planting import PlaceMaps, along, plantings, steering_table
from probes.report import Drawing, Section, Video
from probes.retarget import BiasMap, cheese_maps, retarget
from probes.statistics import bootstrap_interval, paired_difference
from probes.study import DIRECTIONS, Direction, Study
from probes.trace import filter_edits
from probes.videos import side_by_side

LOSS_SHOWN, LOSS_NEGLIGIBLE = 0.1, 0.02
"""A direction is necessary when without it the right move loses this much probability."""
STEERED_SHOWN, STEERED_NEGLIGIBLE = 0.5, 0.1
"""A direction steers when this many states more than unsteered make the move to the target."""
SPECIFIC = 0.05
"""An edit is specific when, without a cheese, it moves less probability than this."""


def edit(study: Study) -> Part:
    """Ablate each direction, and the eigenfilters that write it; beside controls as large."""
    pairs, agent = study.pairs, study.agent
    edited = {name: edit_direction(study, d, 0.0) for name, d in study.directions.items()}
    edited["permuted probe"] = edit_direction(study, study.permuted, 0.0)
    controls = {
        name: control_edits(study, direction, 0.0)
        for name, direction in {**study.directions, "permuted probe": study.permuted}.items()
    }
    by_filters = filter_edits(study, study.directions["difference"])
    edited |= {name: own for name, (own, _) in by_filters.items()}
    controls |= {name: theirs for name, (_, theirs) in by_filters.items()}

    with_cheese = _measure(agent, edited, controls, pairs)
    without = _measure(agent, edited, controls, _swapped(study.absent))
    rows = [against_control(name, *with_cheese[name]) for name in edited]
    rows += [against_control(name, *with_cheese[name], "total_variation") for name in edited]
    rows += [
        {**against_control(name, *without[name], "total_variation"), "metric": "change, no cheese"}
        for name in edited
    ]
    table = pd.DataFrame(rows)
    loss = table[table["metric"] == "loss"].set_index("intervention")
    quiet = table[table["metric"] == "change, no cheese"].set_index("intervention")
    claims = [
        Claim(
            f"{name}: necessary (ablated, the right move loses probability)",
            **loss.loc[name, ["effect", "low", "high", "control", "p"]].to_dict(),
            shown=LOSS_SHOWN,
            negligible=LOSS_NEGLIGIBLE,
            decided_by="necessity",
        )
        for name in [*DIRECTIONS, *by_filters]
    ]
    claims += [
        Claim(
            f"{name}: specific (ablated, little changes without a cheese)",
            **quiet.loc[name, ["effect", "low", "high", "control"]].to_dict(),
            p=None,
            shown=SPECIFIC,
            negligible=SPECIFIC,
            decided_by="edits",
            smaller=True,
        )
        for name in DIRECTIONS
    ]
    doses = dose_response(study, study.directions)
    forest = pd.concat(
        [
            loss.reset_index().assign(kind="ablated"),
            loss.reset_index()[["intervention", "control", "control_low", "control_high"]]
            .set_axis(["intervention", "effect", "low", "high"], axis=1)
            .assign(kind="control"),
        ]
    )
    found = loss.loc["difference"]
    text = (
        f"Each direction's departure from its mean is removed from the output of {study.layer}, in "
        "the weights (the block's down-projection, its skip and a bias map), and the edited agent "
        "is asked in the same mazes. The right move has lost "
        f"{found['effect']:.3f} [{found['low']:.3f}, {found['high']:.3f}] of its probability "
        "without the causal direction, and "
        f"{found['control']:.3f} without random directions scaled to change the layer's output as "
        "much. Ablating the eigenfilters that write the direction asks the same of the weights one "
        "step earlier; what comes along the skip path stays. `total_variation` is the probability "
        "that an edit moves elsewhere, `change, no cheese` the same in mazes without a cheese."
    )
    return Part(
        Section(
            "Is it necessary? Edits in weight space",
            text,
            ("edits", "dose-response"),
            ("necessity", "dose-response"),
        ),
        tables={"edits": table, "dose-response": doses},
        figures={
            "necessity": Drawing(
                draw.forest(
                    forest,
                    effect="probability lost by the right move",
                    title="What ablating a direction, or its eigenfilters, costs",
                ),
                "Loss of the right move's probability, beside controls of equal size.",
            ),
            "dose-response": Drawing(
                draw.dose_response(doses),
                "The agent's moves as a direction is flipped (-1), ablated (0), kept (1), doubled.",
            ),
        },
        agents={f"{name}-ablated": edited[name] for name in DIRECTIONS},
        scalars={
            f"dose/{name}/{metric}": [
                (round(100 * row.factor), row.value) for row in line.itertuples()
            ]
            for (name, metric), line in doses.groupby(["intervention", "metric"], sort=False)
        },
        claims=tuple(claims),
    )


def steer_to(study: Study) -> Part:
    """Plant a cheese along each direction: in single states, and for the way to every cell."""
    fitted = [Maze.from_seed(level) for level in np.unique(study.fit.levels).tolist()]
    maps = {
        cell: each.double()
        for cell, each in cheese_maps(study.agent, study.layer, fitted, seed=study.seed).items()
    }
    planted = plantings(study, maps)
    table = steering_table(study, maps, planted, study.directions)
    summary = _steering_summary(table)
    states = table.set_index(["condition", "gain"])
    none, random = (
        states.loc[key, "right"].to_numpy() for key in (("no edit", 0.0), ("random", 1.0))
    )
    claims = []
    for name in DIRECTIONS:
        gained = states.loc[(name, 1.0), "right"].to_numpy() - none
        value = bootstrap_interval(gained, planted.levels, seed=study.seed)
        paired = paired_difference(gained, random - none, planted.levels, seed=study.seed)
        claims.append(
            Claim(
                f"{name}: steerable (planted alone, the agent goes there)",
                *value,
                control=float((random - none).mean()),
                p=paired.p_value,
                shown=STEERED_SHOWN,
                negligible=STEERED_NEGLIGIBLE,
                decided_by="steering",
            )
        )

    mazes = [maze for maze in map(Maze.from_seed, EVALUATION.first(study.sizes.levels))
             if len(maze.free_cells()) > 30][: study.sizes.steered_mazes]  # fmt: skip
    mazes = [maze.with_cheese() for maze in mazes]
    zero = torch.zeros_like(next(iter(maps.values())))
    direction = study.directions["difference"]
    biases = {
        "not steered": lambda change: zero,
        "along the direction": lambda change: along(change, direction),
        "along a random one": lambda change: along(change, direction, study.random[0]),
    }
    sent = pd.concat(
        retarget(study.agent, study.layer, mazes, _planted(maps, zero, bias)).assign(steered=name)
        for name, bias in biases.items()
    )
    rates = sent.groupby("steered")["sent"].mean()
    show = summary.set_index(["condition", "gain"])["right"]
    text = (
        "The level's cheese is taken out of the maze, and what a cheese in some cell adds along "
        f"one direction at {study.layer} (measured on the fitting levels) is added there as a bias: a "
        "weight edit. The likeliest move is then the right one for the planted cell in "
        f"{show[('difference', 1.0)]:.2f} of the states, "
        f"{show[('real cheese', 1.0)]:.2f} with a real cheese there, {show[('no edit', 0.0)]:.2f} "
        f"without, {show[('random', 1.0)]:.2f} along a random direction. From the start, "
        f"{rates['along the direction']:.0%} of all free cells of {len(mazes)} mazes can be "
        f"reached so by the likeliest moves ({rates['not steered']:.0%} without steering, "
        f"{rates['along a random one']:.0%} along a random direction)."
    )
    example = max(mazes, key=lambda maze: len(maze.free_cells()))
    return Part(
        Section(
            "Is it steerable? A cheese planted in the weights",
            text,
            ("steering", "retargeting"),
            ("steering", "retargeting", "steered-field"),
        ),
        tables={
            "steering": summary,
            "retargeting": sent.groupby(["steered", "level"], as_index=False, sort=False).agg(
                sent=("sent", "mean"), reach=("reach", "mean"), targets=("sent", "size")
            ),
        },
        figures={
            "steering": Drawing(
                draw.forest(
                    _steering_forest(summary),
                    effect="share of states with the right move for the target",
                    title="Sent to a planted cheese: one direction, one state, one move",
                ),
                "How often the agent makes the move towards a cheese planted along a direction.",
            ),
            "retargeting": _retargeting(sent, mazes, example),
            "steered-field": _steered_field(study, example, maps, direction),
        },
        claims=tuple(claims),
    )


def play(study: Study) -> Part:
    """Let the original and the edited agents play held-out levels to the end."""
    direction = study.directions["difference"]
    agents = {
        "original": study.agent,
        "difference ablated": edit_direction(study, direction, 0.0),
        "random ablated": control_edits(study, direction, 0.0)[0],
        "probe ablated": edit_direction(study, study.directions["probe"], 0.0),
    }
    levels = EVALUATION.first(study.sizes.played_levels)
    results = paired_rollouts(agents, levels, seed=study.seed, progress=True)
    rows = []
    original = results[results["agent"] == "original"]
    for name in agents:
        own = results[results["agent"] == name]
        for metric in ("solved", "success", "return", "steps"):
            values = own[metric].to_numpy(float)
            row: dict[str, str | float] = {"agent": name, "metric": metric}
            row |= bootstrap_interval(values, own["level"].to_numpy())._asdict()
            if name != "original":
                paired = paired_difference(values, original[metric].to_numpy(float), own["level"])
                row |= {
                    "change": paired.difference,
                    "change_low": paired.low,
                    "change_high": paired.high,
                    "p": paired.p_value,
                }
            rows.append(row)
    table = pd.DataFrame(rows)
    mazes = [Maze.from_seed(level) for level in levels[:20]]
    example = max(mazes, key=lambda maze: len(maze.free_cells()))
    before, after = fields(study.agent, mazes), fields(agents["difference ablated"], mazes)
    cells = pd.concat(
        compare(one, other).assign(level=maze.level_seed)
        for one, other, maze in zip(before, after, mazes, strict=True)
    )
    shown = field(study.agent, example), field(agents["difference ablated"], example)
    solved = table[table["metric"] == "solved"].set_index("agent")["estimate"]
    text = (
        f"On {len(levels)} held-out levels, with the same sampling noise for all agents: solved "
        "within twice the shortest path plus 10 steps by "
        + ", ".join(f"{name} {value:.2f}" for name, value in solved.items())
        + ". Averaged over every free cell of 20 mazes, ablating the causal direction moves "
        f"{cells['total_variation'].mean():.3f} of the probability."
    )
    return Part(
        Section(
            "What the agent then does",
            text,
            ("behaviour",),
            ("vector-field", "reach"),
            ("original-and-edited",),
        ),
        tables={"behaviour": table, "rollouts": results, "cells": cells},
        figures={
            "vector-field": Drawing(
                vector_fields(
                    example,
                    *(vector_field(each) for each in shown),
                    names=("original", "direction ablated"),
                ),
                "The policy with the mouse in every cell, before and after the edit.",
            ),
            "reach": Drawing(
                cell_heatmap(
                    example,
                    {
                        "original": reach_grid(shown[0]),
                        "direction ablated": reach_grid(shown[1]),
                    },
                    label="reach",
                    title="How readily the agent would go to each cell",
                ),
                "Geometric mean of the step probabilities along the way from the start.",
            ),
        },
        videos={
            "original-and-edited": Video(
                side_by_side(
                    example,
                    {"original": study.agent, "ablated": agents["difference ablated"]},
                    steps=80,
                    seed=study.seed,
                ),
                "An episode of the original agent and of the edited one, from the same start.",
            )
        },
    )


def _measure(
    agent: Agent, edited: dict[str, Agent], controls: dict[str, list[Agent]], pairs: Pairs
) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return the effects of each edit, and the mean effects of its controls, on the base states."""
    seen = pairs.base.observations, pairs.base.moves.astype(np.int64), pairs.levels
    own = effects_of(agent, edited, *seen)
    measured = {}
    for name, table in own.items():
        others = effects_of(agent, {str(i): c for i, c in enumerate(controls[name])}, *seen)
        measured[name] = table, mean_effects(list(others.values()))
    return measured


def _planted(maps: PlaceMaps, zero: Tensor, bias: Callable[[Tensor], Tensor]) -> BiasMap:
    """Make the bias for each target; a cell that no fitting level has free gets none."""
    return lambda maze, cell: (bias(maps[cell]) if cell in maps else zero).float()


def _swapped(pairs: Pairs) -> Pairs:
    return Pairs(pairs.source, pairs.base, pairs.levels)


def _steering_summary(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (condition, gain), group in table.groupby(["condition", "gain"], sort=False):
        levels = group["level"].to_numpy()
        right = bootstrap_interval(group["right"].to_numpy(), levels)
        probability = bootstrap_interval(group["probability"].to_numpy(), levels)
        rows.append(
            {
                "condition": condition,
                "gain": gain,
                "right": right.estimate,
                "low": right.low,
                "high": right.high,
                "probability": probability.estimate,
                "states": len(group),
            }
        )
    return pd.DataFrame(rows)


def _steering_forest(summary: pd.DataFrame) -> pd.DataFrame:
    at_one = summary[summary["gain"] <= 1.0]
    at_one = at_one[at_one["gain"] != 0.5]
    reference = at_one["condition"].isin(["no edit", "random"])
    real = at_one["condition"] == "real cheese"
    kinds = np.select([reference, real], ["control", "real cheese"], "planted")
    return pd.DataFrame(
        {
            "intervention": at_one["condition"].to_numpy(),
            "kind": kinds,
            "effect": at_one["right"].to_numpy(),
            "low": at_one["low"].to_numpy(),
            "high": at_one["high"].to_numpy(),
        }
    )


def _retargeting(sent: pd.DataFrame, mazes: list[Maze], example: Maze) -> Drawing:
    here = sent[sent["maze"] == mazes.index(example)]
    panels = {}
    for name in ("not steered", "along the direction"):
        grid = np.full(example.grid.shape, np.nan)
        rows = here[here["steered"] == name]
        grid[rows["row"], rows["column"]] = rows["reach"]
        panels[name] = grid
    return Drawing(
        cell_heatmap(
            example,
            panels,
            label="reach",
            title="Which cells the agent can be sent to by planting a cheese there",
        ),
        "Reach of each cell from the start, unsteered and with a cheese planted in that cell.",
    )


def _steered_field(study: Study, example: Maze, maps: PlaceMaps, direction: Direction) -> Drawing:
    targets = [cell for cell in example.free_cells() if cell in maps and cell != example.mouse]
    target = max(targets, key=lambda cell: cell.column - cell.row)
    steered = steer(study.agent, study.layer, along(maps[target], direction).float())
    both = [vector_field(field(agent, example)) for agent in (study.agent, steered)]
    return Drawing(
        vector_fields(
            example,
            *both,
            names=("no cheese", f"planted at row {target.row}, column {target.column}"),
            title="Where the policy sends the mouse, and after planting a cheese in the weights",
        ),
        "A maze without cheese, and the same after one bias map along the direction.",
    )
