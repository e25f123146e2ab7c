"""Writers: which parts of the network write a direction of the residual stream.

Between two pools a residual stream is a sum: what enters the stage (the pool's output, or the
first convolution's) plus each block's branch. Along a direction ``u`` at a block's output

    ``u . y = u_0 . y_0 + sum_b u_b . branch_b``

exactly, where ``u_b`` is ``u`` pulled back through the skips that follow (``u`` itself while these
are the identity).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.agents.architectures import BilinearBlock
from rlbilinear.edits.functional import PositionBias
from rlbilinear.probes.branches import branch_name

Maps = Mapping[str, Float[np.ndarray, "n height width"]]


def writer_maps(
    agent: Agent, layer: str, direction: Float[Tensor, "channels"], observations: Observations
) -> dict[str, Float[np.ndarray, "n height width"]]:
    """Split a layer's output along a direction into what each writer adds, position by position.

    Args:
        agent: whose layer.
        layer: a layer with maps as output. A block's writers are the blocks of its stage up to
            it, and the stage's input; any other layer is its own only writer.
        direction: of the layer's output channels, of any norm.
        observations: what the agent sees.

    Returns:
        By the writer's name, in the order of the forward pass, maps that add up to ``u . output``.
        A bias map that was planted is a writer too. In float64.

    Raises:
        ValueError: unknown layer, or a direction of another shape.
    """
    writers, constants = _writers(agent, layer, direction.detach().double().cpu())
    outputs = agent.activations(observations, list(writers))
    maps: dict[str, Float[np.ndarray, "n height width"]] = {}
    for name, pulled in writers.items():
        maps[name] = _along(pulled, outputs[name])
    count = len(observations)
    for name, (pulled, bias) in constants.items():
        maps[f"{name} bias"] = np.repeat(_along(pulled, bias[None]), count, axis=0)
    return maps


def writer_directions(
    agent: Agent, layer: str, direction: Float[Tensor, "channels"]
) -> dict[str, Float[Tensor, "channels"]]:
    """Return the writers of a direction, as in `writer_maps`, each with its own direction ``u_b``.

    Raises:
        ValueError: unknown layer.
    """
    return _writers(agent, layer, direction.detach().double().cpu())[0]


def writer_shares(maps: Maps, counterfactual: Maps | None = None) -> pd.DataFrame:
    """Share out what a direction carries among its writers; the shares of a quantity add up to 1.

    - ``variance``: ``cov(part, total) / var(total)``, over observations at each position, summed
      over positions. Negative where a writer takes back what others write.
    - ``counterfactual difference``: ``<d part, d total> / <d total, d total>`` with ``d`` the
      change from one member of a pair to the other.

    Args:
        maps: from `writer_maps`.
        counterfactual: the same of the pairs' other members, in the same order.

    Returns:
        Columns ``writer``, ``quantity``, ``share``.

    Raises:
        ValueError: the two have other writers or shapes, or a total does not vary at all.
    """
    parts = {name: values - values.mean(0) for name, values in maps.items()}
    rows = _shares(parts, "variance")
    if counterfactual is not None:
        shapes = [{n: v.shape for n, v in side.items()} for side in (maps, counterfactual)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the pairs' maps differ in writers or shapes: {shapes}")
        changes = {name: counterfactual[name] - maps[name] for name in maps}
        rows += _shares(changes, "counterfactual difference")
    return pd.DataFrame(rows)


def _shares(parts: Mapping[str, np.ndarray], quantity: str) -> list[dict[str, str | float]]:
    total = np.sum(list(parts.values()), axis=0)
    size = (total**2).sum()
    if not size:
        raise ValueError(f"the direction's {quantity} is zero: there is nothing to share out")
    return [
        {"writer": name, "quantity": quantity, "share": float((part * total).sum() / size)}
        for name, part in parts.items()
    ]


def _writers(
    agent: Agent, layer: str, direction: Float[Tensor, "channels"]
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Return each writer's name and direction, and the bias maps on the way with theirs."""
    steps = [name for name in agent.layer_names if "." not in name]
    writers: dict[str, Tensor] = {}
    constants: dict[str, tuple[Tensor, Tensor]] = {}
    name = layer
    while True:
        module, inner = agent.layer(name), name
        while isinstance(module, PositionBias) and branch_name(module.layer):
            constants[name] = direction, module.bias
            module, inner = module.layer, f"{inner}.layer"
        branch = branch_name(module)
        if branch is None or name not in steps[1:]:
            writers[name] = direction
            break
        writers[f"{inner}.{branch}"] = direction
        if isinstance(module, BilinearBlock) and module.skip is not None:
            direction = direction @ _skip_matrix(name, module.skip)
        name = steps[steps.index(name) - 1]
    return dict(reversed(writers.items())), constants


def _skip_matrix(name: str, skip: nn.Conv2d) -> Float[Tensor, "channels channels"]:
    if skip.kernel_size != (1, 1) or skip.bias is not None:
        raise ValueError(f"the skip of {name} is not a plain 1x1 convolution but {skip}")
    return skip.weight.detach().cpu().double()[:, :, 0, 0]


def _along(direction: Tensor, outputs: Tensor) -> Float[np.ndarray, "n height width"]:
    if outputs.ndim != 4 or direction.shape != outputs.shape[1:2]:
        raise ValueError(
            f"a direction of shape {tuple(direction.shape)} does not fit outputs of shape "
            f"{tuple(outputs.shape[1:])}: expected maps and one number a channel"
        )
    return torch.einsum("c,nchw->nhw", direction, outputs.detach().cpu().double()).numpy()
