"""Agents: policies, training, evaluation, checkpoints, and a zoo of trained ones.

Each name is loaded when it is first asked for; ``__init__.pyi`` says from where.
"""

if __name__ != "rlbilinear.agents":
    raise ImportError("import this package as `rlbilinear.agents`, not as `agents`")

import lazy_loader

import rlbilinear.envs  # noqa: F401  (before Stable-Baselines3: suppresses gym's notice)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
