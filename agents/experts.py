"""The games that have an expert to learn from."""

from typing import Any

from rlbilinear.agents.expert import ExpertMazes
from rlbilinear.agents.expert_heist import ExpertHeists
from rlbilinear.agents.expert_levels import ExpertLevels

EXPERTS: dict[str, type[ExpertLevels[Any]]] = {
    kind.game: kind for kind in (ExpertMazes, ExpertHeists)
}
"""By game."""


def check_has_expert(game: str) -> None:
    """Raise ValueError, listing the games, unless this one has an expert."""
    if game not in EXPERTS:
        raise ValueError(f"no expert plays {game!r}; the games with one are {', '.join(EXPERTS)}")
