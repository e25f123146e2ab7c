"""At which layer to ask: where one direction makes the agent follow most fitting pairs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlbilinear.agents import Agent
from rlbilinear.probes.dataset import Pairs
from rlbilinear.probes.interchange import activation_differences, interchange_table
from rlbilinear.probes.subspaces import Subspace, difference_subspace

AUTO = "auto"
RULE = "of all layers, the one at which exchanging one direction is followed in most fitting pairs"


def follow_by_layer(
    agent: Agent, pairs: Pairs, layers: Sequence[str], *, seed: int = 0
) -> "pd.Series[float]":
    """Return by layer how often the agent follows when one direction is exchanged.

    Cross-fitted: the levels are cut in two halves, and each half's pairs are exchanged along the
    leading difference direction of the other half. A pair whose outputs are not finite is not
    followed.

    Raises:
        ValueError: pairs of fewer than two levels, or unknown layer.
    """
    levels = np.random.default_rng(seed).permutation(np.unique(pairs.levels))
    if len(levels) < 2:
        raise ValueError(f"choosing a layer needs pairs of 2 levels or more, got {len(levels)}")
    first = np.isin(pairs.levels, levels[: len(levels) // 2])
    differences = activation_differences(agent, pairs, layers)
    tables = []
    for half in (first, ~first):
        subspaces = {
            layer: [Subspace("difference", difference_subspace(differences[layer][~half], 1))]
            for layer in layers
        }
        tables.append(interchange_table(agent, pairs.select(half), subspaces))
    both = pd.concat(tables)
    return both["follow"].fillna(0).groupby(both["layer"], sort=False).mean()
