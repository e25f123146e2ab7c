"""Edit directions and eigenfilters in the weights, and see which moves the agent loses."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Int

from rlbilinear.agents import Agent
from rlbilinear.probes import figures as draw
from rlbilinear.probes import missing
from rlbilinear.probes.dataset import States
from rlbilinear.probes.edited import Seen
from rlbilinear.probes.effects import (
    against_control,
    control_edits,
    dose_response,
    edit_direction,
    effects_of,
    mean_effects,
    ways_to_edit,
)
from rlbilinear.probes.report import Drawing, Section
from rlbilinear.probes.steps.result import Claim, StepResult
from rlbilinear.probes.study import CONTROLS, DIRECTIONS, Study
from rlbilinear.probes.trace import filter_edits

LOSS_SHOWN, LOSS_NEGLIGIBLE = 0.1, 0.02
"""A direction is necessary when without it the right move loses this much probability."""
SPECIFIC = 0.05
"""An edit is specific when, without a cheese, it moves less probability than this."""

MEASURED = ["effect", "low", "high", "control", "p"]
"""What a claim takes from a row of `against_control`."""

Edits = Mapping[str, tuple[Agent, Mapping[str, list[Agent]]]]
"""By name, an edited agent and, by kind of control, the edited agents that are its controls."""
Measured = dict[str, tuple[pd.DataFrame, dict[str, pd.DataFrame]]]
"""By name, the effects of an edit and, by kind, the mean effects of its controls; same states."""


def ablate_directions(study: Study) -> StepResult:
    """Ablate each direction, and the eigenfilters that write it; beside controls as large."""
    edits = {
        name: (edit_direction(study, direction, 0.0), control_edits(study, direction, 0.0))
        for name, direction in study.directions.items()
    }
    by_filters = filter_edits(study, study.directions["difference"])
    edits |= by_filters
    with_cheese = _measure(study.agent, edits, study.pairs.base, study.pairs.levels)
    without = _measure(study.agent, edits, study.absent.source, study.absent.levels)
    table = pd.concat(
        pd.DataFrame(
            {**against_control(name, own, control, column), "metric": metric, "against": kind}
            for name, (own, controls) in measured.items()
            for kind, control in controls.items()
        )
        for metric, column, measured in (
            ("loss", "loss", with_cheese),
            ("change", "total_variation", with_cheese),
            ("change, no cheese", "total_variation", without),
        )
    )
    doses = dose_response(study, study.directions)
    losses = table[table["metric"] == "loss"]
    found = losses[losses["intervention"] == "difference"].set_index("against")
    loss = found.iloc[0]
    text = (
        f"Each direction's departure from its mean is taken out of the output of {study.layer}, in "
        "weights: the layer's own where it writes linearly, else a 1x1 convolution after it, and a "
        "bias map for the mean. The edited agent is asked in mazes where the cheese decides the "
        f"move. The right move has lost {loss['effect']:.3f} [{loss['low']:.3f}, "
        f"{loss['high']:.3f}] of its probability without the difference direction. Controls are "
        "scaled to change the layer's output as much, and the effect must exceed each: "
        + ", ".join(f"{row.control:.3f} for {CONTROLS[kind]}" for kind, row in found.iterrows())
        + ". `change` is the probability that an edit moves elsewhere, `change, no cheese` "
        "the same in mazes without a cheese, which the game never shows; an edit is specific when "
        "it does little there, and more with a cheese. The table of ways sets the weight edit "
        "beside the same and other edits of the activations, and beside keeping only the "
        "direction, with all else, walls and mouse too, at its mean."
    )
    if by_filters:
        text += (
            " Ablating the eigenfilters that write the direction asks the same of the weights one "
            "step earlier; what comes along the skip path stays. Their controls are the "
            "eigenfilters of the control directions, and those of the network with initial "
            "weights, scaled to change each block's output as much."
        )
    return StepResult(
        Section(
            "Is it necessary? Edits in weight space",
            text,
            ("edits", "ways", "dose-response"),
            ("necessity", "dose-response"),
        ),
        tables={"edits": table, "ways": ways_to_edit(study), "dose-response": doses},
        figures={
            "necessity": Drawing(
                draw.forest(
                    _forest(losses),
                    effect="probability lost by the right move",
                    title="What ablating a direction, or its eigenfilters, costs",
                ),
                "Loss of the right move's probability, beside the strongest control of equal size.",
            ),
            "dose-response": Drawing(
                draw.dose_response(doses),
                "The agent's moves as a direction is flipped (-1), ablated (0), kept (1), doubled.",
            ),
        },
        agents={
            **{f"{name}-ablated": edits[name][0] for name in DIRECTIONS},
            **{
                f"{name.split(' in ')[0]}-ablated".replace(" ", "-"): own
                for name, (own, _) in by_filters.items()
            },
        },
        scalars={
            f"dose/{name}/{metric}": [
                (round(100 * row.factor), row.value) for row in line.itertuples()
            ]
            for (name, metric), line in doses.groupby(["intervention", "metric"], sort=False)
        },
        claims=(
            *(_necessary(name, *with_cheese[name]) for name in edits),
            *(_specific(name, without[name][0], with_cheese[name][0]) for name in DIRECTIONS),
        ),
    )


def _measure(agent: Agent, edits: Edits, states: States, levels: Int[np.ndarray, "n"]) -> Measured:
    seen = Seen(agent, states.observations)
    measured = {}
    for name, (edited, controls) in edits.items():
        (own,) = effects_of(seen, [edited], states.moves, levels)
        measured[name] = (
            own,
            {
                kind: mean_effects(effects_of(seen, agents, states.moves, levels))
                for kind, agents in controls.items()
            },
        )
    return measured


def _necessary(name: str, own: pd.DataFrame, controls: Mapping[str, pd.DataFrame]) -> Claim:
    loss, levels = own["loss"].to_numpy(), own["level"].to_numpy()
    others = {kind: control["loss"].to_numpy() for kind, control in controls.items()}
    versus = missing.versus(loss, others, levels)
    return Claim(
        f"{_short(name)}: necessary",
        *missing.interval(loss, levels),
        control=versus.control,
        p=versus.p_value,
        shown=LOSS_SHOWN,
        negligible=LOSS_NEGLIGIBLE,
        decided_by="necessity",
        meaning="held at its mean, in the weights: the probability that the right move loses",
    )


def _short(name: str) -> str:
    """Leave out in which blocks eigenfilters are."""
    return name.split(" in each of ")[0].split(" of ")[0]


def _specific(name: str, without: pd.DataFrame, with_cheese: pd.DataFrame) -> Claim:
    """Compare what one edit does without a cheese with what it does with one, level by level."""
    row = pd.Series(against_control(name, without, with_cheese, "total_variation"))
    return Claim(
        f"{name}: specific",
        **row[MEASURED].to_dict(),
        shown=SPECIFIC,
        negligible=SPECIFIC,
        decided_by="edits",
        smaller=True,
        meaning="held at its mean without a cheese: the probability that moves elsewhere; it "
        "should be small, and smaller than with a cheese (the control)",
    )


def _forest(losses: pd.DataFrame) -> pd.DataFrame:
    """Return each intervention's loss and its strongest control's, as two rows of one name."""
    losses = losses.reset_index(drop=True)
    controls = losses["control"].fillna(np.inf)  # one that is missing may be the strongest
    loss = losses.loc[controls.groupby(losses["intervention"], sort=False).idxmax()]
    own = loss[["intervention", "effect", "low", "high"]]
    control = loss[["intervention", "control", "control_low", "control_high"]]
    control = control.set_axis(own.columns, axis=1)
    return pd.concat([own.assign(kind="ablated"), control.assign(kind="control")])
