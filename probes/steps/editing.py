"""Edit directions and eigenfilters in the weights, and see which moves the agent loses."""

import numpy as np
import pandas as pd

from agents import Agent
from probes import figures as draw
from probes.dataset import Pairs
from probes.effects import (
    against_control,
    control_edits,
    dose_response,
    edit_direction,
    effects_of,
    mean_effects,
)
from probes.report import Drawing, Section
from probes.steps.part import Claim, Part
from probes.study import DIRECTIONS, Study
from probes.trace import filter_edits

LOSS_SHOWN, LOSS_NEGLIGIBLE = 0.1, 0.02
"""A direction is necessary when without it the right move loses this much probability."""
SPECIFIC = 0.05
"""An edit is specific when, without a cheese, it moves less probability than this."""


def edit(study: Study) -> Part:
    """Ablate each direction, and the eigenfilters that write it; beside controls as large."""
    pairs, agent = study.pairs, study.agent
    edited = {name: edit_direction(study, d, 0.0) for name, d in study.directions.items()}
    edited["permuted probe"] = edit_direction(study, study.permuted, 0.0)
    controls = {
        name: control_edits(study, direction, 0.0)
        for name, direction in {**study.directions, "permuted probe": study.permuted}.items()
    }
    by_filters = filter_edits(study, study.directions["difference"])
    edited |= {name: own for name, (own, _) in by_filters.items()}
    controls |= {name: theirs for name, (_, theirs) in by_filters.items()}

    with_cheese = _measure(agent, edited, controls, pairs)
    without = _measure(agent, edited, controls, _swapped(study.absent))
    rows = [against_control(name, *with_cheese[name]) for name in edited]
    rows += [against_control(name, *with_cheese[name], "total_variation") for name in edited]
    rows += [
        {**against_control(name, *without[name], "total_variation"), "metric": "change, no cheese"}
        for name in edited
    ]
    table = pd.DataFrame(rows)
    loss = table[table["metric"] == "loss"].set_index("intervention")
    quiet = table[table["metric"] == "change, no cheese"].set_index("intervention")
    claims = [
        Claim(
            f"{name}: necessary (ablated, the right move loses probability)",
            **loss.loc[name, ["effect", "low", "high", "control", "p"]].to_dict(),
            shown=LOSS_SHOWN,
            negligible=LOSS_NEGLIGIBLE,
            decided_by="necessity",
        )
        for name in [*DIRECTIONS, *by_filters]
    ]
    claims += [
        Claim(
            f"{name}: specific (ablated, little changes without a cheese)",
            **quiet.loc[name, ["effect", "low", "high", "control"]].to_dict(),
            p=None,
            shown=SPECIFIC,
            negligible=SPECIFIC,
            decided_by="edits",
            smaller=True,
        )
        for name in DIRECTIONS
    ]
    doses = dose_response(study, study.directions)
    forest = pd.concat(
        [
            loss.reset_index().assign(kind="ablated"),
            loss.reset_index()[["intervention", "control", "control_low", "control_high"]]
            .set_axis(["intervention", "effect", "low", "high"], axis=1)
            .assign(kind="control"),
        ]
    )
    found = loss.loc["difference"]
    text = (
        f"Each direction's departure from its mean is removed from the output of {study.layer}, in "
        "the weights (the block's down-projection, its skip and a bias map), and the edited agent "
        "is asked in the same mazes. The right move has lost "
        f"{found['effect']:.3f} [{found['low']:.3f}, {found['high']:.3f}] of its probability "
        "without the causal direction, and "
        f"{found['control']:.3f} without random directions scaled to change the layer's output as "
        "much. Ablating the eigenfilters that write the direction asks the same of the weights one "
        "step earlier; what comes along the skip path stays. `total_variation` is the probability "
        "that an edit moves elsewhere, `change, no cheese` the same in mazes without a cheese."
    )
    return Part(
        Section(
            "Is it necessary? Edits in weight space",
            text,
            ("edits", "dose-response"),
            ("necessity", "dose-response"),
        ),
        tables={"edits": table, "dose-response": doses},
        figures={
            "necessity": Drawing(
                draw.forest(
                    forest,
                    effect="probability lost by the right move",
                    title="What ablating a direction, or its eigenfilters, costs",
                ),
                "Loss of the right move's probability, beside controls of equal size.",
            ),
            "dose-response": Drawing(
                draw.dose_response(doses),
                "The agent's moves as a direction is flipped (-1), ablated (0), kept (1), doubled.",
            ),
        },
        agents={f"{name}-ablated": edited[name] for name in DIRECTIONS},
        scalars={
            f"dose/{name}/{metric}": [
                (round(100 * row.factor), row.value) for row in line.itertuples()
            ]
            for (name, metric), line in doses.groupby(["intervention", "metric"], sort=False)
        },
        claims=tuple(claims),
    )


def _measure(
    agent: Agent, edited: dict[str, Agent], controls: dict[str, list[Agent]], pairs: Pairs
) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return the effects of each edit, and the mean effects of its controls, on the base states."""
    seen = pairs.base.observations, pairs.base.moves.astype(np.int64), pairs.levels
    own = effects_of(agent, edited, *seen)
    measured = {}
    for name, table in own.items():
        others = effects_of(agent, {str(i): c for i, c in enumerate(controls[name])}, *seen)
        measured[name] = table, mean_effects(list(others.values()))
    return measured


def _swapped(pairs: Pairs) -> Pairs:
    return Pairs(pairs.source, pairs.base, pairs.levels)
