"""The state of a PPO run, complete enough to resume bit by bit. No pickle.

Weights, optimiser, return normaliser, random generators, and the simulator's states. Snapshots are
taken between an update and the next rollout, where nothing is half done.
"""

import json
import math
import random
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from rlbilinear.agents.checkpoint import CheckpointError
from rlbilinear.agents.folder import sha256, write_json
from rlbilinear.agents.network import layer_path, weights_of
from rlbilinear.agents.policy import AgentPolicy
from rlbilinear.envs import ProcgenVecEnv

VERSION = 1
TENSORS, NUMBERS = "training.safetensors", "training.json"
MOMENTS = ("mean", "var", "count")
"""What the return normaliser has learned of returns."""
NUMPY_WORDS = 624
"""Words in the state of NumPy's Mersenne twister."""


class Snapshot(NamedTuple):
    """A run between two rollouts: copies on the CPU, which the run does not change."""

    weights: dict[str, Tensor]
    """by layer name; `Agent.save` writes these, `write` the rest"""
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]

    @property
    def frames(self) -> int:
        """Frames done."""
        return int(self.numbers["frames"])

    def write(self, folder: Path) -> None:
        """Write all but the weights into a folder."""
        save_file(self.tensors, folder / TENSORS)
        write_json(folder / NUMBERS, {**self.numbers, "sha256": sha256(folder / TENSORS)})


def take(model: PPO) -> Snapshot:
    """Take a snapshot of a run.

    Raises:
        FloatingPointError: weights, the optimiser's moments or the normaliser are not finite.
    """
    assert isinstance(model.policy, AgentPolicy)
    env, normaliser = environments(model)
    numpy_state: Any = np.random.get_state(legacy=False)
    version, words, gauss = random.getstate()
    tensors = {
        **optimizer_tensors(model.policy.optimizer, "optimizer/"),
        "random/torch": torch.get_rng_state(),
        "random/numpy": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
        "random/python": torch.tensor(words),
        "normaliser/returns": torch.from_numpy(normaliser.returns),
    }
    if model.device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(model.device)
    for index, state in enumerate(env.get_states()):
        tensors[f"simulator/{index}"] = torch.frombuffer(bytearray(state), dtype=torch.uint8)
    numbers = {
        "version": VERSION,
        "frames": model.num_timesteps,
        "updates": model._n_updates,
        "numpy": {
            "position": numpy_state["state"]["pos"],
            "has_gauss": numpy_state["has_gauss"],
            "gauss": numpy_state["gauss"],
        },
        "python": {"version": version, "gauss": gauss},
        "normaliser": {name: float(getattr(normaliser.ret_rms, name)) for name in MOMENTS},
        "episode_starts": np.asarray(model._last_episode_starts).tolist(),
        "episodes": [{name: e[name] for name in ("r", "l")} for e in model.ep_info_buffer or ()],
    }
    taken = Snapshot(_copies(weights_of(model.policy)), _copies(tensors), numbers)
    _check_finite(taken)
    return taken


def rewind(model: PPO, snapshot: Snapshot) -> None:
    """Give a run the weights and the number of frames of a snapshot, so that they are saved."""
    paths = {layer_path(name): weight for name, weight in snapshot.weights.items()}
    model.policy.load_state_dict(paths, strict=False)
    model.num_timesteps = snapshot.frames


def restore(model: PPO, folder: Path) -> None:
    """Bring a newly made run into the state of a written snapshot; its policy is already loaded.

    Random generators come last, so that the next draws are those that would have come.

    Raises:
        CheckpointError: files are missing, truncated or altered, or belong to another run.
    """
    try:
        numbers = json.loads((folder / NUMBERS).read_text())
        if numbers["version"] != VERSION:
            raise CheckpointError(f"{folder}: expected version {VERSION}, got {numbers['version']}")
        if sha256(folder / TENSORS) != numbers["sha256"]:
            raise CheckpointError(f"{folder / TENSORS} is truncated or altered")
        _check_numbers(numbers, environments(model)[0].num_envs)
        _restore(model, load_file(folder / TENSORS), numbers)
    except (
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        SafetensorError,
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder} holds no state of this run: {error!r}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Return an optimiser's moments and step counts, named ``prefix + "index/name"``."""
    return {
        f"{prefix}{index}/{name}": value
        for index, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str
) -> None:
    """Put back what `optimizer_tensors` returned; learning rates and the like are not changed.

    Moments get the memory layout of their weights: otherwise Adam's step is twice as slow.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        if path.startswith(prefix):
            index, name = path.removeprefix(prefix).split("/")
            state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for weight, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == weight.shape:
                moments[name] = torch.empty_like(weight).copy_(moment)


def environments(model: PPO) -> tuple[ProcgenVecEnv, VecNormalize]:
    """Return the simulator and the return normaliser around it.

    Raises:
        TypeError: the model has other environments.
    """
    normaliser = model.get_vec_normalize_env()
    if normaliser is None or not isinstance(normaliser.venv, ProcgenVecEnv):
        raise TypeError("expected a PPO on VecNormalize(ProcgenVecEnv(...))")
    return normaliser.venv, normaliser


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }


def _check_finite(snapshot: Snapshot) -> None:
    broken = [
        name
        for name, tensor in {**snapshot.weights, **snapshot.tensors}.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if not all(map(math.isfinite, snapshot.numbers["normaliser"].values())):
        broken.append("normaliser")
    if broken:
        raise FloatingPointError(f"not finite: {', '.join(broken[:5])}")


def _check_numbers(numbers: dict[str, Any], num_envs: int) -> None:
    """Raise ValueError for numbers that no run has: NumPy would crash with some of them."""
    numpy, python, normaliser = (numbers[name] for name in ("numpy", "python", "normaliser"))
    is_valid = {
        "frames": _is_count(numbers["frames"]),
        "updates": _is_count(numbers["updates"]),
        "numpy": _is_count(numpy["position"])
        and numpy["position"] <= NUMPY_WORDS
        and numpy["has_gauss"] in (0, 1)
        and _is_number(numpy["gauss"]),
        "python": python["gauss"] is None or _is_number(python["gauss"]),
        "normaliser": all(_is_number(normaliser[name]) for name in MOMENTS)
        and normaliser["var"] >= 0
        and normaliser["count"] > 0,
        "episode_starts": [type(each) for each in numbers["episode_starts"]] == [bool] * num_envs,
        "episodes": all(_is_number(e["r"]) and _is_count(e["l"]) for e in numbers["episodes"]),
    }
    if wrong := [name for name, valid in is_valid.items() if not valid]:
        raise ValueError(f"no run has such {', '.join(wrong)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _restore(model: PPO, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    env, normaliser = environments(model)
    states = [tensors[f"simulator/{i}"].numpy().tobytes() for i in range(env.num_envs)]
    env.set_states(states)
    model._last_obs = env.observe()
    model._last_episode_starts = np.array(numbers["episode_starts"])
    model.num_timesteps, model._n_updates = numbers["frames"], numbers["updates"]
    model.ep_info_buffer = deque(numbers["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)
    normaliser.returns = tensors["normaliser/returns"].numpy()
    for name in MOMENTS:
        setattr(normaliser.ret_rms, name, numbers["normaliser"][name])
    restore_optimizer(model.policy.optimizer, tensors, "optimizer/")
    torch.set_rng_state(tensors["random/torch"])
    if "random/cuda" in tensors and model.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"], model.device)
    words = tuple(tensors["random/python"].tolist())
    random.setstate((numbers["python"]["version"], words, numbers["python"]["gauss"]))
    given = numbers["numpy"]
    key = tensors["random/numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, given["position"], given["has_gauss"], given["gauss"]))
