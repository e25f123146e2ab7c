"""Eigenfilters of a probe's direction through polynomials: what they find, and their ablation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rlbilinear import Eigenfilters, Polynomial
from rlbilinear.agents import Agent
from rlbilinear.envs import FITTING
from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.dataset import ActivationDataset, collect
from rlbilinear.probes.reading import fit_probe
from rlbilinear.probes.trace import Writer, eigenfilter_table, filter_counts
from rlbilinear.statistics import kl_of_logits


def blocks(agents: Sequence[Agent]) -> list[str]:
    """Return the blocks that all agents have."""
    first, *others = (
        [name for name in agent.layer_names if name.startswith("block") and "." not in name]
        for agent in agents
    )
    return [name for name in first if all(name in other for other in others)]


def writers(
    agent: Agent,
    kind: str,
    polynomials: Mapping[str, Polynomial],
    blocks: Sequence[str],
    levels: int,
    seed: int,
) -> list[Writer]:
    """Fit the cheese probe to each block's output, and decompose its direction there."""
    steps = [name for name in agent.layer_names if "." not in name]
    fit_levels = FITTING.first(levels)
    data = collect(agent, fit_levels, blocks, [cheese_presence], states_per_level=6, seed=seed)
    found = []
    for block in blocks:
        direction = torch.as_tensor(fit_probe(data, block, cheese_presence).direction).double()
        direction = direction / direction.norm()
        relu = kind == "relu"
        branch = f"{block}.branch" if relu else f"{block}.bilinear"
        before = f"{block}.relu" if relu else steps[steps.index(block) - 1]
        filters = polynomials[branch].eigenfilters(direction)
        found.append(Writer(block, branch, before, direction, filters))
    return found


def ablations(
    agent: Agent,
    polynomials: Mapping[str, Polynomial],
    writers: Sequence[Writer],
    observations: UInt8[np.ndarray, "n 3 64 64"],
    seed: int,
    controls: int = 4,
) -> pd.DataFrame:
    """Take what the first k eigenfilters write along a direction out of the agent's activations.

    Of a bilinear agent that is the ablation in its weights, exactly; of a ReLU agent, what its
    quadratic surrogate says that it writes. Controls are random directions of the same block,
    ablated by as many of their filters, and scaled to change the block's output by as much (root
    mean square).

    Returns:
        A row for each block and ``filters`` ("first 1", "first 8", "all"): ``kl`` of the policy
        from the agent's own, and ``control``, the mean, and ``control_max``, the largest of the
        controls'.
    """
    generator = torch.Generator().manual_seed(seed)
    before = agent.logits(observations)
    images = torch.as_tensor(observations)
    rows = []
    for writer in writers:
        inputs = agent.activations(observations, [writer.before])[writer.before]
        polynomial = polynomials[writer.branch]
        drawn = torch.randn(controls, len(writer.direction), generator=generator).double()
        others = [(u / u.norm(), polynomial.eigenfilters(u / u.norm())) for u in drawn]
        for k in (1, 8, 0):
            own = _Ablation(_first(writer.filters, k), writer.direction)
            size = own(inputs).square().mean().sqrt()
            kls = [_kl(agent, before, writer.branch, own, images)]
            for direction, filters in others:
                other = _Ablation(_first(filters, k), direction)
                scale = float(size / other(inputs).square().mean().sqrt())
                kls.append(_kl(agent, before, writer.branch, replace(other, scale=scale), images))
            rows.append(
                {
                    "block": writer.block,
                    "filters": f"first {k}" if k else "all",
                    "kl": kls[0],
                    "control": float(np.mean(kls[1:])),
                    "control_max": max(kls[1:]),
                }
            )
    return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False)
class _Ablation:
    """What some eigenfilters write along a direction of unit norm."""

    filters: Eigenfilters
    direction: Float[Tensor, "channels"]
    scale: float = 1.0

    def __call__(self, x: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n c h w"]:
        written = self.filters.maps(x).sum(1, keepdim=True)
        return self.scale * written * self.direction.to(x)[:, None, None]


def _first(filters: Eigenfilters, k: int) -> Eigenfilters:
    kept = slice(k or None)
    return replace(filters, values=filters.values[kept], filters=filters.filters[kept])


def _kl(
    agent: Agent,
    before: Float[Tensor, "n actions"],
    layer: str,
    ablation: _Ablation,
    images: UInt8[Tensor, "n 3 64 64"],
) -> float:
    """Return the KL of the policy when something is taken out of a layer's output."""
    handle = agent.layer(layer).register_forward_hook(
        lambda module, inputs, output: output - ablation(inputs[0])
    )
    try:
        after = agent.logits(images)
    finally:
        handle.remove()
    return kl_of_logits(before, after).mean().item()


def describe(
    writer: Writer, polynomials: Mapping[str, Polynomial], data: ActivationDataset
) -> pd.DataFrame:
    """Describe a direction's eigenfilters, and how much of what is written they explain."""
    polynomial = polynomials[writer.branch]
    inputs = torch.as_tensor(data.activations[writer.before]).double()
    with torch.no_grad():
        own, quadratic = (
            torch.einsum("c,nchw->nhw", writer.direction, f(inputs))
            for f in (polynomial.network, polynomial)
        )
    scatter = (own - own.mean()).square().sum()
    counts = filter_counts([writer]).iloc[0].drop("writer")
    table = eigenfilter_table([writer], data, cheese_presence.name)
    return table.assign(
        quadratic_r2=float(1 - (own - quadratic).square().sum() / scatter),
        **counts,
    )
