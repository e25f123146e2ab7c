"""The report for a reader in a hurry: three sentences and a picture."""

import pandas as pd

from rlbilinear.probes import figures as draw
from rlbilinear.probes.report import IN_SHORT, Drawing, Section
from rlbilinear.probes.steps.result import StepResult
from rlbilinear.probes.study import Study

USES = ("sufficient", "necessary", "steerable")
"""Claims that say that a direction is used."""


def in_short(study: Study, name: str, verdict: pd.DataFrame, probes: pd.DataFrame) -> StepResult:
    """Say what can be read, what of it is used, and what follows.

    Args:
        study: what was asked.
        name: name of the agent.
        verdict: as a report has it.
        probes: the score of a probe at each layer.
    """
    parts = verdict["claim"].str.split(": ", n=1, expand=True)
    claims = verdict.assign(direction=parts[0], claim=parts[1])
    read = probes.set_index("layer").loc[study.layer]
    score = f"average precision {read['average_precision']:.2f}, {read['base_rate']:.3f} by chance"
    reads = f"{study.concept.name} can be read at {study.layer} ({score})"
    if not read["average_precision_low"] > read["base_rate"]:
        reads = reads.replace("can be read", "is not shown to be readable")
    causal = claims[(claims["verdict"] == "causal") & claims["claim"].isin(USES)]
    used = {
        direction: own["claim"].tolist()
        for direction, own in causal.groupby("direction", sort=False)
    }
    if used:
        says = "; ".join(f"the {name} direction is {_list(own)}" for name, own in used.items())
        best = max(used, key=lambda each: len(used[each]))
        effects = claims[claims["direction"] == best].set_index("claim")["effect"]
        uses = f"Of it, {says}"
        follows = (
            f"Exchanging the {best} direction alone sends {name} after the other cheese in "
            f"{effects['sufficient']:.0%} of the pairs, and moving the cheese along it in the "
            f"weights makes the move to the new cell the most likely in {effects['steerable']:.0%}"
        )
    else:
        uses = "No direction tested there is shown to be used"
        follows = "Nothing follows for the agent: it may use the concept elsewhere"
    shown = pd.concat(
        [
            verdict.assign(intervention=verdict["claim"], kind=verdict["verdict"]),
            pd.DataFrame(
                {
                    "intervention": verdict["claim"],
                    "kind": "control",
                    "effect": verdict["control"],
                    "low": verdict["control"],
                    "high": verdict["control"],
                }
            ),
        ]
    ).dropna(subset=["effect", "low", "high"])
    figures = {}
    if len(shown):
        picture = draw.forest(
            shown, title=f"{study.concept.name} at {study.layer}: each claim, and its control"
        )
        figures["in-short"] = Drawing(
            picture, "The effect of each claim by its verdict, and its strongest control."
        )
    return StepResult(
        Section(IN_SHORT, f"{reads}. {uses}. {follows}.", (), tuple(figures)), figures=figures
    )


def _list(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
