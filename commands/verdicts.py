"""Gather atlases over their agents: in how many each claim holds, and how large effects are.

    rlbilinear atlas --agents AGENT AGENT ... --ranks 1 --surrogates --out runs/atlas
    rlbilinear verdicts runs/atlas --layers block1 --out runs/over-agents.csv

The agents are the unit: their architectures are set side by side, with intervals over agents, and
quadratic surrogates beside the agents that they were made of. Several atlases are read as one when
they asked in the same way.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro

from rlbilinear.agents import load
from rlbilinear.commands.outputs import check_writable, new_file
from rlbilinear.commands.running import Command
from rlbilinear.probes.across import over_agents
from rlbilinear.probes.causal.atlas import SETTINGS
from rlbilinear.probes.surrogate import SURROGATE

CLAIMS = Path("report", "tables", "claims.csv")
SHOWN = ["layer", "claim", "kind", "agents", "causal", "contradicted"]
EFFECTS = ["effect", "effect_low", "effect_high", "control"]


@dataclass(frozen=True)
class VerdictsOptions:
    """Gather atlases over their agents."""

    atlases: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """folders of atlases"""
    layers: tuple[str, ...] = ()
    """layers to show; by default all"""
    out: Path | None = None
    """write the whole table to this CSV file"""


def _verdicts(options: VerdictsOptions) -> None:
    if options.out is not None:
        check_writable(options.out)
    found = gathered(claims_of(options.atlases))
    there = [*dict.fromkeys(found["layer"])]
    if unknown := [layer for layer in options.layers if layer not in there]:
        raise ValueError(f"no layer {', '.join(unknown)}; the atlas has {', '.join(there)}")
    shown = found[found["layer"].isin(options.layers or there)]
    print(shown[SHOWN + EFFECTS].to_string(index=False, float_format="%.2f"))
    if options.out is not None:
        with new_file(options.out) as to:
            found.to_csv(to, index=False)


def claims_of(atlases: Sequence[Path]) -> pd.DataFrame:
    """Return the claims of all atlases.

    Raises:
        ValueError: there are none, or one is not finished, has an agent of another, or asked with
            other sizes.
    """
    if not atlases:
        raise ValueError("no atlas: give folders that rlbilinear atlas has made")
    found: dict[Path, pd.DataFrame] = {}
    for folder in atlases:
        if not (folder / CLAIMS).is_file():
            raise ValueError(f"{folder} holds no finished atlas: no {CLAIMS} in it")
        claims = pd.read_csv(folder / CLAIMS)
        for other, known in found.items():
            if twice := sorted({*claims["agent"]} & {*known["agent"]}):
                raise ValueError(f"{folder} and {other} both have {', '.join(twice)}")
            if sizes(folder) != sizes(other):
                raise ValueError(
                    f"{folder} asked with {sizes(folder)}, {other} with {sizes(other)}"
                )
        found[folder] = claims
    return pd.concat(found.values(), ignore_index=True)


def sizes(atlas: Path) -> dict[str, Any]:
    """Return how much an atlas has drawn and compared."""
    return json.loads((atlas / SETTINGS).read_text())["sizes"]


def kind(agent: str) -> str:
    """Return the architecture of an agent of an atlas; a surrogate's says that it is one."""
    original = agent.removesuffix(SURROGATE)
    return load(original, device="cpu").config.architecture + agent[len(original) :]


def gathered(claims: pd.DataFrame) -> pd.DataFrame:
    """Return `over_agents` of the claims of an atlas, for each concept, layer and rank."""
    kinds = {agent: kind(agent) for agent in claims["agent"].unique()}
    named = claims.assign(claim=claims["direction"] + ": " + claims["claim"])
    parts = []
    for (concept, layer, rank), here in named.groupby(["concept", "layer", "rank"], sort=False):
        verdicts = {str(agent): of_agent for agent, of_agent in here.groupby("agent")}
        place = {"concept": concept, "layer": layer, "rank": rank}
        parts.append(over_agents(verdicts, kinds).assign(**place))
    return pd.concat(parts, ignore_index=True)


main = Command(VerdictsOptions, _verdicts, __doc__)
