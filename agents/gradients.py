"""Gradient and step norms of a network's layers during training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlbilinear.agents.network import layer_name

Layers = dict[str, list[nn.Parameter]]


def layers_of(policy: nn.Module) -> Layers:
    """Return the weights of each layer that has some, by its name in an `Agent`."""
    weights = {
        layer_name(path): list(layer.parameters(recurse=False))
        for path, layer in policy.named_modules()
    }
    return {name: own for name, own in weights.items() if own}


class GradientNorms:
    """The norms of a network's gradients before they are clipped, seen at every optimiser step.

    The sums that they need are made as the gradients are, and stay on the device but for one
    number a step.

    Raises:
        FloatingPointError: at a step whose gradients are not finite; the weights stay as they were.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, layers: Layers) -> None:
        self._layers = layers
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._column = {weight: index for index, weight in enumerate(weights)}
        self._norms: dict[Tensor, Tensor] = {}
        self._steps: list[Tensor] = []
        for weight in weights:
            weight.register_post_accumulate_grad_hook(self._accumulated)
        optimizer.register_step_pre_hook(self._step)

    def take(self) -> tuple[float, dict[str, float]] | None:
        """Return the means since it was last asked, of the whole and by layer; None of no step."""
        if not self._steps:
            return None
        squares = torch.stack(self._steps).double().square().cpu()
        self._steps.clear()
        columns = {
            name: [self._column[weight] for weight in own] for name, own in self._layers.items()
        }
        means = {name: squares[:, own].sum(1).sqrt().mean().item() for name, own in columns.items()}
        return squares.sum(1).sqrt().mean().item(), means

    def _accumulated(self, weight: Tensor) -> None:
        assert weight.grad is not None
        # a gradient that is added up in parts comes here with each: the last one is whole
        self._norms[weight] = torch.linalg.vector_norm(weight.grad.detach())

    def _step(self, *_: Any) -> None:
        zero = next(iter(self._norms.values())).new_zeros(())
        norms = torch.stack([self._norms.get(weight, zero) for weight in self._column])
        self._norms.clear()
        norm = torch.linalg.vector_norm(norms).item()
        if not norm < torch.inf:
            raise FloatingPointError(f"gradients are not finite (norm {norm})")
        self._steps.append(norms)


def copies(layers: Layers) -> dict[str, Tensor]:
    """Return the weights of each layer as one vector, to be compared with later ones."""
    return {
        name: torch.cat([weight.detach().flatten() for weight in own])
        for name, own in layers.items()
    }


def relative_changes(before: Mapping[str, Tensor], layers: Layers) -> dict[str, float]:
    """Return ``|now - before| / |before|`` of each layer's weights; nan where they were all 0."""
    now = copies(layers)
    return {name: ((now[name] - old).norm() / old.norm()).item() for name, old in before.items()}
