"""Let the original and the edited agents play, and compare what they do in every cell."""

import pandas as pd

from envs import EVALUATION, Maze
from probes.behaviour import compare, field, fields, paired_rollouts, reach_grid, vector_field
from probes.effects import control_edits, edit_direction
from probes.maps import cell_heatmap, vector_fields
from probes.report import Drawing, Section, Video
from probes.statistics import bootstrap_interval, paired_difference
from probes.steps.part import Part
from probes.study import Study
from probes.videos import side_by_side


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
    results = paired_rollouts(agents, levels, seed=study.seed, progress=study.progress)
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
        + f". Averaged over every free cell of {len(mazes)} of these mazes, ablating the "
        f"difference direction moves {cells['total_variation'].mean():.3f} of the probability. "
        "The random direction is one, scaled to change the layer's output as much as the "
        "difference direction. `change` and `p` compare with the original, level by level; `p` is "
        "not corrected for their number. An episode without success lasts 500 steps."
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
