"""The state of a training run on the disk: weights, AdamW's moments and numbers, without pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlbilinear.agents.folder import bring_back, new_folder

STATE = "state"
"""Folder of a run that holds its latest state."""
NUMBERS, TENSORS = "state.json", "state.safetensors"


def save_state(
    run: Path, modules: nn.Module, optimizer: torch.optim.Optimizer, numbers: dict[str, Any]
) -> None:
    """Write the state of a run, in place of the one before.

    Args:
        run: its folder.
        modules: what is trained.
        optimizer: an AdamW over its parameters.
        numbers: steps done, losses: what JSON holds.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in _parameters(modules).items():
        tensors[f"weight.{name}"] = value.detach()
        for key, moment in optimizer.state.get(value, {}).items():
            tensors[f"adam.{name}.{key}"] = moment.detach()
    with new_folder(run / STATE, overwrite=True, marker=NUMBERS) as folder:
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, folder / TENSORS)
        (folder / NUMBERS).write_text(json.dumps(numbers))


def load_state(run: Path, modules: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Read the state of a run into what is trained, and return its numbers.

    Raises:
        ValueError: there is none, or it is of another model.
    """
    folder = run / STATE
    if not (folder / NUMBERS).is_file():
        raise ValueError(f"{run} holds no state to resume from")
    tensors = load_file(folder / TENSORS)
    parameters = _parameters(modules)
    stored = {
        name.removeprefix("weight."): t for name, t in tensors.items() if name.startswith("weight.")
    }
    if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in parameters.items()}:
        raise ValueError(
            f"{run} holds the state of a model of another shape; choose another folder"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(stored[name])
            prefix = f"adam.{name}."
            optimizer.state[parameter] = {
                key.removeprefix(prefix): value if key.endswith(".step") else value.to(parameter)
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
    return json.loads((folder / NUMBERS).read_text())


def has_state(run: Path) -> bool:
    """Whether a run can be resumed."""
    bring_back(run / STATE)
    return (run / STATE / NUMBERS).is_file()


def _parameters(modules: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in modules.named_parameters() if p.requires_grad}
