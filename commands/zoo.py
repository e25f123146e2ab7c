"""List the agents of the zoo, with their scores on held-out levels.

    rlbilinear agents

The scores are those recorded with each agent: means over levels, for sampled actions, for greedy
ones, and for uniform actions as the baseline.
"""

import json
from dataclasses import dataclass

import pandas as pd

from rlbilinear.agents import names
from rlbilinear.agents.checkpoint import CONFIG, ZOO
from rlbilinear.commands.running import Command

POLICIES = {"sampled": "sampled", "greedy": "greedy", "uniform over 15 actions": "uniform"}
"""The policies whose scores are shown, as a record names them, and as the columns do."""


@dataclass(frozen=True)
class ZooOptions:
    """List the agents of the zoo."""


def zoo_table() -> pd.DataFrame:
    """Return a row for each agent: its game, architecture, and mean return by policy."""
    rows = {}
    for name in names():
        document = json.loads((ZOO / name / CONFIG).read_text())
        scores = document["made"].get("scores", {})
        rows[name] = {
            "game": document["game"],
            "architecture": document["network"]["architecture"],
            **{shown: scores.get(kind, {}).get("return") for kind, shown in POLICIES.items()},
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _list(_: ZooOptions) -> None:
    print(zoo_table().to_string())
    print("\nMean return on held-out levels; `rlbilinear evaluate NAME` plays them again.")


main = Command(ZooOptions, _list, __doc__)
