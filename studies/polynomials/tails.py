"""Tails of hidden units' inputs: why a closed form may misjudge a layer."""

import copy

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rlbilinear.agents import Agent
from rlbilinear.moments import as_activation, expand
from rlbilinear.normal import cumulative


def tails(
    agent: Agent, branches: dict[str, str], observations: UInt8[np.ndarray, "n 3 64 64"]
) -> pd.DataFrame:
    """Set the hidden units of ReLU branches beside what a Gaussian of their mean and width says.

    Args:
        agent: regrouped.
        branches: convolution, ReLU, convolution; by name, the layer that feeds each.
        observations: what the agent sees.

    Returns:
        A row for each branch, medians over its hidden channels or its outputs: ``kurtosis`` of
        what goes into a unit's ReLU (3 of a Gaussian); ``active``, how often it is positive, and
        ``active_gaussian``; ``unit_shift``, the error of a unit's expected output in units of its
        standard deviation; ``output_shift``, the error that follows for the branch's outputs,
        in units of theirs; ``cancelled``, the sum of what the units would give the outputs'
        variance each on its own, over that variance: above 1 they cancel each other.
    """
    rows = []
    for name, before in branches.items():
        branch = copy.deepcopy(agent.layer(name)).double()
        assert isinstance(branch, nn.Sequential)
        first, _, last = branch
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
        x = torch.as_tensor(agent.activations(observations, [before])[before]).double()
        with torch.no_grad():
            y = first(x)
            hidden = y.relu()
            outputs = _by_channel(last(hidden))
        y, hidden = _by_channel(y), _by_channel(hidden)
        m, s, width = y.mean(0), y.std(0), outputs.std(0)
        shift = expand(as_activation("relu"), m, s, 0)[0] - hidden.mean(0)
        kernels = last.weight.detach()
        alone = kernels.square().sum((2, 3)) @ hidden.var(0)
        found = {
            "kurtosis": ((y - m) / s).pow(4).mean(0),
            "active": (y > 0).double().mean(0),
            "active_gaussian": cumulative(m / s),
            "unit_shift": (shift / hidden.std(0)).abs(),
            "output_shift": (kernels.sum((2, 3)) @ shift / width).abs(),
            "cancelled": alone / width.square(),
        }
        rows.append({"layer": name} | {k: v.median().item() for k, v in found.items()})
    return pd.DataFrame(rows)


def _by_channel(
    maps: Float[Tensor, "n channels height width"],
) -> Float[Tensor, "positions channels"]:
    return maps.movedim(1, -1).flatten(0, -2)
