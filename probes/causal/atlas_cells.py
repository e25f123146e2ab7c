"""The cells of an atlas together: verdicts, a table, and one picture per agent.

A cell is the file that one agent, concept, layer and rank was answered in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from rlbilinear.agents.folder import provenance
from rlbilinear.probes.causal.atlas_figure import atlas_figure
from rlbilinear.probes.causal.report import MEANINGS
from rlbilinear.probes.report import Drawing, Section, ValidationReport
from rlbilinear.probes.steps.result import ALPHA, Claim
from rlbilinear.probes.validation import judge
from rlbilinear.statistics import holm

CELLS, NOT_ASKED = "cells", "not-asked.json"
USES = ("sufficient", "necessary", "steerable")
"""Claims that say a concept is used; that an edit is specific alone says nothing."""


class Cell(NamedTuple):
    """A place of the atlas, and what is asked there."""

    agent: str
    concept: str
    layer: str
    rank: int

    def file(self, folder: Path) -> Path:
        """Return where its result is kept."""
        return (
            folder_of(folder, self.agent, self.concept) / f"{_plain(self.layer)}.{self.rank}.json"
        )


@dataclass(frozen=True, eq=False)
class Atlas:
    """What was found.

    Attributes:
        cells: a row for each agent, concept and layer: ``status`` (used, readable, neither), the
            held-out ``score`` of the reading with ``base_rate``, ``permuted`` and ``untrained``
            beside it and ``reading_p`` (Holm over the concept's layers); for each claim the best
            effect of all directions and ranks; ``shown``, the claims of use that are causal, and
            ``least_rank``, the smallest rank with one.
        claims: a row for each claim of each direction and rank, with effect, interval, control and
            verdict; p-values are corrected (Holm) over all claims of the same agent, concept and
            layer.
        not_asked: agents and concepts that could not be asked about, with the ``reason``.
        report: the same as figures, tables and TensorBoard.
    """

    cells: pd.DataFrame
    claims: pd.DataFrame
    not_asked: pd.DataFrame
    report: ValidationReport


def gathered(
    out: Path, grid: Mapping[tuple[str, str], Sequence[str]], settings: dict[str, Any]
) -> Atlas:
    """Read the cells and decide."""
    rows, claims, reasons = [], [], []
    for (agent, concept), layers in grid.items():
        refused = folder_of(out, agent, concept) / NOT_ASKED
        if refused.exists():
            reason = json.loads(refused.read_text())["reason"]
            reasons.append({"agent": agent, "concept": concept, "reason": reason})
            continue
        if not layers:
            reason = "none of the layers asked for has maps fine enough for its labels"
            reasons.append({"agent": agent, "concept": concept, "reason": reason})
        own = []
        for layer in layers:
            found = [*_found(out, agent, concept, layer, settings["ranks"])]
            decided = _decide(found).assign(agent=agent, concept=concept, layer=layer)
            claims.append(decided)
            own.append({"agent": agent, "concept": concept, "layer": layer} | _row(found, decided))
        corrected = holm([row["reading_p"] for row in own]).tolist() if own else []
        for row, p in zip(own, corrected, strict=True):
            readable = p < ALPHA
            row |= {"reading_p": p, "readable": readable}
            row["status"] = "used" if row.pop("used") else "readable" if readable else "neither"
        rows += own
    cells = pd.DataFrame(rows)
    all_claims = pd.concat(claims) if claims else pd.DataFrame()
    not_asked = pd.DataFrame(reasons, columns=["agent", "concept", "reason"])
    return Atlas(cells, all_claims, not_asked, _report(cells, all_claims, not_asked, settings))


def _found(
    out: Path, agent: str, concept: str, layer: str, ranks: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for rank in ranks:
        file = Cell(agent, concept, layer, rank).file(out)
        if file.exists():
            yield rank, json.loads(file.read_text())


def _decide(found: Sequence[tuple[int, dict[str, Any]]]) -> pd.DataFrame:
    """Judge all claims of a concept at a layer together."""
    claims = [Claim(**each) for _, cell in found for each in cell["claims"]]
    effects = pd.concat([pd.DataFrame(cell["effects"]).assign(rank=rank) for rank, cell in found])
    effects = effects.reset_index(drop=True)
    # Claims of the probe and its pattern, which have no rank, are in the cells of all ranks alike.
    again = effects.drop(columns="rank").duplicated() & (effects["direction"] != "difference")
    judged = judge([claim for claim, twice in zip(claims, again, strict=True) if not twice])
    effects = effects[~again].reset_index(drop=True)
    return effects.assign(verdict=judged["verdict"], p=judged["p"])


def _row(found: Sequence[tuple[int, dict[str, Any]]], decided: pd.DataFrame) -> dict[str, Any]:
    reading = pd.DataFrame(found[0][1]["readable"]).set_index("name")
    # Of an edit that is specific the smallest effect is the best.
    best = {
        claim: rows["effect"].min() if claim == "specific" else rows["effect"].max()
        for claim, rows in decided.groupby("claim")
    }
    causal = decided[(decided["verdict"] == "causal") & decided["claim"].isin(USES)]
    return {
        "used": len(causal) > 0,
        "score": reading.loc["probe", "score"],
        "base_rate": reading.loc["base rate", "score"],
        "permuted": reading.loc["permuted labels", "score"],
        "untrained": reading.loc["untrained network", "score"],
        "reading_p": reading.loc["probe", "p"],
        **{claim: best.get(claim) for claim in MEANINGS},
        "shown": ", ".join(dict.fromkeys(causal["claim"])),
        "least_rank": causal["rank"].min() if len(causal) else None,
    }


def _report(
    cells: pd.DataFrame,
    claims: pd.DataFrame,
    not_asked: pd.DataFrame,
    settings: dict[str, Any],
) -> ValidationReport:
    figures = {
        f"atlas_{_plain(agent)}": Drawing(
            atlas_figure(cells[cells["agent"] == agent], agent),
            f"{agent}: what is used where (blue), what can be read only (orange), neither (grey).",
        )
        for agent in dict.fromkeys(cells.get("agent", []))
    }
    text = (
        "Blue: at least one of the tested directions is shown to be "
        f"{', '.join(USES[:-1])} or {USES[-1]}; p-values are corrected over all claims of the same "
        "agent, concept and layer, so of the fields in which nothing is used at most "
        f"{ALPHA:.0%} are expected to be blue. Orange: it can be read there, better than without "
        "looking and than with other groups' labels, but no tested direction is shown to be used. "
        "Numbers: the held-out score of the reading, and below it the share of pairs that follow "
        "when the best of the tested subspaces is exchanged. The verdicts above are of the layer, "
        "direction and rank where that share is largest, so it is a little too large; `ask` "
        "chooses them on the fitting pairs."
    )
    if len(not_asked):
        text += " Some concepts could not be asked about."
    tables = {"cells": cells, "claims": claims, "not_asked": not_asked}
    section = Section("What is used where", text, ("cells", "not_asked"), tuple(figures))
    return ValidationReport(
        title=f"Atlas of {', '.join(settings['agents'])}",
        settings={**provenance(), **settings},
        verdict=_best(claims),
        sections=(section,),
        tables=tables,
        figures=figures,
    )


def _best(claims: pd.DataFrame) -> pd.DataFrame:
    """Return for each agent and concept the place where most pairs follow an exchange."""
    columns = ["claim", "verdict", "effect", "low", "high", "control", "p", "decided_by"]
    if not len(claims):
        return pd.DataFrame(columns=columns)
    own = claims[claims["claim"] == "sufficient"]
    own = own.sort_values("effect", ascending=False, kind="stable")
    best = own.groupby(["agent", "concept"], sort=False).head(1)
    name = best["agent"] + ": " + best["concept"] + " at " + best["layer"]
    name += ", " + best["direction"] + " " + best["rank"].astype(str)
    return best.assign(claim=name, decided_by="cells")[columns].reset_index(drop=True)


def folder_of(out: Path, agent: str, concept: str) -> Path:
    """Return where the cells of an agent and concept are kept."""
    return out / CELLS / _plain(agent) / _plain(concept)


def _plain(name: str) -> str:
    """Return a name as a file name; names that would be alike are told apart."""
    plain = re.sub(r"[^\w.-]", "_", name).lstrip(".-")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
