"""Agents: policies, training, evaluation, checkpoints, and a zoo of trained ones."""

if __name__ != "rlbilinear.agents":
    raise ImportError("import this package as `rlbilinear.agents`, not as `agents`")

import rlbilinear.envs  # noqa: F401  (first: it keeps gym's notice off, which SB3 prints)
from rlbilinear.agents.architectures import (
    ARCHITECTURES,
    Bimpala,
    BimpalaFull,
    Impala,
    ImpalaMatched,
    Polynomial,
    architecture,
)
from rlbilinear.agents.checkpoint import Agent, CheckpointError, load, names
from rlbilinear.agents.fast_ppo import FastPPO
from rlbilinear.agents.from_pth import agent_from_pth
from rlbilinear.agents.from_zip import agent_from_zip
from rlbilinear.agents.heads import policy_form, policy_forms, trunk_shape, value_form
from rlbilinear.agents.network import AgentConfig
from rlbilinear.agents.policy import AgentPolicy, BilinearPolicy
from rlbilinear.agents.rollout_buffer import DeviceRolloutBuffer

__all__ = [
    "ARCHITECTURES",
    "Agent",
    "AgentConfig",
    "AgentPolicy",
    "BilinearPolicy",
    "Bimpala",
    "BimpalaFull",
    "CheckpointError",
    "DeviceRolloutBuffer",
    "FastPPO",
    "Impala",
    "ImpalaMatched",
    "Polynomial",
    "agent_from_pth",
    "agent_from_zip",
    "architecture",
    "load",
    "names",
    "policy_form",
    "policy_forms",
    "trunk_shape",
    "value_form",
]
