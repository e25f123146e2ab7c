"""ProcGen for research: a vector environment, states read safely, mazes as values.

Importing this does not load the simulator; the first environment does. It drops the notice that
old gym prints on import (procgen and stable_baselines3 import gym), and nothing else.
"""

from envs.simulator import LAST_LEVEL, NUM_ACTIONS, Simulator, silence_gym_notice
from envs.state import GAMES, State, validate_state

silence_gym_notice()  # before vecenv, whose stable_baselines3 imports gym

from envs.vecenv import ProcgenVecEnv  # noqa: E402

__all__ = [
    "GAMES",
    "LAST_LEVEL",
    "NUM_ACTIONS",
    "ProcgenVecEnv",
    "Simulator",
    "State",
    "validate_state",
]
