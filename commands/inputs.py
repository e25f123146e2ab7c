"""Reading the inputs of commands."""

from rlbilinear.agents import Agent, load


def load_maze_agent(name: str, device: str) -> Agent:
    """Load an agent that plays maze.

    Raises:
        ValueError: it is unknown, or plays another game.
    """
    agent = load(name, device)
    if agent.config.game != "maze":
        raise ValueError(f"{name} plays {agent.config.game}; give an agent that plays maze")
    return agent
