"""Find numbers that are not finite before they become an action or a score.

A bilinear agent is a polynomial of high degree. On images unlike those it learned from it may leave
the range of float32: infinity, then NaN, of which ``argmax`` would make an action.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rlbilinear.agents.network import BODY, HEADS, layer_name, not_finite
from rlbilinear.agents.policy import AgentPolicy


def first_not_finite(policy: AgentPolicy, forward: Callable[[], object]) -> str:
    """Run a policy again, and say in words which layer is the first whose output is not finite.

    Args:
        policy: whose layers are watched, each part before the layer that it is in.
        forward: runs it on what gave numbers that are not finite.
    """
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not found and not output.isfinite().all():
                why = _why(module, inputs)
                found.append(f"{name} is the first layer whose output is not finite, {why}")

        return hook

    handles = [
        module.register_forward_hook(look(layer_name(path)))
        for path, module in policy.named_modules()
        if path.startswith((BODY, *HEADS))
    ]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "looked for again, all layers are finite"


def check_weights(weights: Mapping[str, Tensor], note: str = "") -> None:
    """Raise a ValueError that names the weights, and so the layers, that are not finite."""
    if broken := not_finite(weights):
        raise ValueError(f"weights that are not finite{note}: {', '.join(broken)}")


def _why(module: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    if broken := not_finite(module.state_dict()):
        return f"as are its weights: {', '.join(broken)}"
    largest = max(x.abs().max().item() for x in inputs)
    kind = str(inputs[0].dtype).removeprefix("torch.")
    advice = "" if kind == "float64" else " (Agent.double() computes in float64)"
    return f"its inputs being up to {largest:.2g}, too much for {kind}{advice}"
