"""Held-out episodes as an animated picture: observations, action probabilities and values."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from rlbilinear.agents.agent import Agent
from rlbilinear.agents.evaluation import start_levels
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.agents.network import HEADS
from rlbilinear.checks import likeliest
from rlbilinear.envs import NUM_ACTIONS, ProcgenVecEnv, videos

SIDE, STRIP, BAR = 128, 36, 8
"""Pixels: side of the game's picture, height of the strip below it, width of an action's bar."""
EPISODES, IN_A_ROW, STEPS, RATE = 4, 2, 150, 15.0
"""Episodes in a film, how many side by side, its steps, and steps a second (as people play)."""
FONT_SIZE = 10
CHOSEN, OTHER, INK = (220, 80, 20), (130, 150, 190), (0, 0, 0)
"""Colours of the bar of the chosen action, of the other bars, and of letters."""

ACTIONS = (
    *("left+down", "left", "left+up", "down", "none", "up", "right+down", "right", "right+up"),
    *("D", "A", "W", "S", "Q", "E"),
)
"""The keys that the simulator's 15 actions stand for, in its order."""

CAPTION = (
    "The first held-out levels, as they are scored. Bars: probabilities of the 15 actions "
    f"({', '.join(ACTIONS)}), the one taken in orange. Value: the critic's."
)


class Thought(NamedTuple):
    """An agent's outputs in one step of several episodes."""

    probabilities: Float[np.ndarray, "episodes actions"]
    actions: Int[np.ndarray, " episodes"]
    values: Float[np.ndarray, " episodes"]


def film(
    agent: AgentLike,
    levels: Sequence[int],
    *,
    mode: str = "easy",
    steps: int = STEPS,
    seed: int = 0,
) -> videos.Frames:
    """Play one episode on each level, and return them in rows, with the agent's outputs.

    The random choices are those of `rlbilinear.agents.evaluate`: these are the episodes that it
    scores. An episode that is over stays on its last picture, the one before its last step.
    Memory is about 1.2 MB a step for four episodes, a GIF of it 0.4 to 23 kB.

    Args:
        agent: to play.
        levels: level seeds.
        mode: the game's distribution mode.
        steps: the most steps; longer episodes are cut.
        seed: seed of the sampled actions.

    Raises:
        ValueError: no level, fewer than one step, or an unknown game or mode.
        FloatingPointError: the agent's logits or values are not finite.
    """
    agent = as_agent(agent)
    if not levels:
        raise ValueError("expected at least one level")
    noise = [np.random.default_rng([seed, level]) for level in levels]
    thoughts: list[Thought] = []

    def choose(observations: UInt8[np.ndarray, "episodes 3 64 64"]) -> Int[np.ndarray, " episodes"]:
        thoughts.append(_think(agent, observations, noise))
        return thoughts[-1].actions

    env = ProcgenVecEnv(agent.config.game, len(levels), mode=mode)
    try:
        start_levels(env, levels)
        films = videos.play(env, choose, steps=steps, side=SIDE)
    finally:
        env.close()
    told = {
        f"level {level}": _with_strips(own, thoughts, episode)
        for episode, (level, own) in enumerate(zip(levels, films, strict=True))
    }
    names = list(told)
    rows = [
        videos.side_by_side(
            {name: told[name] for name in names[i : i + IN_A_ROW]}, font_size=FONT_SIZE
        )
        for i in range(0, len(names), IN_A_ROW)
    ]
    return _one_below_the_other(rows)


def _one_below_the_other(rows: Sequence[videos.Frames]) -> videos.Frames:
    """Stack rows; shorter ones stay on their last picture, narrower ones are padded with white."""
    time, width = (max(row.shape[axis] for row in rows) for axis in (0, 2))
    return np.concatenate(
        [
            np.pad(
                np.concatenate([row, row[-1:].repeat(time - len(row), 0)]),
                ((0, 0), (0, 0), (0, width - row.shape[2]), (0, 0)),
                constant_values=255,
            )
            for row in rows
        ],
        axis=1,
    )


def _think(agent: Agent, observations: np.ndarray, noise: list[np.random.Generator]) -> Thought:
    outputs = agent.activations(observations, HEADS)
    logits, values = (outputs[head].cpu() for head in HEADS)
    drawn = np.stack([own.gumbel(size=NUM_ACTIONS) for own in noise])
    actions = likeliest(logits + torch.from_numpy(drawn)).numpy()
    return Thought(logits.softmax(1).numpy(), actions, values.squeeze(1).numpy())


def _with_strips(own: videos.Film, thoughts: Sequence[Thought], episode: int) -> videos.Film:
    """Draw the agent's outputs below each picture.

    There are none after the last step: the simulator does not show how an episode ends, and the
    picture after a film was cut is left out.
    """
    last = len(own.frames) - 2
    frames = own.frames if own.ending else own.frames[:-1]
    told = [
        np.concatenate([frame, _strip(thoughts[min(step, last)], episode)])
        for step, frame in enumerate(frames)
    ]
    return videos.Film(np.stack(told), own.ending.replace(" at step", "\nat step"))


def _strip(thought: Thought, episode: int) -> UInt8[np.ndarray, "height width 3"]:
    canvas = Image.new("RGB", (SIDE, STRIP), "white")
    draw = ImageDraw.Draw(canvas)
    taken, floor = thought.actions[episode], STRIP - 14
    for action, probability in enumerate(thought.probabilities[episode]):
        left, height = 4 + BAR * action, round(float(probability) * (floor - 2))
        colour = CHOSEN if action == taken else OTHER
        draw.rectangle((left, floor - height, left + BAR - 2, floor), fill=colour)
    text = f"value {thought.values[episode]:.2f}"
    draw.text((4, floor + 1), text, fill=INK, font=videos.font(FONT_SIZE))
    return np.asarray(canvas)
