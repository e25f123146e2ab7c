"""Gather atlases or reports over their agents: in how many each claim holds, and how large it is.

    rlbilinear atlas --agents AGENT AGENT ... --ranks 1 --surrogates --out runs/atlas
    rlbilinear verdicts runs/atlas --layers block1 --out runs/over-agents.csv
    rlbilinear verdicts runs/validate/one runs/validate/two ...

The agents are the unit: their architectures are set side by side, with intervals over agents, and
quadratic surrogates beside the agents that they were made of. Several atlases, or the reports of
``rlbilinear validate`` of several agents, are read as one when they asked in the same way.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro

from rlbilinear.agents import load
from rlbilinear.commands.outputs import check_new_file, new_file
from rlbilinear.commands.running import Command, Several
from rlbilinear.probes.across import over_agents
from rlbilinear.probes.causal.atlas import SETTINGS, AtlasSizes
from rlbilinear.probes.surrogate import BY_SURROGATE, SURROGATE

CLAIMS = Path("report", "tables", "claims.csv")
VERDICT = Path("tables", "verdict.csv")
PLACE = ["agent", "concept", "layer", "rank"]
SHOWN = ["layer", "claim", "kind", "agents", "causal", "contradicted"]
EFFECTS = ["effect", "effect_low", "effect_high", "control"]


@dataclass(frozen=True)
class VerdictsOptions:
    """Gather atlases or reports over their agents."""

    folders: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="PATH [PATH ...]", help_behavior_hint="(required)"),
    ]
    """folders of atlases, or of the reports of validate"""
    layers: Several[str] = ()
    """layers to show; by default all"""
    out: Path | None = None
    """write the whole table to this CSV file"""


def _verdicts(options: VerdictsOptions) -> None:
    if options.out is not None:
        check_new_file(options.out)
    found = gathered(claims_of(options.folders))
    there = [*dict.fromkeys(found["layer"])]
    if unknown := [layer for layer in options.layers if layer not in there]:
        raise ValueError(f"no layer {', '.join(unknown)}; there are {', '.join(there)}")
    shown = found[found["layer"].isin(options.layers or there)]
    print(shown[SHOWN + EFFECTS].to_string(index=False, float_format="%.2f"))
    if options.out is not None:
        with new_file(options.out, overwrite=False) as to:
            found.to_csv(to, index=False)


def claims_of(folders: Sequence[Path]) -> pd.DataFrame:
    """Return all claims that folders hold.

    Raises:
        ValueError: there are none; or a folder is neither a finished atlas nor a report, answers
            what another answers, or asked with other sizes.
    """
    if not folders:
        raise ValueError("no folder: give those that rlbilinear atlas or validate has made")
    found: list[pd.DataFrame] = []
    first = None
    for folder in folders:
        claims, sizes = read(folder)
        first = first or (folder, sizes)
        if sizes != first[1]:
            raise ValueError(f"{folder} asked with {sizes}, {first[0]} with {first[1]}")
        known = {place for each in found for place in _places(each)}
        if twice := sorted(known & _places(claims)):
            raise ValueError(f"{folder} answers again: {', '.join(map(str, twice[0]))}")
        found.append(claims)
    return pd.concat(found, ignore_index=True)


def read(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the claims of an atlas or report, and how much it has drawn.

    Raises:
        ValueError: it is neither.
    """
    if (folder / CLAIMS).is_file():
        settings = json.loads((folder / SETTINGS).read_text())
        drawn = {each.name: settings[each.name] for each in fields(AtlasSizes)}
        return pd.read_csv(folder / CLAIMS), drawn
    if not (folder / VERDICT).is_file():
        raise ValueError(
            f"{folder} holds no finished atlas and no report: neither {CLAIMS} nor {VERDICT} in it"
        )
    settings = json.loads((folder / "settings.json").read_text())
    claims = pd.read_csv(folder / VERDICT)
    named = claims["claim"].str.partition(": ")
    place = {name: settings[name] for name in ("agent", "concept", "layer")}
    own = claims.assign(direction=named[0], claim=named[2], rank=1, **place)
    return own, settings["sizes"]


def _places(claims: pd.DataFrame) -> set[tuple[object, ...]]:
    return set(claims[PLACE].itertuples(index=False, name=None))


def kind(agent: str) -> str:
    """Return the architecture of an agent by its name in a report, with what ends the name.

    That is nothing, or says that it is a quadratic surrogate, or is read by one.
    """
    original = agent
    for addition in (SURROGATE, BY_SURROGATE):
        original = original.removesuffix(addition)
    return load(original, device="cpu").config.architecture + agent[len(original) :]


def gathered(claims: pd.DataFrame) -> pd.DataFrame:
    """Return `over_agents` of claims, for each concept, layer and rank."""
    kinds = {agent: kind(agent) for agent in claims["agent"].unique()}
    named = claims.assign(claim=claims["direction"] + ": " + claims["claim"])
    parts = []
    for (concept, layer, rank), here in named.groupby(["concept", "layer", "rank"], sort=False):
        verdicts = {str(agent): of_agent for agent, of_agent in here.groupby("agent")}
        place = {"concept": concept, "layer": layer, "rank": rank}
        parts.append(over_agents(verdicts, kinds).assign(**place))
    return pd.concat(parts, ignore_index=True)


main = Command(VerdictsOptions, _verdicts, __doc__)
