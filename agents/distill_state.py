"""The state of a distillation run between two gradient steps, as one file. No pickle."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlbilinear.agents.agent import Agent
from rlbilinear.agents.checkpoint import CheckpointError
from rlbilinear.agents.folder import new_file
from rlbilinear.agents.network import layer_path, weights_of
from rlbilinear.agents.training_state import optimizer_tensors, restore_optimizer

Optimisers = tuple[torch.optim.Optimizer, ...]


def write(file: Path, agent: Agent, optimisers: Optimisers, frames: int) -> None:
    """Write weights and optimisers as one file, whole or not at all."""
    tensors = {f"weights/{name}": weight for name, weight in weights_of(agent.policy).items()}
    for number, optimiser in enumerate(optimisers):
        tensors |= optimizer_tensors(optimiser, f"optimiser{number}/")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {
        "architecture": agent.config.architecture,
        "game": agent.config.game,
        "frames": str(frames),
    }
    with new_file(file) as temporary:
        temporary.write_bytes(save(tensors, {**facts, "sha256": _digest(tensors, facts)}))


def restore(file: Path, agent: Agent, optimisers: Optimisers) -> int:
    """Load weights and optimisers, and return the number of frames they have learned from.

    Raises:
        CheckpointError: the file is truncated, altered, or of another architecture or game.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            facts = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if facts.pop("sha256", None) != _digest(tensors, facts):
            raise CheckpointError(f"{file} was altered: its contents do not match its sha256")
        weights = {
            name.removeprefix("weights/"): tensor
            for name, tensor in tensors.items()
            if name.startswith("weights/")
        }
        name, expected = agent.config.architecture, weights_of(agent.policy)
        shapes = [{n: w.shape for n, w in side.items()} for side in (weights, expected)]
        if facts["architecture"] != name or shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{file} holds weights of {facts['architecture']}, which do not fit {name}"
            )
        game = facts.get("game", "maze")  # older files are all of mazes
        if game != agent.config.game:
            raise CheckpointError(f"{file} is of {game}, not of {agent.config.game}")
        paths = {layer_path(name): weight for name, weight in weights.items()}
        agent.policy.load_state_dict(paths, strict=False)
        for number, optimiser in enumerate(optimisers):
            restore_optimizer(optimiser, tensors, f"optimiser{number}/")
        return int(facts["frames"])
    except (KeyError, SafetensorError) as error:
        raise CheckpointError(f"{file} holds no training state: {error!r}") from error


def _digest(tensors: dict[str, Tensor], facts: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()
