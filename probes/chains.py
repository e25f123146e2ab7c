"""Errors of following a direction through several layers, measured on states."""

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd
import torch

from rlbilinear.agents import Agent
from rlbilinear.agents.polynomial_parts import (
    explain_components,
    explain_degrees,
    inputs_of,
    part_to,
)
from rlbilinear.chains import explain_chain
from rlbilinear.envs import EVALUATION, Maze, observe
from rlbilinear.figures import depth as draw
from rlbilinear.probes.decomposition import Decomposition
from rlbilinear.probes.report import Drawing


def with_depth(
    found: Decomposition, agent: Agent, *, filters: Iterable[int] = (1, 4), levels: int = 48
) -> Decomposition:
    """Add to a decomposition what depth does: chains, singular components, degrees, with their R².

    The direction is followed down to the pool before its layer, by the leading eigenfilters of
    every direction on the way and the leading channel pattern of each; beside it stand all parts
    of the agent between pools.

    Args:
        found: the decomposition.
        agent: its agent.
        filters: eigenfilters kept of every direction, each number a chain of its own.
        levels: held-out levels at whose starts all is measured.

    Raises:
        ValueError: the layer is in no part that is a polynomial.
    """
    step = str(found.settings["layer"]).split(".")[0]
    direction = torch.tensor(found.settings["direction"]["vector"]).double()
    observations = observe([Maze.from_seed(seed) for seed in EVALUATION.first(levels)])
    part = part_to(agent, step)
    x = inputs_of(agent, part, observations)
    chains = pd.DataFrame(
        {
            "filters": count,
            "down_through": part.layers[-row.layers],
            **row._asdict(),
        }
        for count in filters
        for row in explain_chain(part.stack, direction, x, filters=count)
    )
    components = explain_components(agent, observations)
    degrees = explain_degrees(agent, observations)
    most = chains[chains.filters == chains.filters.max()]
    shares = ", ".join(f"{row.r2:.2f} down through {row.down_through}" for row in most.itertuples())
    drawing = Drawing(
        draw(chains, components, degrees, title=found.title),
        f"Left: a chain with k eigenfilters of every direction, each by its leading channel "
        "pattern, ignores the other filters and patterns, and the products of what it keeps with "
        f"what it does not. With {most.filters.iloc[0]} filters R² of the direction is {shares} "
        f"({levels} held-out levels; layers below are as they are). Middle: each part of the agent "
        "between pools, its layers' tensors cut to k singular components. Right: its terms up to a "
        "degree, around the mean input; large terms cancel.",
    )
    return replace(
        found,
        figures={**found.figures, "depth": drawing},
        tables={**found.tables, "chains": chains, "components": components, "degrees": degrees},
    )
