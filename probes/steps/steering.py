"""Plant a cheese in the weights, and see whether the agent goes there."""

from collections.abc import Callable
from itertools import islice

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rlbilinear.agents.edits.directions import steer
from rlbilinear.envs import EVALUATION, Cell, Maze
from rlbilinear.probes import missing
from rlbilinear.probes.behaviour import field, vector_field
from rlbilinear.probes.maps import cell_heatmap, vector_fields
from rlbilinear.probes.planting import PlaceMaps, along, plantings, steering_table
from rlbilinear.probes.report import Drawing, Section
from rlbilinear.probes.retargeting import BiasMap, cheese_maps, retarget
from rlbilinear.probes.steering_figure import steering_panels
from rlbilinear.probes.steps.result import Claim, StepResult
from rlbilinear.probes.study import CONTROLS, DIRECTIONS, Study

STEERED_SHOWN, STEERED_NEGLIGIBLE = 0.5, 0.1
"""A direction steers when in this share of states the move is right for the planted cheese."""
LARGE = 30
"""The agent is sent to every cell of mazes with more free cells than this."""


def steer_to_cells(study: Study) -> StepResult:
    """Plant a cheese along each direction: in single states, and for the way to every cell."""
    fitted = [Maze.from_seed(level) for level in np.unique(study.fit.levels).tolist()]
    maps = {
        cell: each.cpu().double()
        for cell, each in cheese_maps(study.agent, study.layer, fitted, seed=study.seed).items()
    }
    planted = plantings(study, maps)
    table = steering_table(study, maps, planted, study.directions)
    summary = _steering_summary(table)
    at_one = table[table["gain"] == 1.0].set_index("condition")["right"]
    controls = {kind: at_one[f"moved: {kind}"].to_numpy() for kind in CONTROLS}
    claims = []
    for name in DIRECTIONS:
        right = at_one[f"moved: {name}"].to_numpy()
        value = missing.interval(right, planted.levels, seed=study.seed)
        versus = missing.versus(right, controls, planted.levels, seed=study.seed)
        claims.append(
            Claim(
                f"{name}: steerable",
                *value,
                control=versus.control,
                p=versus.p_value,
                shown=STEERED_SHOWN,
                negligible=STEERED_NEGLIGIBLE,
                decided_by="steering",
                meaning="the cheese is moved along the direction, in the weights: share of states "
                "in which the agent makes the right move for where it was moved to",
            )
        )

    mazes = _large_mazes(study.sizes.steered_mazes)
    direction = study.directions["difference"]
    biases: dict[str, BiasMap | None] = {
        "not steered": None,
        "along the direction": _planted(maps, lambda change: along(change, direction)),
        "along a random one": _planted(
            maps, lambda change: along(change, direction, study.random[0])
        ),
    }
    sent = pd.concat(
        retarget(study.agent, study.layer, mazes, bias, progress=study.progress).assign(
            steered=name
        )
        for name, bias in biases.items()
    )
    rates = {
        name: missing.interval(rows["sent"].to_numpy(float), rows["level"].to_numpy())
        for name, rows in sent.groupby("steered")
    }
    reached = rates["along the direction"]
    show = summary[summary["gain"] == 1.0].set_index("condition")["right"]
    text = (
        "What a cheese in some cell adds to the output of "
        f"{study.layer} along one direction is measured on the fitting levels, and added as a bias "
        "map: a weight edit. While the level's own cheese is seen, its map is taken away and that "
        "of another cell added; the most likely move is then the right one for that cell in "
        f"{show['moved: difference']:.2f} of the states, {show['real cheese']:.2f} when the cheese "
        f"is really there, {show['own cheese']:.2f} without an edit, "
        + ", ".join(f"{show[f'moved: {kind}']:.2f} along {what}" for kind, what in CONTROLS.items())
        + ". In mazes without a cheese it is "
        f"{show['planted: difference']:.2f} planted and {show['no cheese']:.2f} not. From the "
        f"start, {reached.estimate:.0%} [{reached.low:.0%}, {reached.high:.0%}] of the free cells "
        f"of {len(mazes)} mazes of more than {LARGE} cells, without a cheese, can be reached so by "
        f"the most likely moves ({rates['not steered'].estimate:.0%} without steering, "
        f"{rates['along a random one'].estimate:.0%} along one random direction)."
    )
    example = max(mazes, key=lambda maze: len(maze.free_cells()))
    return StepResult(
        Section(
            "Is it steerable? A cheese planted in the weights",
            text,
            ("steering", "retargeting"),
            ("steering", "retargeting", "steered-field"),
        ),
        tables={
            "steering": summary,
            "retargeting": sent.groupby(["steered", "level"], as_index=False, sort=False).agg(
                sent=("sent", missing.mean),
                reach=("reach", missing.mean),
                finite=("finite", "mean"),
                targets=("sent", "size"),
            ),
        },
        figures={
            "steering": Drawing(
                steering_panels(summary, controls=tuple(CONTROLS)),
                "How often the agent makes the move towards a cheese planted along a direction.",
            ),
            "retargeting": _retargeting(sent, mazes, example),
            "steered-field": _steered_field(study, example, maps, sent),
        },
        claims=tuple(claims),
    )


def _large_mazes(count: int) -> list[Maze]:
    """Return the first held-out mazes of more than `LARGE` free cells, without their cheese."""
    mazes = (Maze.from_seed(level) for level in range(EVALUATION.start, EVALUATION.stop))
    large = (maze.with_cheese() for maze in mazes if len(maze.free_cells()) > LARGE)
    return list(islice(large, count))


def _planted(maps: PlaceMaps, bias: Callable[[Tensor], Tensor]) -> BiasMap:
    """Make the bias for each target; a cell that no fitting level has free gets none."""
    zero = torch.zeros_like(next(iter(maps.values())))
    return lambda maze, cell: (bias(maps[cell]) if cell in maps else zero).float()


def _steering_summary(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (condition, gain), group in table.groupby(["condition", "gain"], sort=False):
        levels = group["level"].to_numpy()
        right = missing.interval(group["right"].to_numpy(), levels)
        probability = missing.interval(group["probability"].to_numpy(), levels)
        rows.append(
            {
                "condition": condition,
                "gain": gain,
                "right": right.estimate,
                "low": right.low,
                "high": right.high,
                "probability": probability.estimate,
                "finite": group["finite"].mean(),
                "states": len(group),
            }
        )
    return pd.DataFrame(rows)


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


def _steered_field(study: Study, example: Maze, maps: PlaceMaps, sent: pd.DataFrame) -> Drawing:
    """Draw the policy before and after planting a cheese where the agent is least bound to go."""
    unsteered = sent[(sent["steered"] == "not steered") & (sent["level"] == example.level_seed)]
    rows = unsteered.sort_values("reach")[["row", "column"]].itertuples(index=False)
    target = next(cell for cell in (Cell(*row) for row in rows) if cell in maps)
    bias = along(maps[target], study.directions["difference"]).float()
    steered = steer(study.agent, study.layer, bias)
    both = [vector_field(field(agent, example)) for agent in (study.agent, steered)]
    return Drawing(
        vector_fields(
            example,
            *both,
            names=("no cheese", f"planted: row {target.row}, column {target.column}"),
            title="Where the policy sends the mouse, and after planting a cheese in the weights",
        ),
        "A maze without cheese, and the same after one bias map along the direction.",
    )
