"""The first steps of a validation: is the concept read, is it causal, and what writes it."""

import numpy as np
import pandas as pd
import torch

from rlbilinear import channel_spatial_svd
from rlbilinear import figures as draw_weights
from rlbilinear.edits.functional import span
from rlbilinear.probes import figures as draw
from rlbilinear.probes.concepts import cheese_position
from rlbilinear.probes.interchange import interchange_summary, interchange_table
from rlbilinear.probes.maps import filter_maps
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.reading import compare, fit_probe, probe_report
from rlbilinear.probes.report import Drawing, Section
from rlbilinear.probes.steps.result import Claim, Part
from rlbilinear.probes.study import CONTROLS, DIRECTIONS, Study, directions_at
from rlbilinear.probes.subspaces import Subspace, candidates
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
from rlbilinear.statistics import against_all, bootstrap_interval

RANKS = (1, 2, 4, 8)
CONTROL = "control: "
"""How the names of control subspaces begin."""
LINEAR = 0.999
"""A form has a linear part worth a word when its eigenfilters write less of its variance."""
FOLLOW_SHOWN, FOLLOW_NEGLIGIBLE = 0.5, 0.1
"""A direction carries the concept when, patched alone, it makes the agent follow in most pairs."""


def read_concept(study: Study) -> Part:
    """Fit a probe at every layer, and its controls at the study's; score on held-out levels."""
    rows = []
    for layer in study.layers:
        report = probe_report(
            study.probes[layer],
            study.held_out,
            layer,
            study.concept,
            seed=study.seed,
            n_resamples=300,
        )
        rows.append(report.assign(layer=layer))
    by_layer = pd.concat(rows, ignore_index=True)
    controls = compare(
        study.agent,
        study.fit,
        study.held_out,
        study.layer,
        study.concept,
        probe=study.probe,
        seed=study.seed,
        n_resamples=300,
    )
    scores = controls.set_index(controls.columns[0])
    shown = [("trained network", by_layer)]
    for name in ("permuted", "untrained", "pixels"):
        shown.append((f"{name} ({study.layer})", scores.loc[[name]].assign(layer=study.layer)))
    drawn = pd.concat(
        pd.DataFrame(
            {
                "features": name,
                "layer": table["layer"].to_numpy(),
                "value": table["average_precision"].to_numpy(),
                "low": table["average_precision_low"].to_numpy(),
                "high": table["average_precision_high"].to_numpy(),
            }
        )
        for name, table in shown
    )
    best = by_layer.set_index("layer").loc[study.layer]
    base = float(best["base_rate"])
    text = (
        f"A linear probe reads {study.concept.name} from {study.layer}, cell by cell, with average "
        f"precision {best['average_precision']:.3f} "
        f"[{best['average_precision_low']:.3f}, {best['average_precision_high']:.3f}] on held-out "
        f"levels. Chance is {base:.4f}; a probe of its kind has "
        f"{scores.loc['permuted', 'average_precision']:.3f} for the labels of another level, "
        f"{scores.loc['untrained', 'average_precision']:.3f} in an untrained network and "
        f"{scores.loc['pixels', 'average_precision']:.3f} on raw pixels. That the concept can be "
        "read does not say that the agent uses it."
    )
    figure = draw.probe_scores(drawn, base_rate=base)
    return Part(
        Section("Can the concept be read?", text, ("probe", "probe-by-layer"), ("probe-scores",)),
        tables={"probe": controls, "probe-by-layer": by_layer},
        figures={
            "probe-scores": Drawing(
                figure, "How well the concept is read at each layer, beside the controls."
            )
        },
    )


def locate(study: Study) -> Part:
    """Swap subspaces between the members of pairs: few directions may carry the concept."""
    subspaces = {}
    for layer in study.layers:
        named = directions_at(study, layer)
        given = {name: named[name] for name in ("probe", "pattern")}
        subspaces[layer] = candidates(
            study.differences[layer], RANKS, directions=given, seed=study.seed
        )
    subspaces[study.layer] += [
        Subspace(f"{CONTROL}{kind} {number}", span(each))
        for kind, directions in study.controls.items()
        for number, each in enumerate(directions)
    ]
    table = interchange_table(study.agent, study.pairs, subspaces, progress=study.progress)
    summary = interchange_summary(table, seed=study.seed, resamples=500)
    at_layer = table[table["layer"] == study.layer]
    controls = {
        kind: at_layer[at_layer["subspace"].str.startswith(f"{CONTROL}{kind} ")]
        .groupby("pair")["follow"]
        .mean()
        .to_numpy()
        for kind in CONTROLS
    }
    claims = []
    for name in DIRECTIONS:
        own = at_layer[(at_layer["subspace"] == name) & (at_layer["rank"] == 1)]
        follow, levels = own["follow"].to_numpy(), own["level"].to_numpy()
        value = bootstrap_interval(follow, levels, seed=study.seed)
        versus = against_all(follow, controls, levels, seed=study.seed)
        claims.append(
            Claim(
                f"{name}: sufficient (patched alone, the agent follows)",
                *value,
                control=versus.control,
                p=versus.p_value,
                shown=FOLLOW_SHOWN,
                negligible=FOLLOW_NEGLIGIBLE,
                decided_by="interchange-follow",
            )
        )
    described = _control_table(study)
    nearest = described.loc[described["cosine with difference"].idxmax()]
    everything = summary[summary["subspace"] == "all"].iloc[0]
    numbers = "; ".join(
        f"{claim.claim.split(':')[0]} {claim.effect:.2f} [{claim.low:.2f}, {claim.high:.2f}]"
        for claim in claims
    )
    text = (
        "Two mazes alike but for the cheese: a subspace of a layer's output is swapped for that "
        "of the other maze. `share` is how much of the way the policy goes to its policy there "
        "(1 - KL(there || patched) / KL(there || unpatched)), `follow` how often the likeliest "
        "move is then the right one for the moved cheese: "
        f"{everything['follow_base']:.2f} unpatched, {everything['follow_source']:.2f} where the "
        "cheese is really there (and with a whole layer swapped, which is the same). One direction "
        f"at {study.layer}: {numbers}. Controls: "
        + ", ".join(
            f"{follow.mean():.2f} for {CONTROLS[kind]}" for kind, follow in controls.items()
        )
        + f". The nearest to the difference direction is {CONTROLS[nearest['control']]}, at a "
        f"cosine of {nearest['cosine with difference']:.2f}. The mouse is where the two cheeses "
        "ask for different moves."
    )
    shown = summary[~summary["subspace"].str.startswith(CONTROL)]
    return Part(
        Section(
            "Where is it causal?",
            text,
            ("interchange", "controls"),
            ("interchange-share", "interchange-follow"),
        ),
        tables={"interchange": summary, "controls": described},
        figures={
            "interchange-share": Drawing(
                draw.interchange_grid(shown),
                "Share of the policy's change that one subspace carries, by layer and rank.",
            ),
            "interchange-follow": Drawing(
                draw.interchange_grid(
                    shown,
                    value="follow",
                    label="share of pairs in which the agent follows",
                    title="How often the patched agent makes the move for the moved cheese",
                ),
                "How often the agent follows the cheese of the other maze, by layer and rank.",
            ),
        },
        claims=tuple(claims),
    )


def _control_table(study: Study) -> pd.DataFrame:
    """Say how near each control direction is to those under test (|cosine|), and its spread."""
    return pd.DataFrame(
        {
            "control": kind,
            **{
                f"cosine with {name}": float((control @ direction).abs())
                for name, direction in study.directions.items()
            },
            "spread": study.spread(control),
        }
        for kind, controls in study.controls.items()
        for control in controls
    )


def trace(study: Study) -> Part:
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
        if study.twin is not None:
            text += (
                "The eigenfilters are those of the agent's quadratic twin, which explains of what "
                "the blocks write along the direction, on held-out levels, "
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
    return Part(
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
