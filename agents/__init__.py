"""Agents: policies, training, evaluation, checkpoints, and a zoo of trained ones."""

from envs.simulator import silence_gym_notice

silence_gym_notice()  # before stable_baselines3, which imports gym where it is installed

from agents.architectures import ARCHITECTURES  # noqa: E402
from agents.checkpoint import Agent, CheckpointError, load, names  # noqa: E402
from agents.network import AgentConfig  # noqa: E402
from agents.policy import AgentPolicy, BilinearPolicy  # noqa: E402

__all__ = [
    "ARCHITECTURES",
    "Agent",
    "AgentConfig",
    "AgentPolicy",
    "BilinearPolicy",
    "CheckpointError",
    "load",
    "names",
]
