"""The network behind an agent as data: its configuration, its layers' names, its weights."""

import copy
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from torch import Tensor, nn

from rlbilinear.agents.architectures import architecture as lookup
from rlbilinear.agents.policy import AgentPolicy
from rlbilinear.checks import check_whole, check_whole_each
from rlbilinear.envs.games import check_game

M = TypeVar("M", bound=nn.Module)

DEVICES = "auto, cpu, cuda, cuda:N, mps"
HEADS = ("action_net", "value_net")
BODY = "features_extractor.layers."

HOOKS = frozenset(
    f"_{when}{how}"
    for when in ("forward", "forward_pre", "backward", "backward_pre")
    for how in ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
)
"""Where PyTorch's modules keep what was registered to be called with them."""


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

    Raises:
        ValueError: an architecture, option of it or game that there is not; or a value of another
            kind, or that JSON does not hold.
    """

    architecture: str
    game: str
    architecture_kwargs: dict[str, Any] = field(default_factory=dict)
    observation_shape: tuple[int, int, int] = (3, 64, 64)
    actions: int = 15
    made: dict[str, Any] = field(default_factory=dict)
    edits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("architecture_kwargs", "made"):
            _check_json(name, getattr(self, name))
        lookup(self.architecture, **self.architecture_kwargs)
        if not isinstance(self.game, str):
            raise ValueError(f"game must be the name of one, got {self.game!r}")
        check_game(self.game)
        check_whole_each(observation_shape=self.observation_shape)
        if not isinstance(self.observation_shape, tuple) or len(self.observation_shape) != 3:
            raise ValueError(
                "observation_shape must be a tuple (channels, height, width), "
                f"got {self.observation_shape!r}"
            )
        check_whole(actions=self.actions)
        if not isinstance(self.edits, tuple) or not all(isinstance(e, str) for e in self.edits):
            raise ValueError(f"edits must be a tuple of texts, got {self.edits!r}")


def find_device(device: str | torch.device) -> torch.device:
    """Read ``auto | cpu | cuda | cuda:N | mps``; auto is cuda when there is one, else the cpu.

    Raises:
        ValueError: another text, or a device that is not there.
    """
    if not isinstance(device, str | torch.device):
        raise ValueError(f"expected a device by name, got {device!r}; choose from {DEVICES}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {str(device)!r} here; choose from {DEVICES}") from error
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


def check_policy(policy: AgentPolicy, config: AgentConfig) -> None:
    """Raise a ValueError unless the policy is what the configuration says, and no more than that.

    An agent is one body and two linear heads that see uint8 images divided by 255. A policy with
    anything else, a network in between, a body of its own for the critic, observations normalised
    by other numbers, would become an agent that acts differently.
    """
    body, _ = lookup(config.architecture)
    if policy.features_extractor_class is not body:
        given = getattr(policy.features_extractor_class, "__name__", "?")
        raise ValueError(f"the policy's body is a {given}, not a {config.architecture}")
    check_shared(policy)
    check_spaces(policy)
    shape, actions = tuple(policy.observation_space.shape or ()), int(policy.action_space.n)  # type: ignore[attr-defined]
    if (shape, actions) != (config.observation_shape, config.actions):
        raise ValueError(
            f"the policy takes observations {shape} and has {actions} actions, its configuration "
            f"says {config.observation_shape} and {config.actions}"
        )
    for name, outputs in zip(HEADS, (config.actions, 1), strict=True):
        head = getattr(policy, name)
        if isinstance(head, nn.Linear) and head.out_features != outputs:
            raise ValueError(f"{name} has {head.out_features} outputs, expected {outputs}")


def check_shared(policy: AgentPolicy) -> None:
    """Raise a ValueError unless both heads lie directly on one body."""
    if next(policy.mlp_extractor.parameters(), None) is not None:
        raise ValueError("expected a policy with net_arch=[]: heads directly on the body")
    if not policy.share_features_extractor:
        raise ValueError(
            "expected one body for both heads, got a policy with share_features_extractor=False: "
            "the critic's own body would be lost"
        )


def check_spaces(policy: AgentPolicy) -> None:
    """Raise a ValueError unless the policy divides uint8 images by 255 and chooses an action."""
    space = policy.observation_space
    images = isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3
    if not images or not (space.low == 0).all() or not (space.high == 255).all():  # type: ignore[attr-defined]
        raise ValueError(
            f"expected observations that are uint8 images from 0 to 255, got {space}; a model "
            "trained on normalised ones (VecNormalize's norm_obs) would act differently as an agent"
        )
    if not policy.normalize_images:
        raise ValueError(
            "expected a policy that divides images by 255, got one with normalize_images=False"
        )
    if not isinstance(policy.action_space, spaces.Discrete) or policy.action_space.start != 0:
        raise ValueError(f"expected discrete actions from 0 on, got {policy.action_space}")


def check_outputs(policy: AgentPolicy, config: AgentConfig) -> None:
    """Run the network on a black image: its layers fit each other and the configuration.

    On the meta device nothing is computed.

    Raises:
        ValueError: layers that do not fit each other, or heads with other numbers of outputs than
            the configuration's actions and one value.
    """
    weight = next(policy.parameters())
    image = torch.zeros(1, *config.observation_shape).to(weight)
    try:
        with torch.no_grad():
            features = policy.features_extractor(image)
            shapes = {name: tuple(getattr(policy, name)(features).shape) for name in HEADS}
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"layers do not fit each other: {error}") from error
    for name, outputs in zip(HEADS, (config.actions, 1), strict=True):
        if shapes[name] != (1, outputs):
            raise ValueError(f"{name} has outputs of shape {shapes[name][1:]}, expected {outputs}")


def copied(module: M) -> M:
    """Copy a module without the hooks on it, and a policy without its last call's graph.

    A hook is what somebody looks at a module with, not a part of it; in a copy nobody would remove
    it. The graph, which a policy's distribution holds after gradients were asked for, is none that
    PyTorch could copy.
    """
    memo: dict[int, Any] = {
        id(hooks): OrderedDict()
        for part in module.modules()
        for name, hooks in vars(part).items()
        if name in HOOKS
    }
    for part in module.modules():
        distribution = getattr(part, "action_dist", None)
        if isinstance(distribution, CategoricalDistribution):
            memo[id(distribution)] = CategoricalDistribution(distribution.action_dim)
    return copy.deepcopy(module, memo)


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
    """Return weights and buffers by layer name, each once; the policy lists its body thrice."""
    return {
        layer_name(path): weight
        for path, weight in policy.state_dict().items()
        if path.startswith((BODY, *HEADS))
    }


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the weights that hold NaN or infinity."""
    return [name for name, weight in weights.items() if not weight.isfinite().all()]


def _check_json(name: str, value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} must be a dictionary with names as keys, got {value!r}")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be what JSON holds: {error}") from error
