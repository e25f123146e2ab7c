"""Find where activations leave the finite range: a bilinear network has a high degree."""

from collections.abc import Iterable

import pandas as pd

from rlbilinear.agents.agent import Observations
from rlbilinear.agents.network import HEADS
from rlbilinear.probes.interventions import Intervention, activations
from rlbilinear.probes.named import AgentLike, as_agent


def finite_by_layer(
    agent: AgentLike, observations: Observations, interventions: Iterable[Intervention] = ()
) -> pd.DataFrame:
    """Return in how many states the outputs of each step are finite, under interventions.

    Returns:
        A row for each step of the forward pass, in its order, and the heads: ``layer``; ``finite``,
        the share of states in which all its outputs are; ``states``.

    Raises:
        ValueError: see `interventions.activations`.
    """
    agent = as_agent(agent)
    names = [name for name in agent.layer_names if "." not in name and name not in HEADS]
    outputs = activations(agent, observations, [*names, *HEADS], interventions)
    return pd.DataFrame(
        {
            "layer": name,
            "finite": output.isfinite().flatten(1).all(1).double().mean().item(),
            "states": len(output),
        }
        for name, output in outputs.items()
    )
