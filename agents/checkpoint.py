"""Agents: a policy that can be asked, taken apart, edited, saved and loaded, without pickle."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor, nn

from rlbilinear.agents import module_spec as structure
from rlbilinear.agents.architectures import architecture as lookup
from rlbilinear.agents.folder import new_folder, sha256, write_json
from rlbilinear.agents.network import (
    BODY,
    HEADS,
    AgentConfig,
    build_policy,
    find_device,
    layer_name,
    layer_path,
    on_meta,
    settle,
    weights_of,
)
from rlbilinear.agents.policy import AgentPolicy

FORMAT, VERSION = "rlbilinear-agent", 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"
ZOO = Path(__file__).parent / "zoo"

Observations = UInt8[np.ndarray, "batch 3 64 64"] | UInt8[Tensor, "batch 3 64 64"]


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted to be what it says, with the reason."""


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
        observations: Observations,
        *,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> Int[np.ndarray, "batch"]:
        """Choose actions: the likeliest ones, or sampled (with torch's generator when None)."""
        logits = self.logits(observations).cpu()
        if deterministic:
            return logits.argmax(1).numpy()
        return torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1).numpy()

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
        given = weights_of(self.policy)
        weights = {name: w.to("cpu", dtype).contiguous() for name, w in given.items()}
        broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
        if broken:
            raise ValueError(f"weights that are not finite as {dtype}: {', '.join(broken)}")
        network = self._network()
        with new_folder(path, overwrite=overwrite, marker=CONFIG) as folder:
            save_file(weights, folder / WEIGHTS, metadata={"network": _canonical(network)})
            config = {
                "format": FORMAT,
                "version": VERSION,
                "game": self.config.game,
                "network": network,
                "weights": {
                    "file": WEIGHTS,
                    "sha256": sha256(folder / WEIGHTS),
                    "dtype": str(dtype).removeprefix("torch."),
                    "parameters": sum(weight.numel() for weight in weights.values()),
                },
                "edits": self.config.edits,
                "made": self.config.made,
            }
            write_json(folder / CONFIG, config)
            if card is not None:
                (folder / CARD).write_text(card)

    def _network(self) -> dict[str, Any]:
        """Describe the network so that `load` can build it again."""
        entries = structure.differences(on_meta(self.config), self.policy)
        return {
            "architecture": self.config.architecture,
            "architecture_kwargs": self.config.architecture_kwargs,
            "observation_shape": self.config.observation_shape,
            "actions": self.config.actions,
            "structure": [{**entry, "layer": layer_name(entry["layer"])} for entry in entries],
        }

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


def names() -> list[str]:
    """List the agents of the zoo."""
    return sorted(folder.parent.name for folder in ZOO.glob(f"*/{CONFIG}"))


def load(name_or_path: str | Path, device: str | torch.device = "auto") -> Agent:
    """Load an agent of the zoo by its name, or any by its folder.

    Raises:
        ValueError: neither a name of the zoo, which are listed, nor a folder; unknown device.
        CheckpointError: files that are missing, truncated or altered, of another format version
            or architecture. Found before the network is run.
    """
    target = find_device(device)
    folder = ZOO / name_or_path if str(name_or_path) in names() else Path(name_or_path)
    if not folder.is_dir():
        known = ", ".join(names()) or "(none)"
        raise ValueError(f"{str(name_or_path)!r} is no folder, nor an agent of the zoo: {known}")
    document = _read_config(folder)
    weights = _read_weights(folder, document)
    try:
        network = document["network"]
        config = AgentConfig(
            architecture=network["architecture"],
            architecture_kwargs=network["architecture_kwargs"],
            game=document["game"],
            observation_shape=tuple(network["observation_shape"]),
            actions=network["actions"],
            made=document["made"],
            edits=tuple(document["edits"]),
        )
        policy = on_meta(config)
        entries = [{**entry, "layer": layer_path(entry["layer"])} for entry in network["structure"]]
        structure.apply(policy, entries)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder / CONFIG} describes no network: {error!r}") from error
    _check_shapes(folder, weights, weights_of(policy))
    # Copies, for what is read lies anywhere in memory, and where weights lie decides some rounding.
    paths = {
        layer_path(name): weight.to(torch.float32, copy=True) for name, weight in weights.items()
    }
    policy.load_state_dict(paths, strict=False, assign=True)
    settle(policy.to(target))
    policy.set_training_mode(False)
    return Agent(policy, config)


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


def _read_config(folder: Path) -> dict[str, Any]:
    missing = [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is no checkpoint: it lacks {' and '.join(missing)}")
    try:
        document = json.loads((folder / CONFIG).read_text())
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG} is not JSON: {error}") from error
    found = (document.get("format"), document.get("version")) if isinstance(document, dict) else ()
    if found != (FORMAT, VERSION):
        raise CheckpointError(f"{folder}: expected {FORMAT} version {VERSION}, found {found}")
    return document


def _read_weights(folder: Path, document: dict[str, Any]) -> dict[str, Tensor]:
    file = folder / WEIGHTS
    expected = document.get("weights", {}).get("sha256")
    if (found := sha256(file)) != expected:
        raise CheckpointError(
            f"{file} is truncated or altered: its sha256 is {found}, {CONFIG} says {expected}"
        )
    try:
        with safe_open(file, framework="pt") as opened:
            described = (opened.metadata() or {}).get("network")
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{file} is no safetensors file: {error}") from error
    if described != _canonical(document.get("network")):
        raise CheckpointError(f"{folder / CONFIG} was altered: {WEIGHTS} has another network")
    return weights


def _check_shapes(folder: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    shapes = [{name: tuple(w.shape) for name, w in side.items()} for side in (found, expected)]
    if shapes[0] != shapes[1]:
        names = sorted(name for name, _ in shapes[0].items() ^ shapes[1].items())
        raise CheckpointError(
            f"{folder}: weights of another architecture than {CONFIG} says, "
            f"by name or shape: {', '.join(dict.fromkeys(names))}"
        )


def _canonical(network: Any) -> str:
    return json.dumps(network, sort_keys=True)
