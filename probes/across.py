"""Claims over several agents: in how many they hold, and how large the effects are.

The agent is the unit: another training would give another agent. What is known of one agent, from
its held-out levels, is in that agent's own verdict.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from rlbilinear.statistics.intervals import CONFIDENCE
from rlbilinear.statistics.runs import mean_over_games, t_interval

NEEDED = ("claim", "verdict", "effect", "control")


def over_agents(verdicts: Mapping[str, pd.DataFrame], kinds: Mapping[str, str]) -> pd.DataFrame:
    """Gather the verdicts of agents, kind by kind.

    Args:
        verdicts: of each agent, a row a claim, with `NEEDED`: `ValidationReport.verdict`, or the
            claims of an atlas.
        kinds: of each agent; its architecture, say.

    Returns:
        A row for each kind and claim: ``agents`` that were asked, ``causal`` and ``contradicted``
        of them, the ``share`` that is causal with the exact interval of Clopper and Pearson
        (``share_low``, ``share_high``), the mean ``effect`` with Student's interval over agents
        (``effect_low``, ``effect_high``; NaN of one agent), the smallest and the largest effect,
        and the mean effect of the strongest ``control``.

    Raises:
        ValueError: no verdicts, columns that lack, a claim twice, or an agent without a kind.
    """
    if not verdicts:
        raise ValueError("verdicts: expected those of at least one agent")
    if missing := [agent for agent in verdicts if agent not in kinds]:
        raise ValueError(f"kinds: none is given for {', '.join(missing)}")
    for agent, found in verdicts.items():
        if lacking := [name for name in NEEDED if name not in found]:
            raise ValueError(f"the verdict of {agent} lacks {', '.join(lacking)}")
        if twice := sorted({*found["claim"][found["claim"].duplicated()]}):
            raise ValueError(f"the verdict of {agent} has a claim twice: {twice[0]}")
    joined = pd.concat(
        [found.assign(agent=agent, kind=kinds[agent]) for agent, found in verdicts.items()]
    )
    rows = [
        _row(kind, claim, of_claim)
        for (kind, claim), of_claim in joined.groupby(["kind", "claim"], sort=False)
    ]
    return pd.DataFrame(rows)


def between_kinds(
    verdicts: Mapping[str, pd.DataFrame], kinds: Mapping[str, str], one: str, other: str
) -> pd.DataFrame:
    """Compare the effects of two kinds of agents.

    Returns:
        A row for each claim that both have: the ``difference`` of the mean effects, the first kind
        minus the second, with Welch's interval over agents (``low``, ``high``; NaN where a kind has
        one agent, or equal effects).

    Raises:
        ValueError: as `over_agents`, or a kind that no agent has; those there are are listed.
    """
    over_agents(verdicts, kinds)
    there = [*dict.fromkeys(kinds[agent] for agent in verdicts)]
    for kind in (one, other):
        if kind not in there:
            raise ValueError(f"no agent is of kind {kind!r}; choose from {', '.join(there)}")
    effects = {
        kind: pd.concat([v for agent, v in verdicts.items() if kinds[agent] == kind])
        for kind in (one, other)
    }
    rows = []
    for claim in dict.fromkeys(effects[one]["claim"]):
        first, second = (
            found["effect"][found["claim"] == claim].to_numpy(float) for found in effects.values()
        )
        if len(second):
            # Half of the difference is the mean over two strata, one of them negated.
            half = mean_over_games({one: first, other: -second})
            rows.append(
                {"claim": claim, "difference": 2 * half.estimate, "low": 2 * half.low}
                | {"high": 2 * half.high}
            )
    return pd.DataFrame(rows, columns=["claim", "difference", "low", "high"])


def _row(kind: str, claim: str, found: pd.DataFrame) -> dict[str, object]:
    causal = int((found["verdict"] == "causal").sum())
    share = stats.binomtest(causal, len(found)).proportion_ci(CONFIDENCE, method="exact")
    effect = t_interval(found["effect"].to_numpy(float))
    return {
        "kind": kind,
        "claim": claim,
        "agents": len(found),
        "causal": causal,
        "contradicted": int((found["verdict"] == "contradicted").sum()),
        "share": causal / len(found),
        "share_low": share.low,
        "share_high": share.high,
        "effect": effect.estimate,
        "effect_low": effect.low,
        "effect_high": effect.high,
        "smallest": found["effect"].min(),
        "largest": found["effect"].max(),
        "control": float(np.mean(found["control"])),
    }
