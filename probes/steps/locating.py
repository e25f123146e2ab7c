"""Where is the concept causal? Subspaces swapped between the members of pairs."""

import pandas as pd

from rlbilinear.edits.functional import span
from rlbilinear.probes import figures as draw
from rlbilinear.probes import missing
from rlbilinear.probes.interchange import interchange_summary, interchange_table
from rlbilinear.probes.report import Drawing, Section
from rlbilinear.probes.steps.result import Claim, StepResult
from rlbilinear.probes.study import CONTROLS, DIRECTIONS, Study, directions_at
from rlbilinear.probes.subspaces import Subspace, candidates

RANKS = (1, 2, 4, 8)
CONTROL = "control: "
"""How the names of control subspaces begin."""
FOLLOW_SHOWN, FOLLOW_NEGLIGIBLE = 0.5, 0.1
"""A direction carries the concept when, patched alone, it makes the agent follow in most pairs."""


def locate_concept(study: Study) -> StepResult:
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
        .agg(missing.mean)
        .to_numpy()
        for kind in CONTROLS
    }
    claims = []
    for name in DIRECTIONS:
        own = at_layer[(at_layer["subspace"] == name) & (at_layer["rank"] == 1)]
        follow, levels = own["follow"].to_numpy(), own["level"].to_numpy()
        value = missing.interval(follow, levels, seed=study.seed)
        versus = missing.versus(follow, controls, levels, seed=study.seed)
        claims.append(
            Claim(
                f"{name}: sufficient",
                *value,
                control=versus.control,
                p=versus.p_value,
                shown=FOLLOW_SHOWN,
                negligible=FOLLOW_NEGLIGIBLE,
                decided_by="interchange-follow",
                meaning="the direction alone is exchanged between two mazes: share of pairs in "
                "which the agent makes the right move for the other cheese",
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
        "(1 - KL(there || patched) / KL(there || unpatched)), `follow` how often the most likely "
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
    return StepResult(
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
