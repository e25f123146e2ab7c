"""Validate a probe causally: from activations into weights, and back to behaviour.

A probe that reads a concept well proves that the information is there. `validate` asks whether the
agent uses it: where few directions carry it, what in the weights writes and reads them, and what
the agent does when those weights are edited. Every effect stands beside controls, with intervals
by level; the verdict is measured.
"""

import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pandas as pd
from tqdm import tqdm

from rlbilinear.agents import Agent
from rlbilinear.agents.folder import provenance
from rlbilinear.envs import EVALUATION, FITTING, generate_maze
from rlbilinear.envs.state import WALL
from rlbilinear.probes.concepts import ConceptLike, cheese_presence
from rlbilinear.probes.layer_choice import AUTO, RULE
from rlbilinear.probes.named import AgentLike, LayerLike
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.report import Section, ValidationReport
from rlbilinear.probes.steps.ablating import ablate_directions
from rlbilinear.probes.steps.in_short import in_short
from rlbilinear.probes.steps.locating import locate_concept
from rlbilinear.probes.steps.playing import play_edited
from rlbilinear.probes.steps.reading import read_concept
from rlbilinear.probes.steps.result import ALPHA, Claim, StepResult
from rlbilinear.probes.steps.steering import steer_to_cells
from rlbilinear.probes.steps.tracing import trace_weights
from rlbilinear.probes.study import DIRECTIONS, Sizes, Study, prepare
from rlbilinear.statistics import holm, smallest_effect

STEPS: tuple[tuple[str, Callable[[Study], StepResult]], ...] = (
    ("probe", read_concept),
    ("interchange", locate_concept),
    ("writers and readers", trace_weights),
    ("edits", ablate_directions),
    ("steering", steer_to_cells),
    ("play", play_edited),
)


def validate(
    agent: AgentLike,
    probe: LinearProbe | None = None,
    *,
    layer: LayerLike = AUTO,
    concept: ConceptLike = cheese_presence,
    sizes: Sizes | None = None,
    seed: int = 0,
    name: str | None = None,
    progress: bool = True,
    surrogate: AgentLike | None = None,
) -> ValidationReport:
    """Ask whether an agent uses what a probe reads.

    Three directions of the layer are put to the test: the probe's weights, its pattern, and the one
    that changes most when only the cheese moves (see `rlbilinear.probes.study.DIRECTIONS`).

    Args:
        agent: a maze agent, or its name in the zoo, or its folder.
        probe: fitted at the layer; the usual one is fitted when None.
        layer: a layer whose outputs are maps, or its name; ``auto`` chooses it on the fitting
            pairs (`probes.layer_choice`), and is the probe's own when one is given.
        concept: what the probe reads, or its name.
        sizes: how many levels and states.
        seed: seed of everything random.
        name: name of the agent, in the report; as it was given, or "the agent", when None.
        progress: show bars.
        surrogate: for a ReLU agent, as `probes.surrogate.quadratic_surrogate` makes it: the agent
            is then read, and edited in its weights, by the surrogate's eigenfilters.

    Raises:
        ValueError: a layer, concept or agent that cannot be studied; the message lists the choices.
        TypeError: something else than an agent, layer, concept or their names.
    """
    started = time.monotonic()
    sizes = sizes or Sizes()
    name = name or ("the agent" if isinstance(agent, Agent) else str(agent))
    study = prepare(
        agent,
        layer,
        concept,
        probe=probe,
        sizes=sizes,
        seed=seed,
        progress=progress,
        surrogate=surrogate,
    )
    parts = []
    with tqdm(STEPS, disable=not progress) as steps:
        for title, step in steps:
            steps.set_description(title)
            parts.append(step(study))
    claims = [claim for part in parts for claim in part.claims]
    repeated = repeated_mazes(FITTING.first(sizes.fit_levels), EVALUATION.first(sizes.levels))
    parts.append(_rules(claims, sizes, repeated))
    verdict = by_direction(judge(claims))
    parts.insert(0, in_short(study, name, verdict, parts[0].tables["probe-by-layer"]))
    settings = {
        **provenance(),
        "agent": name,
        "layer": study.layer,
        "layer_rule": RULE if layer == AUTO and probe is None else "given",
        "concept": study.concept.name,
        "seed": seed,
        "sizes": asdict(sizes),
        "levels": {
            "training": str(study.agent.config.made.get("levels", "unknown")),
            "fitting": f"first {sizes.fit_levels} of {FITTING}",
            "evaluation": f"first {sizes.levels} of {EVALUATION}",
        },
        "directions": DIRECTIONS,
        "seconds": round(time.monotonic() - started, 1),
    }
    return ValidationReport(
        title=f"Does {name} use what a probe for {study.concept.name} reads at {study.layer}?",
        settings=settings,
        verdict=verdict,
        sections=tuple(part.section for part in parts),
        tables=_merged(parts, "tables"),
        figures=_merged(parts, "figures"),
        videos=_merged(parts, "videos"),
        agents=_merged(parts, "agents"),
        scalars=_merged(parts, "scalars"),
    )


def judge(claims: list[Claim]) -> pd.DataFrame:
    """Decide every claim, with p-values corrected for their number (Holm).

    Returns:
        A row a claim, in the order given.
        Columns as `rlbilinear.probes.report.ValidationReport.verdict` needs them.
    """
    corrected = holm([claim.p for claim in claims]).tolist()
    return pd.DataFrame(
        {
            "claim": claim.claim,
            "verdict": claim.verdict(p),
            "effect": claim.effect,
            "low": claim.low,
            "high": claim.high,
            "control": claim.control,
            "p": p,
            "decided_by": claim.decided_by,
        }
        for claim, p in zip(claims, corrected, strict=True)
    )


def by_direction(verdict: pd.DataFrame) -> pd.DataFrame:
    """Bring the claims about one direction together, in the order of the first of each."""
    about = verdict["claim"].str.partition(": ")[0]
    order = about.map({name: index for index, name in enumerate(about.unique())})
    return verdict.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


def repeated_mazes(fitting: list[int], evaluation: list[int]) -> int:
    """Count the evaluation levels whose walls are those of a fitting level: small mazes repeat."""
    seen = {_walls(level) for level in fitting}
    return sum(_walls(level) in seen for level in evaluation)


def _walls(level: int) -> bytes:
    return (generate_maze(level).grid == WALL).tobytes()


def _rules(claims: list[Claim], sizes: Sizes, repeated: int) -> StepResult:
    """Say when a claim counts as causal or contradicted, and what could be found."""
    signs = [("<", ">") if claim.smaller else (">", "<") for claim in claims]
    table = pd.DataFrame(
        {
            "claim": claim.claim.partition(": ")[2],
            "meaning": claim.meaning,
            "causal": f"{sign} {claim.shown:g}",
            "contradicted": f"{opposite} {claim.negligible:g}",
        }
        for claim, (sign, opposite) in zip(claims, signs, strict=True)
    ).drop_duplicates()
    smallest = smallest_effect(sizes.levels, alpha=ALPHA / len(claims))
    text = (
        "A claim is causal when its whole 95 % interval is beyond the bound under `causal`, and "
        "its effect goes beyond the control's and differs from it (sign-flip test by level, p < "
        f"{ALPHA:g} after Holm's correction for the {len(claims)} claims); contradicted when its "
        "interval is beyond the bound under `contradicted`; else not shown. Intervals are "
        f"bootstraps by level. With {sizes.levels} levels, a difference from the control of "
        f"{smallest:.2f} standard deviations between levels is found with probability 0.8, even "
        "under the strictest corrected level. Levels are held out by their seeds; small mazes "
        f"come up again: {repeated} of the {sizes.levels} have the walls of a fitting level."
    )
    if unknown := sum(np.isnan([claim.effect, claim.control]).any() for claim in claims):
        text += (
            f" {unknown} claims have no number, and are not shown: with an edit, or its control, "
            "the agent's outputs are not finite in some states (`finite` in the tables)."
        )
    return StepResult(
        Section("How the verdict is reached", text, ("rules",)), tables={"rules": table}
    )


def _merged(parts: list[StepResult], kind: str) -> dict:
    return {name: value for part in parts for name, value in getattr(part, kind).items()}
