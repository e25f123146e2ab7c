"""Agents: a policy that can be asked, taken apart and edited."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor, nn

from rlbilinear.agents import hub_push, to_onnx, to_zip
from rlbilinear.agents.finite import check_weights, first_not_finite
from rlbilinear.agents.hub import HubAddress
from rlbilinear.agents.network import (
    BODY,
    HEADS,
    AgentConfig,
    build_policy,
    check_outputs,
    check_policy,
    copied,
    find_device,
    layer_name,
    layer_path,
    settle,
)
from rlbilinear.agents.policy import AgentPolicy
from rlbilinear.agents.recording import recorded_outputs
from rlbilinear.agents.saving import save_policy
from rlbilinear.checks import as_numbers, check_whole
from rlbilinear.envs.games import LARGEST_SEED

Observations = UInt8[np.ndarray, "batch 3 64 64"] | UInt8[Tensor, "batch 3 64 64"]
Observation = UInt8[np.ndarray, "3 64 64"] | UInt8[Tensor, "3 64 64"]


class Agent:
    """A policy with its configuration.

    Layers go by their names in the policy's body (``block1``, ``block1.bilinear``, ``dense``); the
    heads are ``action_net`` and ``value_net``.

    Numbers that are not finite never become actions: what cannot be answered is a
    FloatingPointError that names the layer where they first appear. A copy (``copy.deepcopy``, a
    pickle, or by `with_layer`) has none of the hooks that were registered on this agent's layers.

    Args:
        policy: a policy of one body and two linear heads.
        config: says how the policy was built.

    Raises:
        ValueError: the policy is not what the configuration says, or has more than a body and two
            heads that see images divided by 255: a network in between, a body of its own for the
            critic, normalised observations.
    """

    def __init__(self, policy: AgentPolicy, config: AgentConfig) -> None:
        check_policy(policy, config)
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
            ValueError: unknown architecture, option of it, game or device, of which the message
                lists the choices, or a seed that is not a whole number in 0..2**31 - 1.
        """
        check_whole(0, seed=seed)
        if seed > LARGEST_SEED:
            raise ValueError(f"seed must be in 0..{LARGEST_SEED}, got {seed}")
        config = AgentConfig(architecture, game, architecture_kwargs, made={"seed": int(seed)})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy = build_policy(config)
        return cls(policy.to(find_device(device)), config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.policy.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights, in which all is computed: float32, or float64."""
        return next(self.policy.parameters()).dtype

    def double(self) -> "Agent":
        """Return a copy that computes in float64: the same polynomial, on a far larger range.

        Logits beyond 3e38, which bilinear agents have on images unlike those they learned from, are
        finite up to 1.8e308. It is several times slower (docs/numeric-range.md).
        Stable-Baselines3's own functions, for training too, want a float32 policy. `save` stores
        float32 unless told otherwise.
        """
        policy = copied(self.policy).double()
        settle(policy)
        return Agent(policy, self.config)

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
        try:
            return self.policy.get_submodule(layer_path(name))
        except AttributeError as error:
            raise ValueError(
                f"unknown layer {name!r}; choose from {', '.join(self.layer_names)}"
            ) from error

    def with_layer(self, name: str, module: nn.Module, *, edit: str | None = None) -> "Agent":
        """Return a copy of the agent with a layer replaced; this one stays as it is.

        Args:
            name: the layer.
            module: what takes its place; it is copied, to the agent's device and dtype.
            edit: what was changed, in words, for the configuration's ``edits``.

        Raises:
            TypeError: what takes the layer's place is not a module.
            ValueError: no such layer, a module that does not fit in its place, or weights that are
                not finite.
        """
        self.layer(name)
        return self.with_layers({name: module}, edit=edit)

    def with_layers(self, modules: Mapping[str, nn.Module], *, edit: str | None = None) -> "Agent":
        """Return a copy with several layers replaced at once; each alone need not fit.

        Args:
            modules: by the layer's name, what takes its place; as in `with_layer`.
            edit: what was changed, in words, for the configuration's ``edits``.

        Raises:
            TypeError: what takes a layer's place is not a module.
            ValueError: no such layer, modules that do not fit in their places, or weights that are
                not finite.
        """
        if not isinstance(modules, Mapping):
            raise TypeError(f"expected modules by the names of layers, got {modules!r}")
        for name, module in modules.items():
            self.layer(name)
            if not isinstance(module, nn.Module):
                raise TypeError(f"expected a module in the place of {name}, got {module!r}")
        kinds = {name: type(module).__name__ for name, module in modules.items()}
        edit = edit or "; ".join(
            f"{name}: {type(self.layer(name)).__name__} replaced by {kind}"
            for name, kind in kinds.items()
        )
        policy = copied(self.policy)
        for name, module in modules.items():
            parent, _, leaf = layer_path(name).rpartition(".")
            module = copied(module).to(device=self.device, dtype=self.dtype)
            check_weights(module.state_dict(), f" in the new {name}")
            setattr(policy.get_submodule(parent), leaf, module)
        settle(policy)
        try:
            check_outputs(policy, self.config)
        except ValueError as error:
            what = ", ".join(f"this {kind} does not fit {name}" for name, kind in kinds.items())
            raise ValueError(f"{what}: {error}") from error
        return Agent(policy, replace(self.config, edits=(*self.config.edits, edit)))

    def logits(
        self, observations: Observations, *, batch: int = 128, check_finite: bool = True
    ) -> Float[Tensor, "n actions"]:
        """Return the action logits, on the agent's device.

        Args:
            observations: uint8 images.
            batch: how many go through the network at a time.
            check_finite: False returns logits that are not finite as they are, to be counted.

        Raises:
            ValueError: observations of another type or shape.
            FloatingPointError: logits are not finite; the first layer that is not is named.
        """
        with torch.no_grad():
            parts = [self._forward(part)[0] for part in self._batches(observations, batch)]
            logits = torch.cat(parts)
        if check_finite:
            self._check_finite("logits", logits, observations, batch)
        return logits

    def activations(
        self,
        observations: Observations,
        layers: Iterable[str],
        *,
        batch: int = 128,
        check_finite: bool = True,
    ) -> dict[str, Float[Tensor, "n *output"]]:
        """Return the outputs of the named layers, on the agent's device.

        Args:
            observations: uint8 images.
            layers: names, or one name.
            batch: how many observations go through the network at a time.
            check_finite: False returns outputs that are not finite as they are, to be counted.

        Raises:
            ValueError: unknown layer, one that is not a step of the forward pass (the two factors
                of a bilinear convolution run as one), or observations of another type or shape.
            FloatingPointError: outputs of these layers are not finite; the first layer that is not
                is named.
        """
        if not isinstance(layers, Iterable):
            raise ValueError(f"expected the names of layers, got {layers!r}")
        names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
        modules = {name: self.layer(name) for name in names}
        with torch.no_grad():
            outputs, doubtful = recorded_outputs(
                modules, self._forward, self._batches(observations, batch), len(observations)
            )
        if check_finite:
            for name in doubtful:
                self._check_finite(f"outputs of {name}", outputs[name], observations, batch)
        return outputs

    def predict(
        self,
        observation: Observations | Observation | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Int[np.ndarray, "*batch"], tuple[np.ndarray, ...] | None]:
        """Choose actions, as Stable-Baselines3's models and policies do.

        So an agent can be given to their ``evaluate_policy``, and to callbacks that ask it.

        Args:
            observation: one or many, channels first, or last as in a gymnasium environment. A
                dictionary, which their interface allows, is refused.
            state: of a recurrent policy. Agents have none: it comes back as it is.
            episode_start: for recurrent policies; not looked at.
            deterministic: the most likely actions instead of sampled ones.
            generator: to sample with; torch's own when None.

        Returns:
            the actions, ``(batch,)``, of one observation ``()``; and ``state``.

        Raises:
            ValueError: observations of another type or shape.
            FloatingPointError: logits are not finite; the first layer that is not is named.
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
            dtype: how weights are stored: float16, bfloat16, float32 or float64. They load as
                float32, unless `load` is told otherwise.
            card: for people: how the agent was made, its scores and baselines.

        Raises:
            FileExistsError: the folder exists.
            ValueError: another ``dtype``, weights that are not finite in it, a layer of a kind that
                cannot be stored, or sizes that contradict the configuration.
        """
        save_policy(self.policy, self.config, path, overwrite=overwrite, dtype=dtype, card=card)

    def push_to_hub(
        self,
        repository: str,
        *,
        revision: str = "main",
        private: bool = False,
        dtype: torch.dtype = torch.float32,
        card: str | None = None,
        license: str = "mit",
    ) -> HubAddress:
        """Put the agent on the Hugging Face Hub, in one commit: safetensors, JSON and a card.

        It goes where `rlbilinear.agents.hub` says: to the public Hub, another server of its
        protocol, or a folder. huggingface_hub finds the token (``hf auth login``, ``HF_TOKEN``).

        Args:
            repository: ``owner/name``; made if it does not exist.
            revision: the branch; made if it does not exist.
            private: whether a new repository is.
            dtype: how weights are stored, see `save`.
            card: text for people; written from what is recorded of the agent when None.
            license: of the weights, as the Hub abbreviates it.

        Returns:
            The address with commit and hash, whose text `rlbilinear.agents.load` takes.

        Raises:
            ImportError: huggingface_hub is not installed.
            OSError: the server cannot be reached, or refuses.
            ValueError: another form of repository or revision; or as `save`.
        """
        return hub_push.push(
            self,
            repository,
            revision=revision,
            private=private,
            dtype=dtype,
            card=card,
            license=license,
        )

    def to_sb3(self, path: str | Path) -> Path:
        """Write a zip that Stable-Baselines3's ``PPO.load(path)`` reads: the same actions, float32.

        **Such a file holds pickles: whoever opens it runs the code in it.** Use it in your own
        programs; to share an agent, `push_to_hub` and `save` write files without code.

        The model can be trained on: ``PPO.load(path, env=env)``. Its hyperparameters are
        Stable-Baselines3's defaults. An edited agent keeps its edited layers. rlbilinear must be
        installed where it is loaded.

        Args:
            path: the file; ``.zip`` is added if it is not there.

        Returns:
            The file.

        Raises:
            FileExistsError: it exists.
            FileNotFoundError: its folder does not.
            ValueError: a layer of a kind that cannot be stored.
        """
        return to_zip.write_zip(self, path)

    def to_onnx(self, path: str | Path) -> Path:
        """Write an ONNX file, after a check with onnxruntime: for programs without PyTorch.

        Its input is ``observations``, uint8 ``(n, channels, height, width)``; its outputs are
        ``logits``, float32 ``(n, actions)``, and ``values``, float32 ``(n, 1)``.

        Args:
            path: the file, with the ending ``.onnx``.

        Returns:
            The file.

        Raises:
            FileExistsError: it exists.
            FileNotFoundError: its folder does not.
            FloatingPointError: onnxruntime gives other outputs; the file is not written.
            ImportError: the extra ``onnx`` is not installed.
            ValueError: another ending.
        """
        return to_onnx.write_onnx(self, path)

    def _as_batch(self, observation: object) -> tuple[Tensor, bool]:
        """Return observations as a batch, channels first, and whether they were one."""
        channels, height, width = self.config.observation_shape
        tensor = self._tensor(observation)
        if tensor.shape[-3:] == (height, width, channels) != (channels, height, width):
            tensor = tensor.movedim(-1, -3)
        return (tensor[None], False) if tensor.ndim == 3 else (tensor, True)

    def _batches(self, observations: Observations, batch: int) -> Iterator[Tensor]:
        check_whole(batch=batch)
        tensor, shape = self._tensor(observations), self.config.observation_shape
        if tensor.dtype != torch.uint8 or tensor.shape[1:] != shape or not len(tensor):
            raise ValueError(f"{self._expected}, got {tensor.dtype} of shape {tuple(tensor.shape)}")
        return (part.to(self.device) for part in tensor.split(batch))

    def _tensor(self, observations: object) -> Tensor:
        try:
            return as_numbers(observations, "observations")
        except ValueError as error:
            kind = type(observations).__name__
            raise ValueError(f"{self._expected}, got a {kind}") from error

    @property
    def _expected(self) -> str:
        shape = ", ".join(map(str, self.config.observation_shape))
        return f"expected uint8 observations (batch, {shape})"

    def _check_finite(
        self, what: str, outputs: Tensor, observations: Observations, batch: int
    ) -> None:
        """Raise a FloatingPointError that names the first layer, if outputs are not finite."""
        broken = ~outputs.isfinite().flatten(1).all(1)
        if not broken.any():
            return
        first = int(broken.int().argmax())
        part = list(self._batches(observations, batch))[first // batch]
        where = first_not_finite(self.policy, lambda: self._forward(part))
        raise FloatingPointError(
            f"{what} are not finite for {int(broken.sum())} of {len(outputs)} observations, "
            f"number {first} the first: {where}"
        )

    def _forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        # As the policy's own extract_features, for weights of any dtype: float64 to check edits.
        images = preprocess_obs(observations, self.policy.observation_space)
        assert isinstance(images, Tensor)
        features = self.policy.features_extractor(images.to(self.dtype))
        return self.policy.action_net(features), self.policy.value_net(features)

    def __reduce__(self) -> tuple[Any, ...]:
        return Agent, (copied(self.policy), self.config)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Agent":
        return Agent(copied(self.policy), copy.deepcopy(self.config, memo))

    def __repr__(self) -> str:
        edits = "".join(f"\n  {edit}" for edit in self.config.edits)
        return f"Agent({self.config.architecture}, {self.config.game}, {self.device}){edits}"
