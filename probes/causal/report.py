"""The report on one concept of one policy: three sentences and a picture, then what they rest on.

data = ConceptData.split("goal", "class", examples, pairs)
print(ask(model, data).table())
print(ask("maze-bimpala-compact", "cheese").table())
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from tqdm import tqdm

from rlbilinear.agents import Agent
from rlbilinear.agents.folder import provenance
from rlbilinear.probes.causal.at_layer import CONTROLS
from rlbilinear.probes.causal.choosing import choose, where_to_ask
from rlbilinear.probes.causal.data import ConceptData
from rlbilinear.probes.causal.games import FIT_LEVELS, LEVELS, game_data, game_of
from rlbilinear.probes.causal.protocol import Answer, answer
from rlbilinear.probes.figures import forest
from rlbilinear.probes.report import IN_SHORT, Drawing, Section, ValidationReport
from rlbilinear.probes.subject import Subject, as_subject
from rlbilinear.probes.validation import judge

Policy = Agent | ActorCriticPolicy | BaseAlgorithm | str | Path

SCORES = {"map": "average precision", "class": "share right", "scalar": "R²"}
MEANINGS = {
    "sufficient": "The subspace alone is exchanged for that of the counterpart: share of pairs in "
    "which the policy then does what is right there.",
    "necessary": "The subspace is held at its mean: the probability that the right behaviour "
    "loses.",
    "specific": "The same edit in states without the concept: the probability that moves "
    "elsewhere; it should be small, and smaller than with the concept (the control).",
    "steerable": "The concept is moved along the subspace by what the fitting pairs tell: share of "
    "pairs in which the policy does what is right for where it was moved to.",
}
"""What each claim says, and what its effect is measured in."""


def ask(
    policy: Policy | Subject,
    data: ConceptData | str,
    *,
    layer: str = "auto",
    rank: int | Literal["auto"] = "auto",
    controls: int = 5,
    seed: int = 0,
    name: str | None = None,
    fit_levels: int = FIT_LEVELS,
    levels: int = LEVELS,
    progress: bool = True,
) -> ValidationReport:
    """Ask whether a policy uses a concept: where, by which directions, and what follows.

    Args:
        policy: an agent, its name or folder; a Stable-Baselines3 model or policy; or a subject.
        data: the concept; or the name of one of `causal_concepts` of the agent's game.
        layer: a layer's name; ``auto`` chooses it on the fitting pairs.
        rank: rank of the difference subspace; ``auto`` chooses it with the layer.
        controls: how many random subspaces each effect is compared with.
        seed: seed of everything random.
        name: name of the policy, in the report.
        fit_levels: of a concept given by name, how many levels to fit on.
        levels: and how many to decide on.
        progress: show a bar.

    Raises:
        ValueError: a layer, rank or number of controls that cannot be; the message says what can.
        SubjectError: a policy that cannot be studied.
        TypeError: data of another kind.
    """
    started = time.monotonic()
    if not isinstance(data, ConceptData | str):
        raise TypeError(f"data: expected ConceptData or a name, got {type(data).__name__}")
    subject = policy if isinstance(policy, Subject) else as_subject(policy, name=name)
    if isinstance(data, str):
        data = game_data(game_of(subject), data, fit_levels=fit_levels, levels=levels, seed=seed)
    layers, ranks = where_to_ask(subject, data, layer, rank)
    if controls < 1:
        raise ValueError(f"controls: expected at least 1, got {controls}")
    with tqdm(total=2, disable=not progress, desc=data.name) as bar:
        tried, chosen, chosen_rank = choose(subject, data, layers, ranks, seed=seed)
        bar.update()
        found = answer(subject, data, chosen, chosen_rank, controls=controls, seed=seed)
        bar.update()
    settings = {
        **provenance(),
        "policy": subject.name,
        "concept": data.name,
        "kind": data.kind,
        "layer": f"{chosen} ({'chosen' if layer == 'auto' else 'given'})",
        "rank": f"{chosen_rank} ({'chosen' if rank == 'auto' else 'given'})",
        "controls": controls,
        "seed": seed,
        "states": {"fitting": len(data.fit), "held out": len(data.held_out)},
        "pairs": {"fitting": len(data.fit_pairs), "held out": len(data.pairs)},
        "seconds": round(time.monotonic() - started, 1),
    }
    verdict = judge([*found.claims])
    return ValidationReport(
        title=f"Does {subject.name} use {data.name}?",
        settings=settings,
        verdict=verdict,
        sections=_sections(subject, data, found, verdict, layer == "auto" or rank == "auto"),
        tables={"layers": tried, "reading": found.readable, "effects": found.effects},
        figures={
            "layers": Drawing(
                _layers_figure(tried, data), "How often exchanging a few directions is followed."
            ),
            "effects": Drawing(
                forest(
                    _as_forest(found.effects),
                    effect="effect",
                    title=f"{data.name} at {chosen}: effects, and the strongest control of each",
                ),
                "Each claim's effect, above the strongest of its controls.",
            ),
        },
    )


def summary(data: ConceptData, found: Answer, verdict: pd.DataFrame) -> str:
    """Say in three sentences what can be read, what is used, and what follows."""
    read = found.readable.set_index("name")["score"]
    score = SCORES[data.kind]
    causal = verdict.loc[verdict["verdict"] == "causal", "claim"].str.split(": ", expand=True)
    used = {} if causal.empty else causal.groupby(0, sort=False)[1].apply(list).to_dict()
    reads = (
        f"{data.name} can be read at {found.layer} ({score} {read['probe']:.2f}; "
        f"{read['base rate']:.2f} without looking, {read['permuted labels']:.2f} with labels of "
        f"other groups, {read['untrained network']:.2f} in an untrained network)"
    )
    if found.readable["p"].iloc[0] >= 0.05:
        reads = reads.replace("can be read", "is not shown to be readable")
    if not used:
        return (
            f"{reads}. No direction tested there is shown to be used. Nothing follows for the "
            "policy: it may use the concept elsewhere, or in another form."
        )
    uses = "; ".join(f"the {name} direction is {_list(claims)}" for name, claims in used.items())
    unused = [name for name in ("probe", "pattern", "difference") if name not in used]
    are = "direction is" if len(unused) == 1 else "directions are"
    rest = f"; the {_list(unused)} {are} not shown to be used" if unused else ""
    effects = found.effects.set_index(["direction", "claim"])["effect"]
    best = next(iter(used))
    follows = [
        f"exchanging it sends the policy after the counterpart in "
        f"{effects[best, 'sufficient']:.0%} of the pairs"
    ]
    if (best, "steerable") in effects:
        follows.append(
            f"moving the concept along it works in {effects[best, 'steerable']:.0%} of them"
        )
    return f"{reads}. Of it, {uses}{rest}. {' and '.join(follows).capitalize()}."


def _sections(
    subject: Subject, data: ConceptData, found: Answer, verdict: pd.DataFrame, auto: bool
) -> tuple[Section, ...]:
    places = "a direction of channels, the same at every position"
    whole = "a direction of the layer's whole output"
    weights = [
        f"{name}: {'made in the activations, it is not an edit of weights' if gap is None else gap}"
        for name, gap in found.weights.items()
    ]
    claims = [f"- *{name}*: {text}" for name, text in MEANINGS.items()]
    left_out = [f"- *{name}* was not asked: {why}." for name, why in found.left_out.items()]
    smallest = found.effects["smallest"].max()
    return (
        Section(IN_SHORT, summary(data, found, verdict), (), ("layers", "effects")),
        Section(
            "What the claims say",
            "\n".join([*claims, *left_out])
            + "\n\nThe *probe* direction is what a linear reading weighs; the *pattern* is what "
            "goes with its reading; the *difference* is what changes most when only the concept "
            f"does. Each is {places if data.kind == 'map' else whole}. Controls, each scaled to "
            "change the output as much: "
            + "; ".join(f"{kind}: {what}" for kind, what in CONTROLS.items())
            + ". A claim is *causal* when its whole interval is beyond its bound, and it exceeds "
            "every control (sign-flip test by group, corrected for the number of claims); "
            "*contradicted* when the whole interval is beyond the opposite bound. Differences "
            f"from a control of {smallest:.3f} are seen with probability 0.8 in every row "
            "(column `smallest` has each).",
            ("effects",),
        ),
        Section(
            "Where it was asked",
            (
                "Layer and rank were chosen on the fitting pairs only, cross-fitted in two halves: "
                "how often exchanging the directions is followed, beyond how often those of the "
                "same network before training are; of all within 0.02 of the best, the smallest "
                "rank, and of that rank the best layer."
                if auto
                else "Layer and rank were given."
            )
            + f" All claims are of {found.layer}, rank {found.rank}."
            + (
                f" Some edit drove {found.not_finite:.1%} of the pairs out of the finite range; "
                "they are left out of its claim."
                if found.not_finite
                else ""
            ),
            ("layers",),
        ),
        Section(
            "Reading, and weights",
            f"Reading is scored by {SCORES[data.kind]} on held-out states. Ablation in the weights "
            "beside the same in the activations, largest difference of a probability: "
            + "; ".join(weights)
            + ".",
            ("reading",),
        ),
    )


def _layers_figure(tried: pd.DataFrame, data: ConceptData) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(tried["layer"]))
    for rank, rows in tried.groupby("rank"):
        at = [names.index(name) for name in rows["layer"]]
        label = f"{rank} direction{'s' if rank > 1 else ''}"
        (line,) = axes.plot(at, rows["follow"], "o-", label=label)
        axes.plot(at, rows["control"], ".:", color=line.get_color(), alpha=0.6)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set(ylim=(0, 1.02), ylabel="share of pairs that follow", xlabel="layer")
    axes.set_title(f"Where a few directions carry {data.name} (fitting pairs)")
    axes.grid(alpha=0.3)
    axes.plot([], [], ".:", color="grey", label="those of the network before training")
    axes.legend()
    return figure


def _as_forest(effects: pd.DataFrame) -> pd.DataFrame:
    """Return each claim's effect and its strongest control's, as two rows of one name."""
    name = effects["direction"] + ": " + effects["claim"]
    own = effects[["effect", "low", "high"]].assign(intervention=name, kind="edit")
    other = effects[["control", "control_low", "control_high"]]
    other = other.set_axis(["effect", "low", "high"], axis=1)
    other = other.assign(intervention=name, kind="control")
    return pd.concat([own, other])


def _list(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
