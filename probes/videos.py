"""Episodes of several agents from the same maze, side by side, and animated GIFs of them."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from agents import Agent
from envs import Maze, Simulator

Frames = UInt8[np.ndarray, "time 3 height width"]

_SIDE, _GAP, _STRIP = 256, 8, 44
"""Pixels: an agent's picture, the space between two, the caption above."""
_PALETTE_FRAMES = 8
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def side_by_side(
    maze: Maze, agents: Mapping[str, Agent], *, steps: int = 100, seed: int = 0
) -> Frames:
    """Play one episode of each agent from the same maze, in the simulator.

    Agents share their sampling noise, which is that of `agents.evaluate.evaluate` on the maze's
    level: an unedited maze shows the very episode that is measured there. An agent that is done
    stays in its last frame, the one before its last step: the simulator shows no later one. The
    video ends when all are done.

    Args:
        maze: where every agent starts.
        agents: by the name written above them.
        steps: at most so many.
        seed: of the sampled actions.

    Returns:
        (time, 3, height, width), time at most ``steps`` + 1.

    Raises:
        ValueError: no agents, or fewer than one step.
    """
    if not agents or steps < 1:
        raise ValueError(f"expected agents and steps >= 1, got {list(agents)} and {steps}")
    simulator = Simulator("maze", len(agents), mode=maze.mode, human_view=True)
    try:
        simulator.set_states([maze.to_bytes()] * len(agents))
        noise = np.random.default_rng([seed, maze.level_seed or 0])
        return _play(simulator, agents, steps, noise)
    finally:
        simulator.close()


def animated_gif(frames: Frames, *, frames_per_second: float = 8.0) -> bytes:
    """Encode frames as a GIF that repeats, with 256 colours chosen over frames spread evenly.

    Raises:
        ValueError: frames of another type or shape, or none.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1] != 3 or not len(frames):
        raise ValueError(
            f"expected uint8 frames (time, 3, height, width), got {frames.dtype} of shape "
            f"{frames.shape}"
        )
    pictures = [Image.fromarray(frame) for frame in frames.transpose(0, 2, 3, 1)]
    spread = np.linspace(0, len(frames) - 1, min(len(frames), _PALETTE_FRAMES)).round().astype(int)
    together = np.concatenate([frames[index].transpose(1, 2, 0) for index in spread])
    palette = Image.fromarray(together).quantize(256, dither=Image.Dither.NONE)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    buffer = io.BytesIO()
    indexed[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=round(1000 / frames_per_second),
        loop=0,
    )
    return buffer.getvalue()


def _play(
    simulator: Simulator, agents: Mapping[str, Agent], steps: int, noise: np.random.Generator
) -> Frames:
    pictures = _views(simulator)
    endings = dict.fromkeys(agents, "")
    frames = [_frame(pictures, [f"{name}\nstep 0" for name in agents])]
    for step in range(1, steps + 1):
        observations = simulator.observe().images.transpose(0, 3, 1, 2)
        logits = np.stack(
            [
                agent.logits(observation[None])[0].cpu().numpy()
                for agent, observation in zip(agents.values(), observations, strict=True)
            ]
        )
        simulator.act((logits + noise.gumbel(size=logits.shape[1])).argmax(1))
        views, done = _views(simulator), simulator.observe().first
        for index, name in enumerate(agents):
            if not endings[name] and done[index]:
                complete = simulator.info("prev_level_complete")[index]
                endings[name] = f"{'cheese' if complete else 'time is up'} at step {step}"
            if not endings[name]:
                pictures[index] = views[index]
        captions = [f"{name}\n{ending or f'step {step}'}" for name, ending in endings.items()]
        frames.append(_frame(pictures, captions))
        if all(endings.values()):
            break
    return np.stack(frames)


def _views(simulator: Simulator) -> list[UInt8[np.ndarray, "512 512 3"]]:
    simulator.observe()
    return list(simulator.info("rgb").copy())


def _frame(
    pictures: list[UInt8[np.ndarray, "512 512 3"]], captions: list[str]
) -> UInt8[np.ndarray, "3 height width"]:
    width = len(pictures) * (_SIDE + _GAP) - _GAP
    canvas = Image.new("RGB", (width, _STRIP + _SIDE), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.truetype(str(_FONT), 15)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = index * (_SIDE + _GAP)
        draw.multiline_text((left + 4, 3), caption, fill="black", font=font)
        canvas.paste(
            Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BOX), (left, _STRIP)
        )
    return np.asarray(canvas).transpose(2, 0, 1)
