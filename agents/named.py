"""Agents, given by name or as the object itself."""

from pathlib import Path

from rlbilinear.agents.agent import Agent
from rlbilinear.agents.checkpoint import load, names

AgentLike = Agent | str | Path
"""An agent, the name of one in the zoo, or its folder."""


def as_agent(agent: AgentLike) -> Agent:
    """Return the agent; one of the zoo, or in a folder, is loaded.

    Raises:
        ValueError: unknown name; the message lists the choices.
        TypeError: neither an agent nor a name.
    """
    if isinstance(agent, str | Path):
        return load(agent)
    if not isinstance(agent, Agent):
        choices = ", ".join(names())
        raise TypeError(
            f"expected an Agent, its folder, or one of {choices}; got {type(agent).__name__}"
        )
    return agent
