"""At which layer to ask: where one direction makes the agent follow most fitting pairs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlbilinear.agents import Agent
from rlbilinear.probes.dataset import Pairs
from rlbilinear.probes.interchange import activation_differences, interchange_table
from rlbilinear.probes.reading import untrained
from rlbilinear.probes.subspaces import Subspace, difference_subspace

AUTO = "auto"
RULE = (
    "of all layers, the one at which exchanging one direction is followed in most fitting pairs, "
    "beyond those in which the same network's direction before training is"
)


def choose_layer(agent: Agent, pairs: Pairs, layers: Sequence[str], *, seed: int = 0) -> str:
    """Return the layer of `RULE`, the first of equals.

    A layer near the pixels has whatever changes in few channels, and any direction of them may be
    followed there; what an untrained network finds too is nothing that the agent has learned.

    Raises:
        ValueError: pairs of fewer than two levels, or unknown layer.
    """
    found = follow_by_layer(agent, pairs, layers, seed=seed)
    return str((found["follow"] - found["control"]).idxmax())


def follow_by_layer(
    agent: Agent, pairs: Pairs, layers: Sequence[str], *, seed: int = 0
) -> pd.DataFrame:
    """Return by layer how often the agent follows when one direction is exchanged.

    Cross-fitted: the levels are cut in two halves, and each half's pairs are exchanged along the
    leading difference direction of the other half. A pair whose outputs are not finite is not
    followed.

    Returns:
        By layer, shares of pairs: ``follow``, and ``control``, along the direction that the network
        has before training, with other initial weights.

    Raises:
        ValueError: pairs of fewer than two levels, or unknown layer.
    """
    levels = np.random.default_rng(seed).permutation(np.unique(pairs.levels))
    if len(levels) < 2:
        raise ValueError(f"choosing a layer needs pairs of 2 levels or more, got {len(levels)}")
    first = np.isin(pairs.levels, levels[: len(levels) // 2])
    differences = {
        "follow": activation_differences(agent, pairs, layers),
        "control": activation_differences(untrained(agent, seed), pairs, layers),
    }
    tables = []
    for half in (first, ~first):
        subspaces = {
            layer: [
                Subspace(name, difference_subspace(of[layer][~half], 1))
                for name, of in differences.items()
            ]
            for layer in layers
        }
        tables.append(interchange_table(agent, pairs.select(half), subspaces))
    both = pd.concat(tables).fillna({"follow": 0})
    means = both.groupby(["subspace", "layer"], sort=False)["follow"].mean()
    return pd.DataFrame({name: means[name] for name in differences})
