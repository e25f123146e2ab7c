"""Interventions in weight space: each returns a new agent, exactly edited, that can be saved.

A direction ``u`` of the stream at a layer's output can be scaled exactly in the weights of

- the layer itself, when what it writes is linear in weights: a convolution's rows, a bilinear
  layer's ``down``, and for a residual block its skip as well, ``I + (factor - 1) u uᵀ``;
- what comes next, when that reads through weights: a convolution, a bilinear layer's ``left`` and
  ``right``, and for a residual block its skip as well.

Both give the same function. Where neither has such weights (a ReLU block, a max-pool before
another pool), the edit is refused.
"""

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear import BilinearConv2d, BilinearLinear, scale_eigenfilters
from rlbilinear.agents import Agent
from rlbilinear.agents.architectures import BilinearBlock
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.agents.network import HEADS
from rlbilinear.checks import as_numbers, check_finite
from rlbilinear.edits.functional import (
    PositionBias,
    add_bias_map,
    project_input,
    scale_output,
    scaling_matrix,
    span,
)

Directions = Float[Tensor, "channels"] | Float[Tensor, "n channels"]
"""One channel direction, of any norm, or several, which stand for what they span."""

Place = Literal["auto", "writer", "reader"]
"""Whose weights are edited: the layer's own, or those of what comes next."""

_WEIGHTED = (nn.Conv2d, nn.Linear, BilinearConv2d, BilinearLinear)


def remove_direction(
    agent: AgentLike,
    layer: str,
    direction: Directions,
    factor: float = 0.0,
    *,
    where: Place = "auto",
) -> Agent:
    """Scale a channel direction of the stream at a layer's output: 0 removes it (necessity).

    Args:
        agent: the agent; it stays as it is.
        layer: at whose output, such as ``pool1`` or ``block3``.
        direction: direction of its channels.
        factor: 0 removes, 1 keeps, -1 flips: the dose.
        where: ``writer`` edits the layer's own weights, ``reader`` those of the layer after it;
            ``auto`` the layer's own where it can. The agents are the same function.

    Raises:
        ValueError: unknown layer, no weights at that place that could do it, or a direction of
            another shape.
    """
    agent = as_agent(agent)
    direction = _directions(direction)
    check_finite(factor=factor)
    if where not in ("auto", "writer", "reader"):
        raise ValueError(f"unknown place {where!r}; choose from auto, writer, reader")
    module = agent.layer(layer)
    if where == "writer" or (where == "auto" and writes_linearly(module)):
        edit = f"{layer}: {_what(direction)} scaled by {factor:g} in its own weights"
        return agent.with_layer(layer, scale_written(module, direction, factor), edit=edit)
    reader, flattened = _next_layer(agent, layer)
    if flattened:
        direction = _over_maps(direction, agent.layer(reader), module_name=reader)
    edit = f"{layer}: {_what(direction)} scaled by {factor:g} in the weights of {reader}"
    edited = scale_read(agent.layer(reader), direction, factor)
    return agent.with_layer(reader, edited, edit=edit)


def only_direction(
    agent: AgentLike,
    layer: str,
    direction: Directions,
    mean: Float[Tensor, "channels height width"],
) -> Agent:
    """Keep only a channel direction of the stream, the rest at its mean (sufficiency).

    The output ``y`` becomes ``P y + (I - P) mean``, ``P`` the projector on the direction: all other
    directions are scaled by 0 about their mean (`scale_about_mean`).

    Args:
        agent: the agent; it stays as it is.
        layer: at whose output.
        direction: direction of its channels.
        mean: mean of the layer's output over other observations.

    Raises:
        ValueError: unknown layer, or a direction or mean of another shape.
    """
    agent = as_agent(agent)
    direction = _directions(direction)
    basis = span(direction)
    rest = torch.eye(basis.shape[1]).to(basis) - basis.T @ basis
    edit = f"{layer}: only {_what(direction)} kept, the rest at its mean"
    return scale_about_mean(agent, layer, rest, 0.0, mean, edit=edit)


def scale_about_mean(
    agent: AgentLike,
    layer: str,
    direction: Directions,
    factor: float,
    mean: Float[Tensor, "channels height width"],
    *,
    edit: str | None = None,
) -> Agent:
    """Scale how far the stream departs from its mean along a direction (necessity, dose).

    The output ``y`` becomes ``mean + (I + (factor - 1) P)(y - mean)``, ``P`` the projector on the
    direction: 0 leaves the mean there, so that what is removed is the direction's message and not
    its level, which later layers rely on. The layer's own weights are scaled where it writes
    linearly; any other is followed by a 1x1 convolution. The mean is a position-dependent bias.

    Args:
        agent: the agent; it stays as it is.
        layer: at whose output.
        direction: direction of its channels.
        factor: 0 ablates, 1 keeps, -1 flips.
        mean: mean of the layer's output over other observations.
        edit: what was changed, in words.

    Raises:
        ValueError: unknown layer, or a direction or mean of another shape.
    """
    agent = as_agent(agent)
    direction, mean = _directions(direction), as_numbers(mean, "a mean")
    scaling = scaling_matrix(direction, factor)
    edit = edit or f"{layer}: {_what(direction)} scaled by {factor:g} about its mean"
    if mean.ndim != 3 or len(mean) != len(scaling) or not mean.isfinite().all():
        raise ValueError(
            f"expected a finite mean (channels, height, width) of {len(scaling)} channels, "
            f"got shape {tuple(mean.shape)}"
        )
    module = agent.layer(layer)
    if writes_linearly(module):
        scaled = scale_written(module, direction, factor)
    else:
        scaled = nn.Sequential(copy.deepcopy(module), _pointwise(scaling))
    kept = torch.eye(len(scaling)).to(scaling) - scaling
    bias = einsum(kept, mean.to(scaling), "c d, d h w -> c h w")
    return agent.with_layer(layer, add_bias_map(scaled, bias), edit=edit)


def scale_writer(
    agent: AgentLike, layer: str, direction: Float[Tensor, "channels"], factors: Mapping[int, float]
) -> Agent:
    """Scale eigenfilters of a direction in one bilinear layer (of a block, its bilinear branch).

    Args:
        agent: the agent; it stays as it is.
        layer: the block or bilinear layer.
        direction: direction of its output channels.
        factors: index into the direction's spectrum to factor; 0 ablates, -1 flips.

    Raises:
        ValueError: no bilinear layer there, an index beyond the rank, or a direction of another
            shape.
    """
    agent = as_agent(agent)
    name, module = bilinear_part(agent, layer)
    edited = scale_eigenfilters(module, direction, factors)
    each = [(index, f"{factor:g}") for index, factor in sorted(factors.items())]
    if len(each) > 1 and each == [(index, each[0][1]) for index in range(len(each))]:
        scaled = f"0 to {len(each) - 1}: {each[0][1]}"
    else:
        scaled = ", ".join(f"{index}: {factor}" for index, factor in each)
    edit = f"{name}: eigenfilters of a direction scaled, {{{scaled}}}"
    return agent.with_layer(name, edited, edit=edit)


def project_reader(
    agent: AgentLike, layer: str, direction: Directions, factor: float = 0.0
) -> Agent:
    """Scale a direction in what one bilinear layer reads; a block's skip still carries it.

    Args:
        agent: the agent; it stays as it is.
        layer: the block or bilinear layer. For the dense layer after the trunk the direction may be
            one of channels, which then is scaled at every position.
        direction: direction of its input channels.
        factor: 0 makes the layer blind to the direction.

    Raises:
        ValueError: no bilinear layer there, or a direction of another shape.
    """
    agent = as_agent(agent)
    name, module = bilinear_part(agent, layer)
    direction = _directions(direction)
    check_finite(factor=factor)
    if isinstance(module, BilinearLinear) and direction.shape[-1] != module.in_features:
        direction = _over_maps(direction, module, module_name=name)
    edit = f"{name}: reads {_what(direction)} scaled by {factor:g}"
    return agent.with_layer(name, project_input(module, direction, factor), edit=edit)


def steer(agent: AgentLike, layer: str, bias: Float[Tensor, "channels height width"]) -> Agent:
    """Add a position-dependent bias to a layer's output: plant a concept at a place, or erase it.

    Raises:
        ValueError: unknown layer, or a bias not finite or of another shape than its output.
    """
    agent = as_agent(agent)
    bias = 1.0 * as_numbers(bias, "a bias")  # floating, of whatever kind it was
    edit = f"{layer}: bias map of norm {float(bias.norm()):.4g} added"
    return agent.with_layer(layer, add_bias_map(agent.layer(layer), bias), edit=edit)


def bilinear_part(agent: AgentLike, layer: str) -> tuple[str, BilinearConv2d | BilinearLinear]:
    """Return the bilinear layer that is, or is the branch of, the named one, and its own name.

    Raises:
        ValueError: unknown layer, or there is none.
    """
    agent = as_agent(agent)
    module, name = agent.layer(layer), layer
    while isinstance(module, PositionBias):
        module, name = module.layer, f"{name}.layer"
    if isinstance(module, BilinearBlock):
        return f"{name}.bilinear", module.bilinear
    if isinstance(module, BilinearConv2d | BilinearLinear):
        return name, module
    bilinear = (BilinearBlock, BilinearConv2d, BilinearLinear)
    choices = [name for name in agent.layer_names if isinstance(agent.layer(name), bilinear)]
    raise ValueError(
        f"{layer} is a {type(module).__name__}, not bilinear; choose from "
        f"{', '.join(choices) or '(this agent has no bilinear layer)'}"
    )


def writes_linearly(module: nn.Module) -> bool:
    """Whether a linear map of the layer's output can be made in its own weights."""
    if isinstance(module, PositionBias):
        return writes_linearly(module.layer)
    return isinstance(module, (*_WEIGHTED, BilinearBlock))


def scale_written(module: nn.Module, direction: Directions, factor: float) -> nn.Module:
    """Return the layer with a direction of its output scaled, in its own weights.

    Raises:
        ValueError: the layer has no weights that could do it.
    """
    if isinstance(module, PositionBias):
        scaling = scaling_matrix(direction, factor)
        bias = einsum(scaling, module.bias.to(scaling), "c d, d ... -> c ...")
        return PositionBias(scale_written(module.layer, direction, factor), bias.to(module.bias))
    if isinstance(module, BilinearBlock):
        edited = copy.deepcopy(module)
        edited.bilinear = scale_output(module.bilinear, direction, factor)
        edited.skip = scale_output(_explicit_skip(module), direction, factor)
        return edited
    if isinstance(module, _WEIGHTED):
        return scale_output(module, direction, factor)
    raise ValueError(
        f"a {type(module).__name__} does not write through weights; edit what reads it instead"
    )


def scale_read(module: nn.Module, direction: Directions, factor: float) -> nn.Module:
    """Return the layer with a direction of its input scaled, in its weights.

    Raises:
        ValueError: the layer does not read through weights alone.
    """
    if isinstance(module, PositionBias):
        return PositionBias(scale_read(module.layer, direction, factor), module.bias.clone())
    if isinstance(module, BilinearBlock):
        edited = copy.deepcopy(module)
        edited.bilinear = project_input(module.bilinear, direction, factor)
        edited.skip = project_input(_explicit_skip(module), direction, factor)
        return edited
    if isinstance(module, _WEIGHTED):
        return project_input(module, direction, factor)
    raise ValueError(
        f"the next layer is a {type(module).__name__}, which does not read through weights alone, "
        "so scaling a direction before it cannot be an edit of weights; choose another layer, or "
        "scale the activation with rlbilinear.probes.interventions"
    )


def _explicit_skip(block: BilinearBlock) -> nn.Conv2d:
    if block.skip is not None:
        return block.skip
    weight = block.bilinear.left.weight
    return _pointwise(torch.eye(block.bilinear.in_channels).to(weight))


def _pointwise(matrix: Float[Tensor, "outputs inputs"]) -> nn.Conv2d:
    """Make a 1x1 convolution, without bias, of a matrix."""
    with torch.device("meta"):  # no random numbers drawn
        conv = nn.Conv2d(matrix.shape[1], matrix.shape[0], 1, bias=False)
    conv.load_state_dict({"weight": matrix[:, :, None, None].clone()}, assign=True)
    return conv


def _next_layer(agent: Agent, layer: str) -> tuple[str, bool]:
    """Return the layer that reads this one's output, and whether maps are flattened on the way."""
    steps = [name for name in agent.layer_names if "." not in name and name not in HEADS]
    if layer not in steps[:-1]:
        raise ValueError(
            f"{layer} is not read by one layer of the body; choose from {', '.join(steps[:-1])}"
        )
    reader = steps[steps.index(layer) + 1]
    if isinstance(agent.layer(reader), nn.Flatten):
        return _next_layer(agent, reader)[0], True
    return reader, False


def _over_maps(direction: Directions, reader: nn.Module, *, module_name: str) -> Tensor:
    """Lift channel directions to the flattened map: each at every position.

    Raises:
        ValueError: the reader's inputs are not a whole number of positions.
    """
    basis = span(direction)
    channels = basis.shape[1]
    inputs = getattr(reader, "in_features", 0)
    if not inputs or inputs % channels:
        raise ValueError(
            f"{module_name} has {inputs} inputs: no flattened maps of {channels} channels"
        )
    positions = torch.eye(inputs // channels).to(basis)
    return einsum(basis, positions, "k c, p q -> k p c q").reshape(-1, inputs)


def _directions(direction: object) -> Tensor:
    """Return one direction or several as a tensor.

    Raises:
        ValueError: it is neither.
    """
    found = as_numbers(direction, "a direction")
    if found.ndim not in (1, 2):
        raise ValueError(
            f"expected a direction (channels,), or several as (n, channels); got shape "
            f"{tuple(found.shape)}"
        )
    return found


def _what(direction: Directions) -> str:
    count = 1 if direction.ndim == 1 else len(direction)
    return "a direction" if count == 1 else f"{count} directions"
