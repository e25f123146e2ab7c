"""Edits of whole agents: mirrored in space, and layers taken from another agent."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.agents.agent import Agent
from rlbilinear.agents.architectures import BilinearBlock, ProductBlock, ReluBlock
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.edits import Edit, Placed, Transplant
from rlbilinear.edits.functional import Axis, PositionBias, mirror_layer

SWAPPED_ACTIONS: dict[Axis, tuple[int, ...]] = {
    "horizontal": (6, 7, 8, 3, 4, 5, 0, 1, 2, 9, 10, 11, 12, 13, 14),
    "vertical": (2, 1, 0, 5, 4, 3, 8, 7, 6, 9, 10, 11, 12, 13, 14),
}
"""Which of ProcGen's 15 actions is another's mirror image: its direction keys mirrored."""

Maps = tuple[int, int, int]


@dataclass(frozen=True, repr=False)
class Mirror(Edit):
    """Mirror an agent: in a mirrored world it does the mirror image of what it did.

    ``mirror(agent).logits(flip(observation))`` are the agent's logits of ``observation`` with the
    actions swapped (`SWAPPED_ACTIONS`), and the values are the same. On observations that are not
    flipped, an agent that prefers the top right prefers the top left. Exact, as weights: kernels
    are flipped, the dense layer reads the maps mirrored, the head's rows are swapped; where a
    stride makes windows lie differently from the other side, `mirror_layer` moves them.

    Applying it twice gives the same function as the agent itself.
    """

    axis: Axis = "horizontal"

    def __call__(self, target: AgentLike) -> Agent:
        """Mirror the agent.

        Raises:
            TypeError: it has a layer of a kind that cannot be mirrored.
            ValueError: an unknown axis, other actions than ProcGen's 15, or a pool whose windows
                cannot lie mirrored.
        """
        target = as_agent(target)
        if self.axis not in SWAPPED_ACTIONS:
            raise ValueError(
                f"unknown axis {self.axis!r}; choose from {', '.join(SWAPPED_ACTIONS)}"
            )
        swapped = SWAPPED_ACTIONS[self.axis]
        if target.config.actions != len(swapped):
            raise ValueError(f"expected ProcGen's 15 actions, got {target.config.actions}")
        head = copy.deepcopy(target.layer("action_net"))
        assert isinstance(head, nn.Linear)
        order = list(swapped)
        head.weight = nn.Parameter(head.weight.detach()[order].clone())
        head.bias = nn.Parameter(head.bias.detach()[order].clone())
        body = target.policy.features_extractor.layers
        assert isinstance(body, nn.Sequential)
        image = torch.zeros(1, *target.config.observation_shape).to(head.weight)
        steps = _mirrored_steps(body, image, target.config.observation_shape, self.axis)
        return target.with_layers(steps | {"action_net": head}, edit=str(self))

    def inverse(self) -> Mirror:
        """Mirror again."""
        return self

    def __str__(self) -> str:
        sides = {"horizontal": "left and right", "vertical": "up and down"}
        return f"mirrored: {sides.get(self.axis, self.axis)} swapped"


def transplant(
    donor: AgentLike,
    layer: str,
    direction: Float[Tensor, "*several outputs"] | None = None,
    *,
    name: str = "another agent",
) -> Placed:
    """Return the edit that takes a layer, or what it writes along directions, from a donor.

    Args:
        donor: an agent whose layer has the same shape.
        layer: its name, in both agents.
        direction: ``(outputs,)`` or ``(n, outputs)``; the whole layer when None.
        name: the donor's, in words.

    Raises:
        ValueError: the donor has no such layer.
    """
    donor = as_agent(donor)
    return Transplant(donor.layer(layer), direction, f"{name}'s {layer}").at(layer)


def _mirrored_steps(
    steps: nn.Sequential, x: Tensor, maps: Maps, axis: Axis
) -> dict[str, nn.Module]:
    """Mirror each step; ``x`` is what the first one gets, ``maps`` its shape before flattening."""
    mirrored = {}
    for name, step in steps.named_children():
        mirrored[name] = _mirrored(step, x, maps, axis)
        with torch.no_grad():
            y = step(x)
        if y.ndim == 4:
            maps = (y.shape[1], y.shape[2], y.shape[3])
        elif x.ndim == 2 and not isinstance(step, nn.ReLU):  # a dense layer: no maps from here on
            maps = (y.shape[1], 1, 1)
        x = y
    return mirrored


def _mirrored(module: nn.Module, x: Tensor, maps: Maps, axis: Axis) -> nn.Module:
    if isinstance(module, PositionBias):
        side = {"vertical": -2, "horizontal": -1}[axis]
        bias = module.bias.flip(side) if module.bias.ndim == 3 else module.bias.clone()
        return PositionBias(_mirrored(module.layer, x, maps, axis), bias)
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*_mirrored_steps(module, x, maps, axis).values())
    if isinstance(module, (BilinearBlock, ProductBlock, ReluBlock)):
        edited = copy.deepcopy(module)
        for name, part in module.named_children():  # all of stride 1, on maps of one size
            setattr(edited, name, _mirrored(part, x, maps, axis))
        return edited
    return mirror_layer(module, maps, axis)
