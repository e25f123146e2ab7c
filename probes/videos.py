"""Episodes of several agents from the same maze, side by side."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt8

from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.envs import Maze, ProcgenVecEnv, videos

Frames = UInt8[np.ndarray, "time 3 height width"]


def side_by_side(
    maze: Maze, agents: Mapping[str, Agent], *, steps: int = 100, seed: int = 0
) -> Frames:
    """Play one episode of each agent from the same maze, in the simulator.

    Agents share their sampling noise, which is that of `agents.evaluation.evaluate` on the maze's
    level: an unedited maze shows the very episode that is measured there. An agent that is done
    stays in its last frame, the one before its last step: the simulator shows no later one. The
    video ends when all are done.

    Args:
        maze: where every agent starts.
        agents: by the name written above them.
        steps: at most so many.
        seed: seed of the sampled actions.

    Returns:
        (time, 3, height, width), as TensorBoard has them; time at most ``steps`` + 1.

    Raises:
        ValueError: no agents, fewer than one step, or outputs that are not finite.
    """
    if not agents or steps < 1:
        raise ValueError(f"expected agents and steps >= 1, got {list(agents)} and {steps}")
    noise = np.random.default_rng([seed, maze.level_seed or 0])

    def policy(observations: Observations) -> Int[np.ndarray, " agents"]:
        scores = []
        for agent, observation in zip(agents.values(), observations, strict=True):
            scores.append(agent.logits(observation[None])[0].cpu().numpy())
        return (np.stack(scores) + noise.gumbel(size=len(scores[0]))).argmax(1)

    env = ProcgenVecEnv("maze", len(agents), levels=[maze] * len(agents), render_mode="rgb_array")
    try:
        films = videos.play(env, policy, steps=steps)
    finally:
        env.close()
    return videos.side_by_side(dict(zip(agents, films, strict=True))).transpose(0, 3, 1, 2)
