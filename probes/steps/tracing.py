"""Which weights write a direction, and which read it."""

import numpy as np
import pandas as pd
import torch

from rlbilinear import channel_spatial_svd
from rlbilinear import figures as draw_weights
from rlbilinear.probes import figures as draw
from rlbilinear.probes.concepts import cheese_position
from rlbilinear.probes.maps import filter_maps
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.reading import fit_probe
from rlbilinear.probes.report import Drawing, Section
from rlbilinear.probes.steps.result import StepResult
from rlbilinear.probes.study import Study
from rlbilinear.probes.trace import (
    TOP,
    bilinear_writers,
    eigenfilter_table,
    explained_table,
    filter_counts,
    partner_table,
    reader_table,
)
from rlbilinear.probes.writers import writer_maps, writer_shares

LINEAR = 0.999
"""A form has a linear part worth a word when its eigenfilters write less of its variance."""


def trace_weights(study: Study) -> StepResult:
    """Follow the difference direction into the weights that write it, and those that read it."""
    direction = study.directions["difference"]
    agent, layer, pairs = study.agent, study.layer, study.pairs
    parts = [
        writer_maps(agent, layer, direction, states.observations)
        for states in (pairs.base, pairs.source)
    ]
    shares = writer_shares(*parts)
    writers = bilinear_writers(study.forms, layer, direction)
    readers = reader_table(agent, layer, direction, pairs)
    tables = {
        "writers": shares,
        "readers": readers,
        "partners": partner_table(agent, layer, direction, pairs),
    }
    drawn = {
        "writers": Drawing(
            draw.writer_shares(shares),
            "Which parts of the network write the direction: along the skip path, or by a block.",
        )
    }
    text = (
        f"The difference direction at {layer} is a sum of what its writers add. Of its change when "
        "the cheese moves, "
        + ", ".join(
            f"{row.share:.0%} comes from {row.writer}"
            for row in shares[shares["quantity"] == "counterfactual difference"].itertuples()
        )
        + ". "
    )
    if writers:
        counts = filter_counts(writers)
        explained = explained_table(agent, writers, study.held_out)
        tables |= {
            "explained": explained,
            "eigenfilters": eigenfilter_table(writers, study.held_out, study.concept.name),
            "eigenfilter-counts": counts,
        }
        if study.surrogate is not None:
            text += (
                "The eigenfilters are those of the agent's quadratic surrogate, which explains of "
                "what the blocks write along the direction, on held-out levels, "
                + ", ".join(
                    f"{row.r2:.2f} in {row.writer} ({row.r2_inside:.2f} without the outermost "
                    "positions, where a block sees padding)"
                    for row in explained.itertuples()
                )
                + " (R²). "
            )
        if (explained["squares"] < LINEAR).any():
            text += "A form with biases has a linear part, which ablating eigenfilters leaves: " + (
                ", ".join(
                    f"in {row.writer} the eigenfilters write {row.squares:.0%} of its variance"
                    for row in explained.itertuples()
                )
                + ". "
            )
        text += "Each block writes it by eigenfilters: " + "; ".join(
            f"{row['filters for 50 %']} of {row['rank']} carry half of {row['writer']}'s spectrum, "
            f"{row['filters for 90 %']} nine tenths"
            for _, row in counts.iterrows()
        )
        text += ". "
        largest = max(range(len(pairs)), key=lambda i: len(pairs.base.mazes[i].free_cells()))
        maze, observation = pairs.base.mazes[largest], pairs.base.observations[largest]
        for writer in writers:
            found, name = writer.filters, writer.block
            inputs = agent.activations(observation[None], [writer.before])[writer.before]
            maps = writer.maps(inputs.cpu().numpy(), 6)[0]
            drawn[f"spectrum-{name}"] = Drawing(
                draw_weights.spectrum(
                    found.values,
                    title=f"Eigenvalues of the direction in {name}",
                    unit="eigenfilter",
                ),
                f"How the direction's form in {name} spreads over eigenfilters.",
            )
            drawn[f"eigenfilters-{name}"] = Drawing(
                draw_weights.filter_strip(found, 6, title=f"Leading eigenfilters in {name}"),
                f"The eigenfilters by which {name} writes the direction.",
            )
            drawn[f"filter-maps-{name}"] = Drawing(
                filter_maps(
                    maze,
                    observation,
                    {
                        f"filter {index}, value {float(found.values[index]):+.3g}": each
                        for index, each in enumerate(maps)
                    },
                ),
                f"Where each eigenfilter of {name} adds to the direction, in one maze.",
            )
    else:
        text += "No bilinear layer writes at this layer, so there are no eigenfilters to show. "
    if len(readers):
        text += (
            "Downstream, a bilinear layer multiplies the direction's map s with itself, and with "
            "the rest of what it sees: the table of readers has the shares of the change. That of "
            "partners correlates what it is multiplied with to free cells, mouse and path. "
        )
    else:
        text += "No bilinear layer reads this layer's output before the next pool or ReLU. "
    components, figure = _position_components(study)
    tables["position-components"], drawn["position-components"] = components, figure
    first = components.iloc[0]
    text += (
        "A dense probe of the cheese's row splits into channel patterns, each with its map; the "
        f"first has {first['share']:.0%} of its weight and a cosine of "
        f"{first['cosine with the difference direction']:.2f} with the difference direction."
    )
    return StepResult(
        Section(
            "Into the weights: writers and readers",
            text,
            tuple(name for name, table in tables.items() if len(table)),
            tuple(drawn),
        ),
        tables=tables,
        figures=drawn,
    )


def _position_components(study: Study) -> tuple[pd.DataFrame, Drawing]:
    """Split the dense probe of the cheese's row by channel and space."""
    probe = fit_probe(
        study.fit,
        study.layer,
        cheese_position,
        LinearProbe(kind="position", spatial="dense", alphas=(1e4,)),
    )
    split = channel_spatial_svd(torch.from_numpy(np.asarray(probe.direction[0])))
    share = split.share.numpy()
    table = pd.DataFrame(
        {
            "component": np.arange(len(share)),
            "share": share,
            "cumulative": share.cumsum(),
            "cosine with the difference direction": (
                split.channels @ study.directions["difference"]
            ).numpy(),
        }
    ).head(TOP)
    figure = draw_weights.channel_spatial(
        split, 3, title="The dense probe of the cheese's row, split by channel and space"
    )
    return table, Drawing(
        figure, "Channel patterns of the position probe, and the map that weighs each."
    )
