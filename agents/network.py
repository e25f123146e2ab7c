"""The network behind an agent as data: its configuration, its layers' names, its weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlbilinear.agents.policy import AgentPolicy

HEADS = ("action_net", "value_net")
BODY = "features_extractor.layers."


@dataclass(frozen=True)
class AgentConfig:
    """What an agent is, apart from its weights; all of it goes to JSON.

    Attributes:
        architecture: a name of :data:`rlbilinear.agents.architectures.ARCHITECTURES`.
        architecture_kwargs: arguments that override the architecture's own.
        game: the ProcGen game it was made for.
        observation_shape: of the uint8 images, (channels, height, width).
        actions: how many.
        made: how it was made: command, seed, levels, frames, hardware, versions, scores.
        edits: what was changed in the weights since, in words.
    """

    architecture: str
    game: str
    architecture_kwargs: dict[str, Any] = field(default_factory=dict)
    observation_shape: tuple[int, int, int] = (3, 64, 64)
    actions: int = 15
    made: dict[str, Any] = field(default_factory=dict)
    edits: tuple[str, ...] = ()


def find_device(device: str | torch.device) -> torch.device:
    """Read ``auto | cpu | cuda | cuda:N | mps``; auto is cuda when there is one, else the cpu.

    Raises:
        ValueError: another text, or a device that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"no device {str(device)!r} here; choose from auto, cpu, cuda, cuda:N, mps"
        ) from error
    return found


def build_policy(config: AgentConfig) -> AgentPolicy:
    """Build the policy with initial weights drawn from torch's generator.

    Raises:
        ValueError: unknown architecture, or arguments it does not accept.
    """
    return AgentPolicy(
        spaces.Box(0, 255, config.observation_shape, np.uint8),
        spaces.Discrete(config.actions),
        lambda _: 0.0,
        architecture=config.architecture,
        architecture_kwargs=config.architecture_kwargs,
    )


def on_meta(config: AgentConfig) -> AgentPolicy:
    """Build the policy without memory, and without drawing a random number."""
    with torch.device("meta"):
        return build_policy(config)


def settle(policy: AgentPolicy) -> None:
    """Bring new weights into the body's memory format, and the optimiser to the weights."""
    policy.features_extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rate = policy.optimizer.defaults["lr"]
    make: Callable[..., torch.optim.Optimizer] = policy.optimizer_class
    policy.optimizer = make(policy.parameters(), lr=rate, **policy.optimizer_kwargs)


def layer_path(name: str) -> str:
    """Return the place in the policy of a layer or weight."""
    return name if name.split(".")[0] in HEADS else BODY + name


def layer_name(path: str) -> str:
    """Return the layer or weight at a place in the policy."""
    return path.removeprefix(BODY)


def weights_of(policy: AgentPolicy) -> dict[str, Tensor]:
    """Return weights and buffers by layer name, each once: the policy lists its body thrice."""
    return {
        layer_name(path): weight
        for path, weight in policy.state_dict().items()
        if path.startswith((BODY, *HEADS))
    }
