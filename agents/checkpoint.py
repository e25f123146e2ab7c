"""Loading agents from their folders, without pickle, and the zoo."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlbilinear.agents import module_spec
from rlbilinear.agents.agent import Agent
from rlbilinear.agents.folder import sha256
from rlbilinear.agents.network import (
    AgentConfig,
    find_device,
    layer_path,
    on_meta,
    settle,
    weights_of,
)
from rlbilinear.agents.saving import CONFIG, FORMAT, VERSION, WEIGHTS, canonical

ZOO = Path(__file__).parent / "zoo"


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted to be what it says, with the reason."""


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
        module_spec.apply(policy, entries)
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
    if described != canonical(document.get("network")):
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
