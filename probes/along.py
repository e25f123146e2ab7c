"""A concept along training: when it becomes readable, when it becomes used, when its form is there.

`rlbilinear.agents.distill` and `train` keep agents along training; each is asked the same, about
the same states and pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from rlbilinear import BilinearConv2d, Eigenfilters, eigenfilters
from rlbilinear.agents import Agent, load
from rlbilinear.agents.checkpoint import CheckpointError
from rlbilinear.agents.edits.directions import bilinear_part
from rlbilinear.agents.run import AGENT, TRAJECTORY, Run
from rlbilinear.agents.surrogate import hidden_layers, polynomial_surrogate, regrouped
from rlbilinear.probes.causal.choosing import asked, candidate_layers
from rlbilinear.probes.causal.data import ConceptData
from rlbilinear.probes.causal.interventions import Layer, follows
from rlbilinear.probes.causal.readings import Features, chance, fit_reading
from rlbilinear.probes.causal.subspaces import difference_subspace, rows_of
from rlbilinear.probes.subject import Subject, as_subject
from rlbilinear.probes.surrogate import has_relu_blocks
from rlbilinear.statistics import bootstrap_interval

FOREMOST = 4
"""Eigenfilters that are compared with the final agent's."""
RANDOM = 3
"""Random directions that the exchange is compared with."""
STATES = 64
"""States on which polynomials are fitted, and as many on which they are measured."""


def trajectory(run: str | Path) -> dict[int, Agent]:
    """Load the agents that a run kept along training, and its final one, by frames.

    Raises:
        CheckpointError: the folder has no agents along training, or one is damaged.
    """
    run = Path(run)
    places = sorted((run / TRAJECTORY).glob("[0-9]*"))
    if not places:
        raise CheckpointError(f"{run} has no agents along training: no {TRAJECTORY}/ in it")
    found = {int(place.name): load(place) for place in places}
    if (run / AGENT).is_dir():
        found[Run(run).trained_frames] = load(run / AGENT)
    return found


def along_training(
    agents: Mapping[int, Agent],
    data: ConceptData,
    layer: str,
    *,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Ask the same about a concept of every agent of a training.

    Args:
        agents: by frames, as `trajectory` returns them; the last is the final one.
        data: the concept, a map.
        layer: where.
        seed: seed of random directions and intervals.
        progress: show a bar.

    Returns:
        A row for each agent: ``frames``; ``readable``, the held-out score of the reading, with
        ``readable_low`` and ``readable_high`` over groups and ``base_rate``; ``used``, the share of
        held-out pairs in which exchanging the difference direction alone makes the agent do what is
        right in the other state, with its interval, and ``random``, the same of random directions
        of equal effect on the layer. Of a bilinear layer also ``rank``, the participation ratio
        of the eigenvalues of the direction's form, and ``alike``, the mean squared cosine between
        what its leading eigenfilters span and those of the final agent. Of a ReLU agent also
        ``linear_r2`` and ``quadratic_r2``, the share of the variance of what the residual blocks
        add that their best polynomials explain on held-out states, mean over channels and blocks.

    Raises:
        ValueError: no agents, a concept that is not in places, or a layer without maps, or
            that some agent has not.
    """
    if not agents:
        raise ValueError("agents: expected at least one")
    if data.kind != "map":
        raise ValueError(f"data: expected a concept in places (a map), got a {data.kind}")
    rows, directions = [], []
    for frames in tqdm(sorted(agents), disable=not progress, desc="along training"):
        subject = as_subject(agents[frames])
        if layer not in (allowed := candidate_layers(subject, data)):
            raise ValueError(f"unknown layer {layer!r}; choose from {', '.join(allowed)}")
        row, direction = _read_and_used(subject, data, layer, seed)
        rows.append({"frames": frames} | row)
        directions.append(direction)
    return pd.DataFrame(rows).join(pd.DataFrame(_inside(agents, directions, layer, data)))


def _read_and_used(
    subject: Subject, data: ConceptData, layer: str, seed: int
) -> tuple[dict[str, float], Float[Tensor, "channels"]]:
    """Return what is read and used at a layer, and the difference direction there."""
    fit_outputs = subject.activations(data.fit.observations, [layer])[layer]
    mean = rows_of(fit_outputs, data.kind).mean(0)
    fitting = asked(subject, data, data.fit_pairs).pairs
    what = asked(subject, data, data.pairs)
    at_fit, here = (
        Layer.of(subject, layer, data.kind, data.behaviours, pairs, mean)
        for pairs in (fitting, what.pairs)
    )
    reading = fit_reading(Features(fit_outputs, data.kind), data.fit)
    labels = np.asarray(data.held_out.labels)
    outputs = subject.activations(data.held_out.observations, [layer])[layer]
    scores = reading.score(outputs, labels)
    known = np.isfinite(scores)
    base = chance(data.kind, np.asarray(data.fit.labels), labels)
    basis = difference_subspace(at_fit.change, fitting, data.kind, 1)
    used = follows(here.exchange(basis), what.source)
    generator = torch.Generator().manual_seed(seed)
    random = [
        follows(here.exchange(_unit(basis.shape[1], generator), like=basis), what.source)
        for _ in range(RANDOM)
    ]
    row = {
        **_interval("readable", scores[known], data.held_out.groups[known], seed),
        "base_rate": float(base[known].mean()),
        **_interval("used", used, what.pairs.groups, seed),
        "random": float(np.nanmean(random)),
    }
    return row, basis[0]


def _inside(
    agents: Mapping[int, Agent], directions: Sequence[Tensor], layer: str, data: ConceptData
) -> list[dict[str, float]]:
    """Return what the direction's form is, or how well polynomials explain a ReLU agent."""
    ordered = [agents[frames] for frames in sorted(agents)]
    if has_relu_blocks(ordered[-1]):
        return [_explained(agent, data) for agent in ordered]
    found = []
    for agent, direction in zip(ordered, directions, strict=True):
        _, part = bilinear_part(agent, layer)
        assert isinstance(part, BilinearConv2d)  # a concept in places is asked at maps
        found.append(eigenfilters(part, direction))
    final = _span(found[-1])
    rows = []
    for each in found:
        squares = each.values.double().square()
        rank = squares.sum() ** 2 / squares.square().sum()
        alike = (_span(each) @ final.T).square().sum() / len(final)
        rows.append({"rank": float(rank), "alike": float(alike)})
    return rows


def _span(found: Eigenfilters) -> Float[Tensor, "filters inputs"]:
    return torch.linalg.qr(found.filters[:FOREMOST].double().flatten(1).T).Q.T


def _explained(agent: Agent, data: ConceptData) -> dict[str, float]:
    blocks = [name for name in hidden_layers(regrouped(agent)) if name.startswith("block")]
    found = {}
    for name, degree in (("linear_r2", 1), ("quadratic_r2", 2)):
        table = polynomial_surrogate(
            agent,
            data.fit.observations[:STATES],
            blocks,
            degree,
            reestimate=False,
            fit="inputs",
            held_out=data.held_out.observations[:STATES],
        ).replacement.table()
        found[name] = float(table["measured_r2"][table["degree"] == degree].mean())
    return found


def _interval(name: str, values: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, float]:
    found = bootstrap_interval(values, groups, seed=seed)
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _unit(dimension: int, generator: torch.Generator) -> Float[Tensor, "1 dimension"]:
    vector = torch.randn(1, dimension, generator=generator, dtype=torch.float64)
    return vector / vector.norm()
