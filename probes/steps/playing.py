"""Let the original and the edited agents play, and compare what they do in every cell."""

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import pandas as pd

from rlbilinear.agents import Agent
from rlbilinear.envs import EVALUATION, Maze, decision_square, expert_moves, observe, top_right
from rlbilinear.probes import missing
from rlbilinear.probes.behaviour import (
    compare_fields,
    field,
    fields,
    paired_rollouts,
    reach_grid,
    vector_field,
)
from rlbilinear.probes.effects import control_edits, edit_direction
from rlbilinear.probes.maps import cell_heatmap, vector_fields
from rlbilinear.probes.moves import move_probabilities
from rlbilinear.probes.report import Drawing, Section, Video
from rlbilinear.probes.steps.result import StepResult
from rlbilinear.probes.study import Study
from rlbilinear.probes.videos import side_by_side


def play_edited(study: Study) -> StepResult:
    """Let the original and the edited agents play held-out levels to the end."""
    direction = study.directions["difference"]
    agents = {
        "original": study.agent,
        "difference ablated": edit_direction(study, direction, 0.0),
        "random ablated": control_edits(study, direction, 0.0)["random"][0],
        "probe ablated": edit_direction(study, study.directions["probe"], 0.0),
    }
    levels = EVALUATION.first(study.sizes.played_levels)
    results = paired_rollouts(agents, levels, seed=study.seed, progress=study.progress)
    decided = decisions(agents, len(levels))
    table = pd.concat(
        [
            _compared(results, ("solved", "success", "return", "steps")),
            _compared(decided, ("towards cheese", "towards top right")),
        ]
    )
    mazes = [Maze.from_seed(level) for level in levels[:20]]
    example = max(mazes, key=lambda maze: len(maze.free_cells()))
    before, after = fields(study.agent, mazes), fields(agents["difference ablated"], mazes)
    cells = pd.concat(
        compare_fields(one, other).assign(level=maze.level_seed)
        for one, other, maze in zip(before, after, mazes, strict=True)
    )
    shown = field(study.agent, example), field(agents["difference ablated"], example)
    solved, cheese, corner = (
        table[table["metric"] == metric].set_index("agent")["estimate"]
        for metric in ("solved", "towards cheese", "towards top right")
    )
    text = (
        f"On {len(levels)} held-out levels, with the same sampling noise for all agents: solved "
        "within twice the shortest path plus 10 steps by "
        + ", ".join(f"{name} {value:.2f}" for name, value in solved.items())
        + f". Where the ways to the cheese and to the top right corner part (in {len(levels)} "
        f"levels), the original's next move is towards the cheese with probability "
        f"{cheese['original']:.2f} and towards the corner with {corner['original']:.2f}; with the "
        f"difference direction ablated {cheese['difference ablated']:.2f} and "
        f"{corner['difference ablated']:.2f}. "
        f"Averaged over every free cell of {len(mazes)} mazes, ablating the difference direction "
        f"moves {missing.mean(cells['total_variation']):.3f} of the probability. "
        "The random direction is one, scaled to change the layer's output as much as the "
        "difference direction. `change` and `p` compare with the original, level by level; `p` is "
        "not corrected for their number. An episode without success lasts 500 steps."
    )
    return StepResult(
        Section(
            "What the agent then does",
            text,
            ("behaviour",),
            ("vector-field", "reach"),
            ("original-and-edited",),
        ),
        tables={
            "behaviour": table,
            "rollouts": results,
            "decisions": decided,
            "cells": cells,
        },
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


def decisions(agents: Mapping[str, Agent], levels: int) -> pd.DataFrame:
    """Ask agents where the ways to the cheese and to the top right corner part.

    Args:
        agents: by name.
        levels: how many of the first held-out levels in which the two ways part.

    Returns:
        A row for each agent and level: ``agent``, ``level``, and the probabilities of the next move
        ``towards cheese`` and ``towards top right``.
    """
    mazes = (Maze.from_seed(level) for level in range(EVALUATION.start, EVALUATION.stop))
    squares = ((maze, decision_square(maze)) for maze in mazes)
    parting = list(islice(((maze, at) for maze, at in squares if at is not None), levels))
    observations = observe([maze.with_mouse(at) for maze, at in parting])
    towards = {
        "towards cheese": [expert_moves(maze, maze.cheese[0])[at] for maze, at in parting],
        "towards top right": [expert_moves(maze, top_right(maze))[at] for maze, at in parting],
    }
    states, tables = np.arange(len(parting)), []
    for name, agent in agents.items():
        moves = move_probabilities(agent, observations)
        columns = {metric: moves[states, move] for metric, move in towards.items()}
        tables.append(
            pd.DataFrame(
                {"agent": name, "level": [maze.level_seed for maze, _ in parting], **columns}
            )
        )
    return pd.concat(tables, ignore_index=True)


def _compared(results: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Average each metric for each agent, and compare it with the original's, level by level."""
    rows = []
    original = results[results["agent"] == "original"]
    for name, own in results.groupby("agent", sort=False):
        for metric in metrics:
            values, levels = own[metric].to_numpy(float), own["level"].to_numpy()
            row: dict[str, str | float] = {"agent": name, "metric": metric}
            row |= missing.interval(values, levels)._asdict()
            if name != "original":
                paired = missing.difference(values, original[metric].to_numpy(float), levels)
                row |= {
                    "change": paired.difference,
                    "change_low": paired.low,
                    "change_high": paired.high,
                    "p": paired.p_value,
                }
            rows.append(row)
    return pd.DataFrame(rows)
