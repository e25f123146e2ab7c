from . import comparison, edits
from .agent import Agent, Observations
from .architectures import (
    ARCHITECTURES,
    Bimpala,
    BimpalaFull,
    Impala,
    ImpalaMatched,
    PolynomialBody,
    architecture,
)
from .checkpoint import CheckpointError, load, names
from .distill_options import DistillOptions
from .distillation import distill
from .evaluation import evaluate
from .fast_ppo import FastPPO
from .from_pth import agent_from_pth
from .from_zip import agent_from_zip
from .heads import policy_form, policy_forms, trunk_shape, value_form
from .network import AgentConfig
from .options import PRESETS, Hyperparameters, TrainOptions
from .policy import AgentPolicy, BilinearPolicy
from .ppo import train
from .rollout_buffer import DeviceRolloutBuffer
from .run import Run
from .scores import final_scores, score_range
from .signals import Stopped
from .surrogate import polynomial_surrogate, regrouped, units

__all__ = [
    "ARCHITECTURES",
    "PRESETS",
    "Agent",
    "AgentConfig",
    "AgentPolicy",
    "BilinearPolicy",
    "Bimpala",
    "BimpalaFull",
    "CheckpointError",
    "DeviceRolloutBuffer",
    "DistillOptions",
    "FastPPO",
    "Hyperparameters",
    "Impala",
    "ImpalaMatched",
    "Observations",
    "PolynomialBody",
    "Run",
    "Stopped",
    "TrainOptions",
    "agent_from_pth",
    "agent_from_zip",
    "architecture",
    "comparison",
    "distill",
    "edits",
    "evaluate",
    "final_scores",
    "load",
    "names",
    "policy_form",
    "policy_forms",
    "polynomial_surrogate",
    "regrouped",
    "score_range",
    "train",
    "trunk_shape",
    "units",
    "value_form",
]
