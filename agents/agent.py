"""Agents: a policy that can be asked, taken apart and edited."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor, nn

from rlbilinear.agents.architectures import architecture as lookup
from rlbilinear.agents.network import (
    BODY,
    HEADS,
    AgentConfig,
    build_policy,
    find_device,
    layer_name,
    layer_path,
    settle,
)
from rlbilinear.agents.policy import AgentPolicy
from rlbilinear.agents.saving import save_policy

Observations = UInt8[np.ndarray, "batch 3 64 64"] | UInt8[Tensor, "batch 3 64 64"]
Observation = UInt8[np.ndarray, "3 64 64"] | UInt8[Tensor, "3 64 64"]


class Agent:
    """A policy with its configuration.

    Layers go by their names in the policy's body (``block1``, ``block1.bilinear``, ``dense``); the
    heads are ``action_net`` and ``value_net``.

    Args:
        policy: a policy of one body and two linear heads.
        config: says how the policy was built.

    Raises:
        ValueError: the policy has another body than ``config.architecture``, or a network of its
            own between body and heads.
    """

    def __init__(self, policy: AgentPolicy, config: AgentConfig) -> None:
        body, _ = lookup(config.architecture)
        if policy.features_extractor_class is not body:
            given = getattr(policy.features_extractor_class, "__name__", "?")
            raise ValueError(f"the policy's body is a {given}, not a {config.architecture}")
        if next(policy.mlp_extractor.parameters(), None) is not None:
            raise ValueError("expected a policy with net_arch=[]: heads directly on the body")
        self.policy = policy
        self.config = config

    @classmethod
    def new(
        cls,
        architecture: str,
        *,
        game: str = "maze",
        seed: int = 0,
        device: str | torch.device = "cpu",
        **architecture_kwargs: Any,
    ) -> "Agent":
        """Make an untrained agent; the same seed gives the same weights.

        Raises:
            ValueError: unknown architecture; the message lists the choices.
        """
        config = AgentConfig(architecture, game, architecture_kwargs, made={"seed": seed})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy = build_policy(config)
        return cls(policy.to(find_device(device)), config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.policy.parameters()).device

    @property
    def layer_names(self) -> list[str]:
        """All layers and their parts, in the order of the forward pass."""
        paths = [path for path, _ in self.policy.named_modules() if path.startswith((BODY, *HEADS))]
        return [layer_name(path) for path in paths]

    def layer(self, name: str) -> nn.Module:
        """Return a layer, or a part of one (``block1.bilinear.left``).

        Raises:
            ValueError: no such layer; the message lists them.
        """
        if name not in self.layer_names:
            raise ValueError(f"unknown layer {name!r}; choose from {', '.join(self.layer_names)}")
        return self.policy.get_submodule(layer_path(name))

    def with_layer(self, name: str, module: nn.Module, *, edit: str | None = None) -> "Agent":
        """Return a copy of the agent with a layer replaced; this one stays as it is.

        Args:
            name: the layer.
            module: what takes its place; it is copied, to the agent's device and dtype.
            edit: what was changed, in words, for the configuration's ``edits``.

        Raises:
            ValueError: no such layer, or the module does not fit in its place.
        """
        return self.with_layers({name: module}, edit=edit)

    def with_layers(self, modules: Mapping[str, nn.Module], *, edit: str | None = None) -> "Agent":
        """Return a copy with several layers replaced at once; each alone need not fit.

        Args:
            modules: by the layer's name, what takes its place; as in `with_layer`.
            edit: what was changed, in words, for the configuration's ``edits``.

        Raises:
            ValueError: no such layer, or the modules do not fit in their places.
        """
        kinds = {name: type(module).__name__ for name, module in modules.items()}
        edit = edit or "; ".join(
            f"{name}: {type(self.layer(name)).__name__} replaced by {kind}"
            for name, kind in kinds.items()
        )
        without_graph = {id(self.policy.action_dist): CategoricalDistribution(self.config.actions)}
        policy = copy.deepcopy(self.policy, without_graph)
        like = next(self.policy.parameters())
        for name, module in modules.items():
            self.layer(name)
            parent, _, leaf = layer_path(name).rpartition(".")
            module = copy.deepcopy(module).to(device=like.device, dtype=like.dtype)
            setattr(policy.get_submodule(parent), leaf, module)
        settle(policy)
        edited = Agent(policy, replace(self.config, edits=(*self.config.edits, edit)))
        try:
            edited.logits(np.zeros((1, *self.config.observation_shape), np.uint8))
        except (RuntimeError, TypeError, ValueError) as error:
            what = ", ".join(f"this {kind} does not fit {name}" for name, kind in kinds.items())
            raise ValueError(f"{what}: {error}") from error
        return edited

    def logits(self, observations: Observations, *, batch: int = 128) -> Float[Tensor, "n actions"]:
        """Return the action logits, on the agent's device, ``batch`` observations at a time.

        Raises:
            ValueError: observations of another type or shape.
        """
        with torch.no_grad():
            parts = [self._forward(part)[0] for part in self._batches(observations, batch)]
        return torch.cat(parts)

    def activations(
        self, observations: Observations, layers: Iterable[str], *, batch: int = 128
    ) -> dict[str, Float[Tensor, "n *output"]]:
        """Return the outputs of the named layers, on the agent's device.

        Raises:
            ValueError: unknown layer, one that is no step of the forward pass (the two factors of
                a bilinear convolution run as one), or observations of another type or shape.
        """
        names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
        modules = {name: self.layer(name) for name in names}
        kept: dict[str, list[Tensor]] = {name: [] for name in names}
        with torch.no_grad(), _recording(modules, kept):
            for part in self._batches(observations, batch):
                self._forward(part)
        for name in names:
            if not kept[name]:
                raise ValueError(f"layer {name} has weights but no output of its own")
        return {name: torch.cat(parts) for name, parts in kept.items()}

    def predict(
        self,
        observation: Observations | Observation,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Int[np.ndarray, "*batch"], tuple[np.ndarray, ...] | None]:
        """Choose actions, as Stable-Baselines3's models and policies do.

        So an agent can be given to their ``evaluate_policy``, and to callbacks that ask it.

        Args:
            observation: one or many, channels first, or last as in a gymnasium environment.
            state: of a recurrent policy. Agents have none: it comes back as it is.
            episode_start: for recurrent policies; not looked at.
            deterministic: the likeliest actions instead of sampled ones.
            generator: to sample with; torch's own when None.

        Returns:
            the actions, ``(batch,)``, of one observation ``()``; and ``state``.

        Raises:
            ValueError: observations of another type or shape.
        """
        observations, batched = self._as_batch(observation)
        logits = self.logits(observations).cpu()
        if deterministic:
            actions = logits.argmax(1)
        else:
            actions = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
        return (actions if batched else actions[0]).numpy(), state

    def save(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        dtype: torch.dtype = torch.float32,
        card: str | None = None,
    ) -> None:
        """Write a folder of ``config.json``, ``model.safetensors`` and, if given, ``card.md``.

        Args:
            path: the folder.
            overwrite: replace a checkpoint that is there.
            dtype: how weights are stored; ``torch.float16`` halves the file. They load as float32.
            card: for people: how the agent was made, its scores and baselines.

        Raises:
            FileExistsError: the folder exists.
            ValueError: weights that are not finite in ``dtype``, or a layer of a kind that cannot
                be stored.
        """
        save_policy(self.policy, self.config, path, overwrite=overwrite, dtype=dtype, card=card)

    def _as_batch(self, observation: Observations | Observation) -> tuple[Tensor, bool]:
        """Return observations as a batch, channels first, and whether they were one."""
        channels, height, width = self.config.observation_shape
        tensor = torch.as_tensor(observation)
        if tensor.ndim >= 3 and tensor.shape[-3:] == (height, width, channels) != (
            channels,
            height,
            width,
        ):
            tensor = tensor.movedim(-1, -3)
        return (tensor, True) if tensor.ndim == 4 else (tensor[None], False)

    def _batches(self, observations: Observations, batch: int) -> Iterator[Tensor]:
        tensor = torch.as_tensor(observations)
        shape = self.config.observation_shape
        if tensor.dtype != torch.uint8 or tensor.shape[1:] != shape or not len(tensor):
            raise ValueError(
                f"expected uint8 observations (batch, {', '.join(map(str, shape))}), "
                f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        return (part.to(self.device) for part in tensor.split(batch))

    def _forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        # As the policy's own extract_features, for weights of any dtype: float64 to check edits.
        images = preprocess_obs(observations, self.policy.observation_space)
        assert isinstance(images, Tensor)
        features = self.policy.features_extractor(images.to(next(self.policy.parameters()).dtype))
        return self.policy.action_net(features), self.policy.value_net(features)

    def __repr__(self) -> str:
        edits = "".join(f"\n  {edit}" for edit in self.config.edits)
        return f"Agent({self.config.architecture}, {self.config.game}, {self.device}){edits}"


@contextmanager
def _recording(modules: dict[str, nn.Module], kept: dict[str, list[Tensor]]) -> Iterator[None]:
    def hook(name: str) -> Any:
        return lambda module, inputs, output: kept[name].append(output)

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
