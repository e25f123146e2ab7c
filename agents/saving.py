"""Writing an agent as a folder: ``config.json`` and ``model.safetensors``, without pickle."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from rlbilinear.agents.document import CARD, CONFIG, WEIGHTS, canonical, network_of, written
from rlbilinear.agents.finite import check_weights
from rlbilinear.agents.folder import new_folder, sha256, write_json
from rlbilinear.agents.network import AgentConfig, check_policy, weights_of
from rlbilinear.agents.policy import AgentPolicy

STORED = ("float16", "bfloat16", "float32", "float64")
"""How weights may be stored. Those with fewer digits or a smaller range make other weights."""


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
        ValueError: a ``dtype`` that is not among `STORED`, weights that are not finite in it,
            a layer of a kind that cannot be stored, or a policy and a configuration that contradict
            each other.
    """
    if not isinstance(dtype, torch.dtype) or _name(dtype) not in STORED:
        choices = ", ".join(f"torch.{name}" for name in STORED)
        raise ValueError(f"weights cannot be stored as {dtype!r}; choose from {choices}")
    check_policy(policy, config)
    weights = {name: w.to("cpu", dtype).contiguous() for name, w in weights_of(policy).items()}
    check_weights(weights, f" as {dtype}")
    network = network_of(policy, config)
    with new_folder(path, overwrite=overwrite, marker=CONFIG) as folder:
        save_file(weights, folder / WEIGHTS, metadata={"network": canonical(network)})
        about = {
            "file": WEIGHTS,
            "sha256": sha256(folder / WEIGHTS),
            "dtype": _name(dtype),
            "parameters": sum(weight.numel() for weight in weights.values()),
        }
        write_json(folder / CONFIG, written(config, network, about))
        if card is not None:
            (folder / CARD).write_text(card)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
