"""From a direction into the weights: eigenfilters of what writes it, and what reads it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import pearsonr
from sklearn.metrics import average_precision_score
from torch import nn

from rlbilinear import BilinearConv2d, BilinearLinear, Eigenfilters
from rlbilinear.agents import Agent
from rlbilinear.agents.architectures import BilinearBlock
from rlbilinear.convolution import as_convolution, convolve, geometry
from rlbilinear.cross_terms import cross_form, split_by_direction
from rlbilinear.edits.functional import PositionBias
from rlbilinear.envs import Maze, distances
from rlbilinear.envs.state import WALL
from rlbilinear.probes.branches import add_filters, branch_filters, feed, padded_margin
from rlbilinear.probes.concepts import overlap, to_cells
from rlbilinear.probes.dataset import ActivationDataset, Pairs
from rlbilinear.probes.study import UNTRAINED, Direction, Study, blank
from rlbilinear.probes.subspaces import difference_subspace
from rlbilinear.probes.writers import writer_directions

TOP = 8
"""Eigenfilters listed, drawn and ablated together."""
EDITED = {1: "top eigenfilter", TOP: f"top {TOP} eigenfilters", sys.maxsize: "all eigenfilters"}
"""How many are ablated, and what that is called."""


@dataclass(frozen=True, eq=False)
class Writer:
    """A block whose branch writes a direction of the stream by a quadratic form.

    Attributes:
        block: its name.
        branch: the name of its branch, such as a bilinear layer.
        before: the layer that feeds it.
        direction: what the direction is in the branch's output: itself, or pulled back through
            skips that were edited.
        filters: the eigenfilters by which the branch writes it.
    """

    block: str
    branch: str
    before: str
    direction: Direction
    filters: Eigenfilters

    def maps(
        self, inputs: Float[np.ndarray, "n channels height width"], k: int
    ) -> Float[np.ndarray, "n k height width"]:
        """Return what each of the first ``k`` filters adds to the direction, given its inputs."""
        first = replace(
            self.filters, values=self.filters.values[:k], filters=self.filters.filters[:k]
        )
        return first.maps(torch.from_numpy(inputs)).numpy()


def bilinear_writers(agent: Agent, layer: str, direction: Direction) -> list[Writer]:
    """Return the blocks, up to a layer, that write a direction of its output by eigenfilters."""
    found = []
    for branch, pulled in writer_directions(agent, layer, direction).items():
        # Through a skip that lets nothing of the direction pass, only rounding comes.
        if pulled.norm() > 1e-5 * direction.norm():
            filters = branch_filters(agent.layer(branch), pulled)
            if filters is not None:
                block = branch.split(".")[0]
                found.append(Writer(block, branch, feed(agent, branch), pulled, filters))
    return found


def eigenfilter_table(
    writers: Sequence[Writer], data: ActivationDataset, concept: str
) -> pd.DataFrame:
    """Describe the leading eigenfilters of each writer, and how well their maps find the concept.

    Returns:
        A row for each of a writer's first `TOP` filters: ``writer``, ``index``, ``value``;
        ``share``, its part of the sum of all |values|; ``average_precision`` of the size of its
        map, cell by cell, as a detector of the concept, beside the ``base_rate``.
    """
    rows = []
    labels = data.labels[concept].reshape(-1) > 0.5
    for writer in writers:
        values = writer.filters.values
        maps = writer.maps(data.activations[writer.before], TOP)
        cells = to_cells(np.abs(maps), data.labels[concept].shape[-1])
        for index, value in enumerate(values[:TOP].tolist()):
            rows.append(
                {
                    "writer": writer.block,
                    "index": index,
                    "value": value,
                    "share": abs(value) / float(values.abs().sum()),
                    "average_precision": average_precision_score(
                        labels, cells[:, index].reshape(-1)
                    ),
                    "base_rate": labels.mean(),
                }
            )
    return pd.DataFrame(rows)


def explained_table(
    agent: Agent, writers: Sequence[Writer], data: ActivationDataset
) -> pd.DataFrame:
    """Say how much of what an agent's blocks write the forms explain.

    Returns:
        A row for each writer: ``writer``, and ``r2``, the share of the variance over states and
        positions of what its branch writes along the direction. Of a bilinear agent that is 1; of
        one whose surrogate's forms these are, it is what may be read off them. ``r2_inside`` leaves
        out the outermost positions, where a surrogate's second convolution is padded and its forms
        are not exact: of a surrogate itself it is 1. ``squares`` is the share of the form's own
        variance that its eigenfilters write, and not its linear part.
    """
    rows = []
    for writer in writers:
        inputs = torch.from_numpy(data.activations[writer.before])
        with torch.no_grad():
            own = torch.cat(
                [
                    torch.einsum("c,nchw->nhw", writer.direction, branch.double().cpu())
                    for part in inputs.split(256)
                    for branch in [agent.layer(writer.branch)(part.to(agent.device))]
                ]
            )
            parts = [part.double() for part in inputs.split(256)]
            squares = torch.cat([writer.filters.maps(part).sum(1) for part in parts])
            found = writer.filters
            line = replace(found, values=found.values[:0], filters=found.filters[:0])
            total = squares + torch.cat([line.total(part) for part in parts])
        margin = padded_margin(agent.layer(writer.branch))
        inside = (slice(None), *[slice(margin, size - margin) for size in own.shape[1:]])
        r2, r2_inside = (
            float(1 - (one - other).square().sum() / (one - one.mean()).square().sum())
            for one, other in ((own, total), (own[inside], total[inside]))
        )
        about = total - total.mean()
        share = float((about * (squares - squares.mean())).sum() / about.square().sum())
        rows.append({"writer": writer.block, "r2": r2, "r2_inside": r2_inside, "squares": share})
    return pd.DataFrame(rows)


def filter_counts(writers: Sequence[Writer]) -> pd.DataFrame:
    """Count how many eigenfilters of each writer carry 50, 90 and 99 % of the sum of |values|."""
    rows = []
    for writer in writers:
        sizes = writer.filters.values.abs()
        cumulative = sizes.cumsum(0) / sizes.sum()
        counts = {
            f"filters for {share} %": int((cumulative < share / 100).sum()) + 1
            for share in (50, 90, 99)
        }
        rows.append({"writer": writer.block, "rank": len(sizes), **counts})
    return pd.DataFrame(rows)


def scale_filters(
    agent: Agent, writers: Sequence[Writer], k: int, factors: Sequence[float]
) -> Agent:
    """Scale what the first ``k`` eigenfilters of every writer add by its factor: 0 ablates.

    The writers may be of another network: theirs is then added ``factor - 1`` times. So a ReLU
    agent is edited by the eigenfilters of its quadratic surrogate.
    """
    for writer, factor in zip(writers, factors, strict=True):
        found, name = writer.filters, writer.branch
        values = (factor - 1) * found.values[:k]
        edited = add_filters(agent.layer(name), writer.direction, values, found)
        what = f"first {k} " if k < len(found.values) else ""
        edit = f"{name}: {what}eigenfilters of a direction scaled by {factor:g}"
        agent = agent.with_layer(name, edited, edit=edit)
    return agent


def filter_edits(
    study: Study, direction: Direction
) -> dict[str, tuple[Agent, dict[str, list[Agent]]]]:
    """Ablate eigenfilters of a direction in the writers of the study's layer.

    Returns:
        By name, the edited agent and, by kind, its controls: as many eigenfilters of the study's
        control directions, in the same blocks, scaled so as to change each block's output by as
        much (root mean square, on the fitting levels). Those of the untrained network are its own.
    """
    agent, layer = study.agent, study.layer
    writers = bilinear_writers(study.forms, layer, direction)
    if not writers:
        return {}
    branches = {writer.block: writer.branch for writer in writers}
    controls = {
        kind: [
            [
                replace(each, branch=branches[each.block])
                for each in bilinear_writers(owner, layer, other)
                if each.block in branches
            ]
            for other in directions
        ]
        for kind, directions in study.controls.items()
        for owner in [study.untrained_forms if kind == UNTRAINED else study.forms]
    }
    some = study.fit.select(np.arange(len(study.fit)) % -(-len(study.fit) // 256) == 0)
    own = [_sizes(writer, some) for writer in writers]
    sizes = {
        kind: [[_sizes(writer, some) for writer in each] for each in group]
        for kind, group in controls.items()
    }
    blocks = ", ".join(branches)
    where = f"in each of {blocks}" if len(branches) > 1 else f"of {blocks}"
    edits = {}
    for k, name in EDITED.items():
        ablated = scale_filters(agent, writers, k, [0.0] * len(writers))
        matched = {
            kind: [
                scale_filters(agent, each, k, _matched(own, its, k))
                for each, its in zip(group, sizes[kind], strict=True)
            ]
            for kind, group in controls.items()
        }
        edits[f"{name} {where}"] = ablated, matched
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
            base, source = (split_by_direction(conv, x, direction) for x in inputs)
        changes = {
            "s²": source.square - base.square,
            "s x rest": source.cross - base.cross,
            "rest": source.rest - base.rest,
        }
        total = torch.stack(list(changes.values())).sum(0)
        for part, change in changes.items():
            share = float((change * total).sum() / (total * total).sum())
            rows.append({"reader": reader, "part": part, "share": share})
    return pd.DataFrame(rows, columns=["reader", "part", "share"])


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
        source = split_by_direction(
            conv, _maps_into(agent, name, pairs.source.observations, conv), direction
        )
        changes = source.cross - split_by_direction(conv, x, direction).cross
        form = cross_form(conv, direction, difference_subspace(changes, 1)[0])
        partners = convolve(x, form.partners[:4], *geometry(conv))
    maps = partners.cpu().numpy()
    shape = (maps.shape[2], maps.shape[3])
    truths = {
        what: _truth(pairs.base.mazes, what, shape) for what in ("free cells", "mouse", "path")
    }
    return pd.DataFrame(
        {
            "reader": reader,
            "component": index,
            "value": float(form.values[index]),
            **{
                what: pearsonr(maps[:, index].ravel(), truth.ravel()).statistic
                for what, truth in truths.items()
            },
        }
        for index in range(maps.shape[1])
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
        while isinstance(module, PositionBias):
            module = module.layer
        if isinstance(module, BilinearBlock):
            found.append((name, before, module.bilinear))
        elif isinstance(module, nn.Flatten):
            continue
        elif isinstance(module, BilinearLinear):
            maps_from = steps[steps.index(name) - 2]
            maps = agent.activations(blank(agent), [maps_from])[maps_from]
            channels, height, width = maps.shape[1:]
            conv = as_convolution(module, (channels, height, width))
            found.append((name, maps_from, conv))
            break
        else:
            break
    return found


def _sizes(writer: Writer, data: ActivationDataset) -> Float[np.ndarray, "k"]:
    """Root mean square of what the first 1, 2, ... filters together add to the block's output."""
    maps = writer.maps(data.activations[writer.before], len(writer.filters.values))
    added = maps.cumsum(1, dtype=np.float64)
    return np.sqrt((added**2).mean((0, 2, 3))) / float(writer.direction.norm())


def _matched(
    sizes: Sequence[Float[np.ndarray, "k"]], controls: Sequence[Float[np.ndarray, "k"]], k: int
) -> list[float]:
    """Factors for the controls' first ``k`` filters: as large as an ablation of one's own."""
    return [
        1 - own[min(k, len(own)) - 1] / its[min(k, len(its)) - 1]
        for own, its in zip(sizes, controls, strict=True)
    ]


def _maps_into(
    agent: Agent, before: str, observations: np.ndarray, conv: BilinearConv2d
) -> torch.Tensor:
    return agent.activations(observations, [before])[before].to(conv.left.weight)


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
