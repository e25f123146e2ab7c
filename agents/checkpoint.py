"""Loading agents from their folders, without pickle, from the zoo and from the Hub."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlbilinear.agents import document, module_spec
from rlbilinear.agents.agent import Agent
from rlbilinear.agents.document import CONFIG, WEIGHTS, Document
from rlbilinear.agents.finite import check_weights
from rlbilinear.agents.folder import sha256
from rlbilinear.agents.hub import SCHEME, HubAddress, fetch
from rlbilinear.agents.network import (
    check_outputs,
    find_device,
    layer_path,
    on_meta,
    settle,
    weights_of,
)
from rlbilinear.agents.policy import AgentPolicy
from rlbilinear.agents.saving import STORED

ZOO = Path(__file__).parent / "zoo"


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted to be what it says, with the reason."""


def names() -> list[str]:
    """List the agents of the zoo."""
    return sorted(folder.parent.name for folder in ZOO.glob(f"*/{CONFIG}"))


def load(
    name_or_path: str | Path,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
) -> Agent:
    """Load an agent of the zoo by its name, any by its folder, or one of the Hub by its address.

    Args:
        name_or_path: a name of `names`; a folder; or ``hf://owner/name``, with ``@revision`` and
            ``#sha256=...`` if they are to be fixed (see `rlbilinear.agents.hub`).
        device: ``auto | cpu | cuda | cuda:N | mps``.
        dtype: in which it computes: float32, or float64 (see `Agent.double`).

    Raises:
        ValueError: neither a name of the zoo, which are listed, nor a folder, nor an address of
            the Hub where an agent is; unknown device, or another ``dtype``.
        OSError: the Hub cannot be reached, or what it holds cannot be stored.
        CheckpointError: files that are missing, truncated or altered, of another format version
            or architecture, or weights that are not finite. Found before the network is run.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"agents compute in torch.float32 or torch.float64; got {dtype!r}")
    if not isinstance(name_or_path, str | Path):
        raise ValueError(f"expected a name or a folder, got {name_or_path!r}")
    target = find_device(device)
    if str(name_or_path).startswith(SCHEME):
        folder = fetch(HubAddress.parse(str(name_or_path)))
    else:
        folder = ZOO / name_or_path if str(name_or_path) in names() else Path(name_or_path)
    if not folder.is_dir():
        known = ", ".join(names()) or "(none)"
        raise ValueError(
            f"{str(name_or_path)!r} is neither a folder nor an agent of the zoo: {known}"
        )
    described = _read_document(folder)
    weights = _read_weights(folder, described)
    policy = _network(folder, described)
    _check_shapes(folder, weights, weights_of(policy))
    # Copies, for what is read lies anywhere in memory, and where weights lie decides some rounding.
    paths = {layer_path(name): weight.to(dtype, copy=True) for name, weight in weights.items()}
    policy.load_state_dict(paths, strict=False, assign=True)
    settle(policy.to(target))
    policy.set_training_mode(False)
    return Agent(policy, described.config)


def _read_document(folder: Path) -> Document:
    missing = [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is not a checkpoint: it lacks {' and '.join(missing)}")
    try:
        return document.read((folder / CONFIG).read_text())
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG} is not valid: {error}") from error


def _read_weights(folder: Path, described: Document) -> dict[str, Tensor]:
    file, expected = folder / WEIGHTS, described.weights
    if (found := sha256(file)) != expected["sha256"]:
        raise CheckpointError(
            f"{file} is truncated or altered: its sha256 is {found}, {CONFIG} says "
            f"{expected['sha256']}"
        )
    try:
        with safe_open(file, framework="pt") as opened:
            network = (opened.metadata() or {}).get("network")
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a safetensors file: {error}") from error
    if network != described.network:
        raise CheckpointError(f"{folder / CONFIG} was altered: {WEIGHTS} has another network")
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in weights.values()}
    count = sum(weight.numel() for weight in weights.values())
    if (kinds, count) != ({expected["dtype"]}, expected["parameters"]):
        raise CheckpointError(
            f"{file} holds {count} parameters of {' and '.join(sorted(kinds))}, {CONFIG} says "
            f"{expected['parameters']} of {expected['dtype']}"
        )
    if not kinds <= set(STORED):
        raise CheckpointError(f"{file} holds {kinds.pop()}; choose from {', '.join(STORED)}")
    try:
        check_weights(weights)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error
    return weights


def _network(folder: Path, described: Document) -> AgentPolicy:
    """Build the network, without memory."""
    entries = [{**entry, "layer": layer_path(entry["layer"])} for entry in described.structure]
    try:
        policy = on_meta(described.config)
        module_spec.apply(policy, entries)
        check_outputs(policy, described.config)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        (reason, *_) = str(error).splitlines() or [repr(error)]  # PyTorch's go on for long
        raise CheckpointError(f"{folder / CONFIG} describes no network: {reason}") from error
    return policy


def _check_shapes(folder: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    shapes = [{name: tuple(w.shape) for name, w in side.items()} for side in (found, expected)]
    if shapes[0] != shapes[1]:
        names = sorted(name for name, _ in shapes[0].items() ^ shapes[1].items())
        raise CheckpointError(
            f"{folder}: weights of another architecture than {CONFIG} says, "
            f"by name or shape: {', '.join(dict.fromkeys(names))}"
        )
