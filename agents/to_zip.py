"""Agents as Stable-Baselines3's zip files, for code that calls ``PPO.load``."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from rlbilinear.agents import module_spec
from rlbilinear.agents.document import network_of
from rlbilinear.agents.folder import new_file
from rlbilinear.agents.network import layer_path, settle
from rlbilinear.agents.policy import AgentPolicy

if TYPE_CHECKING:
    from rlbilinear.agents.agent import Agent


class EditedPolicy(AgentPolicy):
    """`AgentPolicy` with some modules replaced, as edits of an agent do.

    The weights of the new modules are zero until they are loaded.

    Args:
        observation_space: see `AgentPolicy`.
        action_space: see `AgentPolicy`.
        lr_schedule: see `AgentPolicy`.
        structure: the replacements, see `rlbilinear.agents.module_spec`; layers by their names.
        **kwargs: of `AgentPolicy`.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        lr_schedule: Schedule,
        structure: list[module_spec.Entry] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        entries = [{**entry, "layer": layer_path(entry["layer"])} for entry in structure or []]
        module_spec.apply(self, entries)
        for module in self.modules():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for name, weight in own:
                if weight.is_meta:
                    zeros = torch.zeros_like(weight, device="cpu")
                    trained = isinstance(weight, nn.Parameter)
                    setattr(module, name, nn.Parameter(zeros) if trained else zeros)
        settle(self)


def write_zip(agent: "Agent", path: str | Path) -> Path:
    """Write an agent as ``PPO.load`` reads it; see `rlbilinear.agents.Agent.to_sb3`."""
    file = Path(path)
    file = file if file.suffix == ".zip" else file.with_name(f"{file.name}.zip")
    if file.exists():
        raise FileExistsError(f"{file} exists; choose another name")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"no folder {file.parent}")
    model = as_ppo(agent)
    warnings.warn(
        f"{file} holds pickles, as every Stable-Baselines3 zip: whoever opens it runs the code in "
        "it. To share the agent with others, use push_to_hub or save",
        stacklevel=3,
    )
    with new_file(file) as temporary, temporary.open("wb") as opened:
        model.save(opened)
    return file


def as_ppo(agent: "Agent") -> PPO:
    """Return a PPO model, without an environment, whose policy computes what the agent does.

    In float32, as Stable-Baselines3 does.
    """
    config = agent.config
    kwargs: dict[str, Any] = {
        "architecture": config.architecture,
        "architecture_kwargs": config.architecture_kwargs,
    }
    kind: type[AgentPolicy] = AgentPolicy
    if structure := network_of(agent.policy, config)["structure"]:
        kind, kwargs = EditedPolicy, {**kwargs, "structure": structure}
    model = PPO(kind, None, policy_kwargs=kwargs, device="cpu", _init_setup_model=False)  # type: ignore[arg-type]
    model.observation_space = agent.policy.observation_space
    model.action_space = agent.policy.action_space
    model.n_envs = 1
    model._setup_model()
    model.policy.load_state_dict(agent.policy.state_dict())
    model.policy.set_training_mode(False)
    return model
