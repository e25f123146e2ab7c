"""Gather an atlas over its agents: in how many of them each claim holds, and how large effects are.

    rlbilinear atlas --agents AGENT AGENT ... --ranks 1 --out runs/atlas
    rlbilinear verdicts runs/atlas --layers block1 --out runs/over-agents.csv

The agents are the unit: their architectures are set side by side, with intervals over agents.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from rlbilinear.agents import load
from rlbilinear.commands.outputs import check_new_file, new_file
from rlbilinear.commands.running import Command
from rlbilinear.probes.across import over_agents

CLAIMS = Path("report", "tables", "claims.csv")
SHOWN = ["layer", "claim", "kind", "agents", "causal", "contradicted"]
EFFECTS = ["effect", "effect_low", "effect_high", "control"]


@dataclass(frozen=True)
class VerdictsOptions:
    """Gather an atlas over its agents."""

    atlas: Annotated[Path, tyro.conf.Positional]
    """folder of an atlas of several agents"""
    layers: tuple[str, ...] = ()
    """layers to show; by default all"""
    out: Path | None = None
    """write the whole table to this CSV file"""


def _verdicts(options: VerdictsOptions) -> None:
    if options.out is not None:
        check_new_file(options.out)
    file = options.atlas / CLAIMS
    if not file.is_file():
        raise ValueError(f"{options.atlas} holds no finished atlas: no {CLAIMS} in it")
    found = gathered(pd.read_csv(file))
    there = [*dict.fromkeys(found["layer"])]
    if unknown := [layer for layer in options.layers if layer not in there]:
        raise ValueError(f"no layer {', '.join(unknown)}; the atlas has {', '.join(there)}")
    shown = found[found["layer"].isin(options.layers or there)]
    print(shown[SHOWN + EFFECTS].to_string(index=False, float_format="%.2f"))
    if options.out is not None:
        with new_file(options.out, overwrite=False) as to:
            found.to_csv(to, index=False)


def gathered(claims: pd.DataFrame) -> pd.DataFrame:
    """Return `over_agents` of the claims of an atlas, for each concept, layer and rank."""
    agents = claims["agent"].unique()
    kinds = {agent: load(agent, device="cpu").config.architecture for agent in agents}
    named = claims.assign(claim=claims["direction"] + ": " + claims["claim"])
    parts = []
    for (concept, layer, rank), here in named.groupby(["concept", "layer", "rank"], sort=False):
        verdicts = {str(agent): of_agent for agent, of_agent in here.groupby("agent")}
        place = {"concept": concept, "layer": layer, "rank": rank}
        parts.append(over_agents(verdicts, kinds).assign(**place))
    return pd.concat(parts, ignore_index=True)


main = Command(VerdictsOptions, _verdicts, __doc__)
