"""The games that have an expert to learn from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from rlbilinear.agents.expert import ExpertMazes
from rlbilinear.agents.expert_heist import ExpertHeists
from rlbilinear.envs import Levels


class Expert(Protocol):
    """Environments whose levels change all the time, and the expert's actions in them."""

    num_envs: int
    observations: UInt8[np.ndarray, "envs 3 64 64"]

    def __init__(
        self,
        num_envs: int,
        levels: Levels,
        seed: int,
        *,
        mode: str = "easy",
        new_level: float = 1 / 24,
        anywhere: float = 0.6,
    ) -> None: ...

    @property
    def right(self) -> Bool[np.ndarray, "envs 15"]:
        """Which actions are the expert's in each environment's state: one or more."""

    @property
    def steps_to_go(self) -> Shaped[np.ndarray, " envs"]:
        """The expert's steps to the end of the level."""

    def step_async(self, actions: Int64[np.ndarray, " envs"]) -> None:
        """Start a step."""

    def step_wait(self) -> None:
        """Finish it: all above is then of the new states."""

    def close(self) -> None:
        """Free the simulator."""


EXPERTS: dict[str, type[Expert]] = {"maze": ExpertMazes, "heist": ExpertHeists}
"""By game."""


def check_has_expert(game: str) -> None:
    """Raise ValueError, listing the games, unless this one has an expert."""
    if game not in EXPERTS:
        raise ValueError(f"no expert plays {game!r}; the games with one are {', '.join(EXPERTS)}")
