"""Writing an agent as a folder: ``config.json`` and ``model.safetensors``, without pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rlbilinear.agents import module_spec
from rlbilinear.agents.folder import new_folder, sha256, write_json
from rlbilinear.agents.network import AgentConfig, layer_name, on_meta, weights_of
from rlbilinear.agents.policy import AgentPolicy

FORMAT, VERSION = "rlbilinear-agent", 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"


def save_policy(
    policy: AgentPolicy,
    config: AgentConfig,
    path: str | Path,
    *,
    overwrite: bool,
    dtype: torch.dtype,
    card: str | None,
) -> None:
    """Write a policy and its configuration; `rlbilinear.agents.Agent.save` says how.

    Raises:
        FileExistsError: the folder exists.
        ValueError: weights that are not finite in ``dtype``, or a layer of a kind that cannot
            be stored.
    """
    given = weights_of(policy)
    weights = {name: w.to("cpu", dtype).contiguous() for name, w in given.items()}
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise ValueError(f"weights that are not finite as {dtype}: {', '.join(broken)}")
    network = _network(policy, config)
    with new_folder(path, overwrite=overwrite, marker=CONFIG) as folder:
        save_file(weights, folder / WEIGHTS, metadata={"network": canonical(network)})
        document = {
            "format": FORMAT,
            "version": VERSION,
            "game": config.game,
            "network": network,
            "weights": {
                "file": WEIGHTS,
                "sha256": sha256(folder / WEIGHTS),
                "dtype": str(dtype).removeprefix("torch."),
                "parameters": sum(weight.numel() for weight in weights.values()),
            },
            "edits": config.edits,
            "made": config.made,
        }
        write_json(folder / CONFIG, document)
        if card is not None:
            (folder / CARD).write_text(card)


def canonical(network: Any) -> str:
    """Return a network's description as the text that the file of weights holds too."""
    return json.dumps(network, sort_keys=True)


def _network(policy: AgentPolicy, config: AgentConfig) -> dict[str, Any]:
    """Describe the network so that it can be built again."""
    entries = module_spec.differences(on_meta(config), policy)
    return {
        "architecture": config.architecture,
        "architecture_kwargs": config.architecture_kwargs,
        "observation_shape": config.observation_shape,
        "actions": config.actions,
        "structure": [{**entry, "layer": layer_name(entry["layer"])} for entry in entries],
    }
