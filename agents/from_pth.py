"""Agents from the PyTorch files of train-procgen-pytorch, such as the published maze policies.

That code trained the ReLU policies of "Goal misgeneralization in deep reinforcement learning"
(Langosco et al. 2022), on which "Understanding and controlling a maze-solving policy network"
(Turner et al. 2023) works. Their network is `rlbilinear.agents.Impala` under other names.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlbilinear.agents.checkpoint import Agent, CheckpointError
from rlbilinear.agents.folder import sha256
from rlbilinear.agents.network import AgentConfig, build_policy, find_device, layer_path, weights_of

STAGES, BLOCKS = 3, 2
"""Stages of the network, and residual blocks in each."""

STATES = ("model_state_dict", "state_dict")
"""Under which a file has its weights, unless it is nothing but weights."""


def _layers() -> dict[str, str]:
    layers = {}
    for stage in range(1, STAGES + 1):
        theirs = f"embedder.block{stage}"
        layers[f"{theirs}.conv"] = f"conv{stage}" if stage > 1 else "stem"
        for block in range(1, BLOCKS + 1):
            ours = f"block{BLOCKS * (stage - 1) + block}"
            for conv in ("conv1", "conv2"):
                layers[f"{theirs}.res{block}.{conv}"] = f"{ours}.{conv}"
    return layers | {
        "embedder.fc": "dense",
        "fc_policy": "action_net",
        "fc_value": "value_net",
    }


LAYERS: Mapping[str, str] = _layers()
"""The layers with weights: their names there, and here.

Of those without, ``block1.maxpool`` is ``pool1``, the sum ``block2.res1.resadd`` of
``procgen-tools`` is ``block3``, ``relu3`` is ``relu1`` and ``relufc`` is ``relu2``.
"""


def agent_from_pth(
    path: str | Path, *, game: str = "maze", device: str | torch.device = "cpu"
) -> Agent:
    """Make an agent of an IMPALA checkpoint that train-procgen-pytorch wrote.

    Only tensors and plain values are read (``torch.load(weights_only=True)``): no code in the file
    is run. Widths and the number of actions are those of the weights, so the wider networks of the
    first of these policies load too. As there, the network sees pixels divided by 255.

    Args:
        path: a ``.pth`` file: a dictionary with the policy's ``state_dict`` under one of `STATES`,
            or that ``state_dict`` itself.
        game: the ProcGen game it was trained on.
        device: where to put it.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: a file that torch cannot read or that holds more than tensors and plain
            values; weights of another network, which are named.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    given = _read(file)
    weights = _renamed(file, given)
    stem, dense = weights["stem.weight"], weights["dense.weight"]
    channels = [weights[f"{name}.weight"].shape[0] for name in ("stem", "conv2", "conv3")]
    config = AgentConfig(
        "impala",
        game,
        {"channels": channels, "features": dense.shape[0]},
        observation_shape=(stem.shape[1], 64, 64),
        actions=weights["action_net.weight"].shape[0],
        made={"from": file.name, "sha256": sha256(file)},
    )
    policy = build_policy(config)
    expected = weights_of(policy)
    wrong = [
        f"{name} {tuple(weights[ours].shape)}, expected {tuple(expected[ours].shape)}"
        for name, ours in _names().items()
        if weights[ours].shape != expected[ours].shape
    ]
    if wrong:
        raise CheckpointError(f"{file} is not an IMPALA for 64x64 pictures: {'; '.join(wrong)}")
    paths = {layer_path(name): weight for name, weight in weights.items()}
    policy.load_state_dict(paths, strict=False)
    policy.set_training_mode(False)
    return Agent(policy.to(find_device(device)), config)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        raise CheckpointError(
            f"{file} does not hold tensors and plain values alone, so it is not opened: {reason}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as a file of PyTorch: {error}") from error
    if isinstance(found, Mapping):
        found = next((found[name] for name in STATES if name in found), found)
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{file} holds a {type(found).__name__}, expected a dictionary of weights, or one with "
            f"{' or '.join(STATES)}"
        )
    return found


def _names() -> dict[str, str]:
    """Return the names of all weights there, and here."""
    return {
        f"{theirs}.{part}": f"{ours}.{part}"
        for theirs, ours in LAYERS.items()
        for part in ("weight", "bias")
    }


def _renamed(file: Path, given: Mapping[str, Any]) -> dict[str, Tensor]:
    names = _names()
    missing, unknown = sorted(names.keys() - given.keys()), sorted(map(str, given.keys() - names))
    if missing or unknown:
        raise CheckpointError(
            f"{file} is not an IMPALA policy of train-procgen-pytorch without recurrence: "
            f"missing {_few(missing)}; unknown {_few(unknown)}"
        )
    for name, weight in given.items():
        dimensions = 1 if name.endswith("bias") else 4 if "conv" in name else 2
        if not isinstance(weight, Tensor) or weight.ndim != dimensions:
            shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise CheckpointError(f"{file}: {name} is {shape}, expected {dimensions} dimensions")
        if not weight.is_floating_point() or not weight.isfinite().all():
            raise CheckpointError(f"{file}: {name} is not of finite floating-point numbers")
    return {ours: given[theirs] for theirs, ours in names.items()}


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:4]) or "none"
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
