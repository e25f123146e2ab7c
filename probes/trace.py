"""From a direction into the weights: eigenfilters of what writes it, and what reads it."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import pearsonr
from sklearn.metrics import average_precision_score
from torch import nn

from agents import Agent
from agents.architectures import BilinearBlock
from envs import Maze, distances
from envs.state import WALL
from probes.concepts import overlap, to_cells
from probes.dataset import ActivationDataset, Pairs
from probes.edits import scale_writer
from probes.study import Direction, Study
from rlbilinear import (
    BilinearConv2d,
    BilinearLinear,
    Eigenfilters,
    as_convolution,
    cross_form,
    eigenfilters,
    read,
)

TOP = 8
"""Eigenfilters listed, drawn and ablated together."""


def bilinear_writers(agent: Agent, layer: str) -> list[str]:
    """Return the bilinear blocks of the layer's stage up to it, which add to its stream."""
    steps = [name for name in agent.layer_names if "." not in name]
    writers: list[str] = []
    for name in reversed(steps[: steps.index(layer) + 1]):
        if not isinstance(agent.layer(name), BilinearBlock):
            break
        writers.insert(0, name)
    return writers


def writer_filters(
    agent: Agent, writers: list[str], direction: Direction
) -> dict[str, Eigenfilters]:
    """Return the eigenfilters of a direction in each writer."""
    return {name: eigenfilters(_branch(agent, name), direction) for name in writers}


def eigenfilter_table(
    agent: Agent, data: ActivationDataset, concept: str, filters: Mapping[str, Eigenfilters]
) -> pd.DataFrame:
    """Describe the leading eigenfilters of each writer, and how well their maps find the concept.

    Returns:
        A row for each of a writer's first `TOP` filters: ``writer``, ``index``, ``value``;
        ``share``, its part of the sum of all |values|; ``average_precision`` of the size of its
        map, cell by cell, as a detector of the concept, beside the ``base_rate``.
    """
    rows = []
    labels = data.labels[concept].reshape(-1) > 0.5
    for writer, found in filters.items():
        inputs = _input_of(agent, writer, data)
        maps = found_maps(found, inputs, TOP)
        cells = to_cells(np.abs(maps), data.labels[concept].shape[-1])
        for index, value in enumerate(found.values[:TOP].tolist()):
            rows.append(
                {
                    "writer": writer,
                    "index": index,
                    "value": value,
                    "share": abs(value) / float(found.values.abs().sum()),
                    "average_precision": average_precision_score(
                        labels, cells[:, index].reshape(-1)
                    ),
                    "base_rate": labels.mean(),
                }
            )
    return pd.DataFrame(rows)


def filter_counts(filters: Mapping[str, Eigenfilters]) -> pd.DataFrame:
    """Count how many eigenfilters of each writer carry 50, 90 and 99 % of the sum of |values|."""
    rows = []
    for writer, found in filters.items():
        cumulative = found.values.abs().cumsum(0) / found.values.abs().sum()
        counts = {
            f"filters for {share} %": int((cumulative < share / 100).sum()) + 1
            for share in (50, 90, 99)
        }
        rows.append({"writer": writer, "rank": len(found.values), **counts})
    return pd.DataFrame(rows)


def found_maps(
    found: Eigenfilters, inputs: Float[np.ndarray, "n channels height width"], k: int
) -> Float[np.ndarray, "n k height width"]:
    """Return the contribution maps of the first ``k`` filters."""
    first = Eigenfilters(
        found.values[:k],
        found.filters[:k],
        found.linear,
        found.constant,
        found.stride,
        found.padding,
    )
    return first.maps(torch.from_numpy(inputs)).numpy()


def ablate_filters(
    agent: Agent, filters: Mapping[str, Eigenfilters], direction: Direction, k: int | None
) -> Agent:
    """Ablate the first ``k`` eigenfilters (all when None) of a direction in every writer."""
    for writer, found in filters.items():
        count = len(found.values) if k is None else min(k, len(found.values))
        agent = scale_writer(agent, writer, direction, dict.fromkeys(range(count), 0.0))
    return agent


def filter_edits(study: Study, direction: Direction) -> dict[str, tuple[Agent, list[Agent]]]:
    """Ablate eigenfilters of a direction in the bilinear writers of the study's layer.

    Returns:
        By name, the edited agent and its controls: the same number of eigenfilters of random
        directions ablated in the same blocks.
    """
    writers = bilinear_writers(study.agent, study.layer)
    if not writers:
        return {}
    filters = writer_filters(study.agent, writers, direction)
    controls = [(other, writer_filters(study.agent, writers, other)) for other in study.random]
    edits = {}
    for k, name in ((1, "top eigenfilter"), (TOP, f"top {TOP} eigenfilters"), (None, "all")):
        edits[f"{name} of {', '.join(writers)}"] = (
            ablate_filters(study.agent, filters, direction, k),
            [ablate_filters(study.agent, theirs, other, k) for other, theirs in controls],
        )
    return edits


def reader_table(agent: Agent, layer: str, direction: Direction, pairs: Pairs) -> pd.DataFrame:
    """Split what each later bilinear layer of the stage makes of a direction, over the pairs.

    With ``x = s u + rest`` the reader's output is a part quadratic in ``s``, a part that multiplies
    ``s`` with the rest, and a part without ``s``.

    Returns:
        A row a reader and part (``s²``, ``s x rest``, ``rest``): ``share`` of the change of its
        output from one member of a pair to the other, ``<d part, d output> / |d output|²``;
        shares of a reader add up to 1.
    """
    rows = []
    for reader, name, conv in readers(agent, layer):
        inputs = [
            _maps_into(agent, name, states.observations, conv)
            for states in (pairs.base, pairs.source)
        ]
        with torch.no_grad():
            base, source = (read(conv, x, direction) for x in inputs)
        changes = {
            "s²": source.square - base.square,
            "s x rest": source.cross - base.cross,
            "rest": source.rest - base.rest,
        }
        total = torch.stack(list(changes.values())).sum(0)
        for part, change in changes.items():
            share = float((change * total).sum() / (total * total).sum())
            rows.append({"reader": reader, "part": part, "share": share})
    return pd.DataFrame(rows)


def partner_table(agent: Agent, layer: str, direction: Direction, pairs: Pairs) -> pd.DataFrame:
    """Say what the next reader multiplies a direction with.

    The reader's cross part is decomposed in the output direction along which the pairs change it
    most. Each component multiplies a pattern of the concept with a partner filter of the rest;
    the partner's map is correlated with what is where in the maze.

    Returns:
        A row for each of the first four components: ``reader``, ``component``, ``value``, and the
        correlation of the partner's map with ``free cells``, ``mouse`` and ``path`` (cells on the
        shortest way from mouse to cheese). Empty when no convolution reads the layer.
    """
    found = [(r, name, conv) for r, name, conv in readers(agent, layer) if conv.left.padding[0]]
    if not found:
        return pd.DataFrame(columns=["reader", "component", "value", "free cells", "mouse", "path"])
    reader, name, conv = found[0]
    x = _maps_into(agent, name, pairs.base.observations, conv)
    with torch.no_grad():
        change = read(conv, _maps_into(agent, name, pairs.source.observations, conv), direction)
        changed = (change.cross - read(conv, x, direction).cross).movedim(1, -1)
        output = torch.linalg.svd(changed.reshape(-1, changed.shape[-1]), full_matrices=False)[2][0]
        form = cross_form(conv, direction, output)
        partners = nn.functional.conv2d(
            x, form.partners[:4].to(x), stride=form.stride, padding=form.padding
        ).numpy()
    shape = (partners.shape[2], partners.shape[3])
    truths = {
        what: _truth(pairs.base.mazes, what, shape) for what in ("free cells", "mouse", "path")
    }
    return pd.DataFrame(
        {
            "reader": reader,
            "component": index,
            "value": float(form.values[index]),
            **{
                what: pearsonr(partners[:, index].ravel(), truth.ravel()).statistic
                for what, truth in truths.items()
            },
        }
        for index in range(partners.shape[1])
    )


def readers(agent: Agent, layer: str) -> list[tuple[str, str, BilinearConv2d]]:
    """Return the bilinear layers after a layer that read channels of the same stream.

    Blocks up to the next pool, with the layer that feeds each; when no pool follows, the dense
    layer as well, viewed as a convolution over the whole map.
    """
    steps = [name for name in agent.layer_names if "." not in name]
    found: list[tuple[str, str, BilinearConv2d]] = []
    for before, name in pairwise(steps):
        if steps.index(before) < steps.index(layer):
            continue
        module = agent.layer(name)
        if isinstance(module, BilinearBlock):
            found.append((name, before, module.bilinear))
        elif isinstance(module, nn.Flatten):
            continue
        elif isinstance(module, BilinearLinear):
            maps_from = steps[steps.index(name) - 2]
            _, *shape = agent.activations(_blank(agent), [maps_from])[maps_from].shape
            channels, height, width = shape
            conv = as_convolution(module, (channels, height, width))
            found.append((name, maps_from, conv))
            break
        else:
            break
    return found


def _branch(agent: Agent, block: str) -> BilinearConv2d:
    module = agent.layer(f"{block}.bilinear")
    assert isinstance(module, BilinearConv2d)
    return module


def _input_of(agent: Agent, layer: str, data: ActivationDataset) -> Float[np.ndarray, "n c h w"]:
    steps = [name for name in agent.layer_names if "." not in name]
    return data.activations[steps[steps.index(layer) - 1]]


def _maps_into(
    agent: Agent, before: str, observations: np.ndarray, conv: BilinearConv2d
) -> torch.Tensor:
    return agent.activations(observations, [before])[before].to(conv.left.weight)


def _blank(agent: Agent) -> np.ndarray:
    return np.zeros((1, *agent.config.observation_shape), np.uint8)


def _truth(
    mazes: tuple[Maze, ...], what: str, shape: tuple[int, int]
) -> Float[np.ndarray, "n height width"]:
    return overlap(np.stack([_cells_of(maze, what) for maze in mazes]), shape)


def _cells_of(maze: Maze, what: str) -> Float[np.ndarray, "rows columns"]:
    if what == "free cells":
        return (maze.grid != WALL).astype(np.float32)
    if what == "mouse":
        found = np.zeros(maze.grid.shape, np.float32)
        found[maze.mouse] = 1
        return found
    # A cell is on the shortest way when the ways to both its ends add up to its length.
    to_mouse, to_cheese = distances(maze, maze.mouse), distances(maze, maze.cheese[0])
    on_way = (to_mouse >= 0) & (to_mouse + to_cheese == to_mouse[maze.cheese[0]])
    return on_way.astype(np.float32)
