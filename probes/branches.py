"""The branch of a residual block: what it writes as forms, and eigenfilters added to it.

A bilinear block's branch is one bilinear layer. That of a ReLU block's quadratic surrogate is a
bilinear convolution and a convolution after it: one quadratic form of a larger receptive field,
whose eigenfilters are exact but for the outermost positions, where the second convolution is
padded.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear import BilinearConv2d, Eigenfilters, GatedLinear, approximate, eigenfilters
from rlbilinear.agents import Agent
from rlbilinear.agents.architectures import BilinearBlock
from rlbilinear.agents.network import HEADS
from rlbilinear.agents.residual import Residual, Sum
from rlbilinear.edits.functional import write_eigenfilters


def branch_name(block: nn.Module) -> str | None:
    """Return the name that a residual block's branch has in it; None for others."""
    if isinstance(block, BilinearBlock):
        return "bilinear"
    return list(block._modules)[-1] if isinstance(block, Residual) and len(block) else None


def feeds(agent: Agent) -> Iterator[str]:
    """Yield the layers inside residual blocks that feed the branch."""
    for name in steps(agent):
        module = agent.layer(name)
        if isinstance(module, Residual) and len(module) > 1:
            yield f"{name}.{list(module._modules)[-2]}"


def feed(agent: Agent, branch: str) -> str:
    """Return the layer that feeds a branch: inside its block, or the step before it."""
    block = branch.split(".")[0]
    inside = [name for name in feeds(agent) if name.startswith(f"{block}.")]
    names = steps(agent)
    return inside[0] if inside else names[names.index(block) - 1]


def steps(agent: Agent) -> list[str]:
    """Return the steps of the forward pass."""
    return [name for name in agent.layer_names if "." not in name and name not in HEADS]


def branch_filters(module: nn.Module, direction: Float[Tensor, "channels"]) -> Eigenfilters | None:
    """Return the eigenfilters by which a branch writes a direction; None if not quadratic."""
    if isinstance(module, BilinearConv2d):
        return eigenfilters(module, direction)
    if type(module) is not nn.Sequential or len(module) != 2:
        return None
    first, last = module
    if not isinstance(first, BilinearConv2d) or not isinstance(last, nn.Conv2d):
        return None
    if first.down is not None:
        return None
    whole = GatedLinear(first.left, first.right, last, "identity")
    return approximate(whole, 2).eigenfilters(direction)


def padded_margin(module: nn.Module) -> int:
    """Return how many outermost positions of a branch's map its forms are not exact at.

    There the convolution after the hidden units sees padding.
    """
    if isinstance(module, BilinearConv2d):
        return 0
    last = [part for part in module.modules() if isinstance(part, nn.Conv2d)][-1]
    return max(size for size in last.padding if isinstance(size, int))


def add_filters(
    module: nn.Module,
    direction: Float[Tensor, "channels"],
    values: Float[Tensor, "k"],
    filters: Eigenfilters,
) -> nn.Module:
    """Return a branch that adds ``sum_i values_i (filters_i * x)²`` along a direction.

    In a bilinear layer that is more hidden units; any other branch gets a bilinear convolution
    beside it.

    Args:
        module: the branch.
        direction: of its output channels.
        values: one for each of the first filters.
        filters: of what feeds the branch.
    """
    chosen = filters.filters[: len(values)]
    if isinstance(module, BilinearConv2d):
        return write_eigenfilters(module, direction, values, chosen)
    channels, size = filters.filters.shape[1], tuple(filters.filters.shape[2:])
    blank = BilinearConv2d(
        channels,
        len(direction),
        (int(size[0]), int(size[1])),
        hidden_channels=1,
        stride=filters.stride,
        padding=filters.padding,
        dilation=filters.dilation,
    )
    with torch.no_grad():
        for weight in blank.parameters():
            weight.zero_()
    return Sum(module, write_eigenfilters(blank, direction, values, chosen))
