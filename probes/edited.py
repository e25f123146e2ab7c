"""Edited agents on the same states as the agent that they were made of.

An edit of a layer leaves what comes before it as it is, so that is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.agents.network import HEADS
from rlbilinear.probes.interventions import logits_after
from rlbilinear.probes.moves import Moves, move_distribution, move_probabilities


@dataclass(frozen=True, eq=False)
class Seen:
    """States that an agent and edited copies of it are asked about.

    Attributes:
        agent: without the edits.
        observations: of the states.
    """

    agent: Agent
    observations: Observations
    _outputs: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def moves(self, edited: Agent) -> Moves:
        """Return the edited agent's probability of each move, in float64.

        The same as `move_probabilities`, but for rounding: only what comes after the last layer
        before the first edited one runs.
        """
        before = unedited(self.agent, edited)
        if before is None:
            return move_probabilities(edited, self.observations)
        if before not in self._outputs:
            found = self.agent.activations(self.observations, [before], check_finite=False)
            self._outputs.update(found)
        return move_distribution(logits_after(edited, before, self._outputs[before]))


def unedited(agent: Agent, edited: Agent) -> str | None:
    """Return the last step of the forward pass up to which two agents are alike; None: no step."""
    last = None
    for name, theirs in zip(_steps(agent), _steps(edited), strict=False):
        if name != theirs or not _alike(agent.layer(name), edited.layer(name)):
            break
        last = name
    return last


def _steps(agent: Agent) -> Iterator[str]:
    return (name for name in agent.layer_names if "." not in name and name not in HEADS)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are of the same kind, size and options, and have the same weights."""
    if repr(one) != repr(other):
        return False
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )
