"""Episodes as pictures in time, and GIF and MP4 files of them, one or several side by side."""

from __future__ import annotations

import functools
import importlib.metadata
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from rlbilinear.envs.files import replacing
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.render import human_view
from rlbilinear.envs.vecenv import Observations, ProcgenVecEnv

Frames = UInt8[np.ndarray, "time height width 3"]
Policy = Callable[[Observations], Int[np.ndarray, " envs"]]
"""From observations to actions."""

SIDES = (64, 128, 256, 512)
"""Sides of a film's pictures, in pixels."""
FONT_SIZE = 15
_GAP, _STRIP = 8, 44
"""Pixels: of captions' letters; between two films, of the caption above."""
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_PALETTE_FRAMES = 8


@dataclass(frozen=True, eq=False)
class Film:
    """An episode in pictures.

    Attributes:
        frames: the first is before the first step.
        ending: how the episode ended, such as "completed at step 12"; "" where it did not.
    """

    frames: Frames
    ending: str = ""


def film(scenes: Iterable[Maze | Heist | bytes], *, side: int = 256) -> Film:
    """Return the human views of mazes, heists or states, one after the other.

    Args:
        scenes: such as the states recorded along a rollout.
        side: side of the pictures in pixels, one of `SIDES`.

    Raises:
        ValueError: no scene, one that is not accepted, or another side.
    """
    _check_side(side)
    pictures = [_resized(human_view(scene), side) for scene in scenes]
    if not pictures:
        raise ValueError("expected at least one maze, heist or state")
    return Film(np.stack(pictures))


def play(env: ProcgenVecEnv, policy: Policy, *, steps: int = 1000, side: int = 256) -> list[Film]:
    """Film one episode in each environment, from where it is now.

    The simulator never shows the picture after an episode's last step: a film stays on the one
    before. With `render_mode="rgb_array"` the environment is filmed in the human view, otherwise in
    the agent's, enlarged. A frame takes ``3 side^2`` bytes.

    Args:
        env: stepped until every film has ended; the levels that follow are played meanwhile.
        policy: from observations to an action for each environment.
        steps: at most so many.
        side: side of the pictures in pixels, one of `SIDES`.

    Returns:
        A film for each environment, of at most ``steps + 1`` frames.

    Raises:
        ValueError: fewer than one step, another side, or actions that are none.
    """
    _check_side(side)
    if steps < 1:
        raise ValueError(f"expected steps >= 1, got {steps}")
    observations = env.observe()
    frames = [[picture] for picture in _pictures(env, observations, side)]
    endings = [""] * env.num_envs
    for step in range(1, steps + 1):
        shown, rewards, dones, infos = env.step(np.asarray(policy(observations)))
        observations = np.asarray(shown)
        for index, picture in enumerate(_pictures(env, observations, side)):
            if endings[index]:
                continue
            if dones[index]:
                endings[index] = f"{_outcome(infos[index], float(rewards[index]))} at step {step}"
            frames[index].append(frames[index][-1] if dones[index] else picture)
        if all(endings):
            break
    return [Film(np.stack(own), ending) for own, ending in zip(frames, endings, strict=True)]


def side_by_side(films: Mapping[str, Film], *, font_size: int = FONT_SIZE) -> Frames:
    """Set films beside each other, under their names, the step, and how they ended.

    A film that is over stays on its last frame until the longest one is.

    Args:
        films: of one height, by the names written above them.
        font_size: of these, in pixels; films less than 256 wide need smaller letters.

    Raises:
        ValueError: no film, or frames that are none or of different heights.
    """
    if not films:
        raise ValueError("expected at least one film")
    for name, own in films.items():
        _check_frames(own.frames, name)
    heights = {name: own.frames.shape[1] for name, own in films.items()}
    if len(set(heights.values())) > 1:
        raise ValueError(f"expected films of one height, got {heights}")
    last = max(len(own.frames) for own in films.values()) - 1
    return np.stack([_row(films, step, font(font_size)) for step in range(last + 1)])


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return the letters of captions, which are the same on every machine."""
    return ImageFont.truetype(str(_FONT), size)


def gif_bytes(frames: Frames, *, frames_per_second: float = 8.0) -> bytes:
    """Encode frames as a GIF that repeats, with 256 colours chosen over frames spread evenly.

    A GIF keeps time in hundredths of a second.

    Raises:
        ValueError: frames of another type or shape, or none; or not 0 < frames_per_second <= 50.
    """
    _check_frames(frames)
    _check_rate(frames_per_second)
    spread = np.linspace(0, len(frames) - 1, min(len(frames), _PALETTE_FRAMES)).round().astype(int)
    together = Image.fromarray(np.concatenate(frames[spread]))
    palette = together.quantize(256, dither=Image.Dither.NONE)
    pictures = (Image.fromarray(frame) for frame in frames)
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


def write_video(path: str | Path, frames: Frames, *, frames_per_second: float = 8.0) -> None:
    """Write frames as the file's name says, .gif or .mp4; a file that is there is replaced.

    MP4 is H.264 as browsers play it: an odd side gets a line of pixels more.

    Args:
        path: path of the file; it is there only when it is complete.
        frames: from `side_by_side`, or a film's.
        frames_per_second: at most 50.

    Raises:
        ValueError: another ending, frames that are none, or not 0 < frames_per_second <= 50.
        RuntimeError: there is no encoder for MP4, or it failed; says what to install.
    """
    path = Path(path)
    encoders: dict[str, Callable[[Path, Frames, float], None]] = {
        ".gif": _write_gif,
        ".mp4": _write_mp4,
    }
    if path.suffix.lower() not in encoders:
        raise ValueError(f"expected a name that ends in {' or '.join(encoders)}, got {path}")
    _check_frames(frames)
    _check_rate(frames_per_second)
    with replacing(path) as unfinished:
        encoders[path.suffix.lower()](unfinished, frames, frames_per_second)


def _write_gif(path: Path, frames: Frames, frames_per_second: float) -> None:
    path.write_bytes(gif_bytes(frames, frames_per_second=frames_per_second))


def _write_mp4(path: Path, frames: Frames, frames_per_second: float) -> None:
    _, height, width, _ = frames.shape
    command = [
        _ffmpeg(), "-loglevel", "error", "-y",
        "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}",
        "-framerate", f"{frames_per_second:g}", "-i", "-",
        "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-crf", "18",
        "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as messages:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=messages) as encoder:
            assert encoder.stdin is not None
            try:
                for frame in frames:
                    encoder.stdin.write(frame.tobytes())
                encoder.stdin.close()
            except BrokenPipeError:  # it has ended, and said why
                pass
        if encoder.returncode:
            messages.seek(0)
            said = messages.read().decode(errors="replace").strip()
            raise RuntimeError(f"{command[0]} could not encode the video: {said}")


def _ffmpeg() -> str:
    """Return the encoder that came with gym3 (by imageio-ffmpeg), else the system's.

    imageio-ffmpeg is not imported: gym3 pins a version that needs the removed `pkg_resources`.
    """
    try:
        files = importlib.metadata.files("imageio-ffmpeg") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    bundled = [str(file.locate()) for file in files if file.name.startswith("ffmpeg-")]
    for candidate in (*bundled, shutil.which("ffmpeg")):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise RuntimeError(
        "no encoder for MP4: install ffmpeg (Debian and Ubuntu: apt-get install ffmpeg) or the "
        "package imageio-ffmpeg, or write a .gif"
    )


def _row(
    films: Mapping[str, Film], step: int, letters: ImageFont.FreeTypeFont
) -> UInt8[np.ndarray, "height width 3"]:
    """Return one frame of films side by side."""
    frames = [own.frames[min(step, len(own.frames) - 1)] for own in films.values()]
    width = sum(frame.shape[1] + _GAP for frame in frames) - _GAP
    canvas = Image.new("RGB", (width, _STRIP + len(frames[0])), "white")
    draw = ImageDraw.Draw(canvas)
    left = 0
    for (name, own), frame in zip(films.items(), frames, strict=True):
        over = step >= len(own.frames) - 1 and own.ending
        caption = f"{name}\n{own.ending if over else f'step {min(step, len(own.frames) - 1)}'}"
        draw.multiline_text((left + 4, 3), caption, fill="black", font=letters)
        canvas.paste(Image.fromarray(frame), (left, _STRIP))
        left += frame.shape[1] + _GAP
    return np.asarray(canvas)


def _pictures(
    env: ProcgenVecEnv, observations: Observations, side: int
) -> list[UInt8[np.ndarray, "side side 3"]]:
    if env.render_mode is None:
        return [_resized(picture, side) for picture in observations.transpose(0, 2, 3, 1)]
    return [_resized(np.asarray(picture), side) for picture in env.get_images()]


def _resized(
    picture: UInt8[np.ndarray, "own own 3"], side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """Repeat pixels, or average them; sides are powers of two."""
    repeats = side // len(picture)
    if repeats:
        return picture.repeat(repeats, 0).repeat(repeats, 1)
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BOX))


def _outcome(info: Mapping[str, Any], reward: float) -> str:
    if info["prev_level_complete"]:
        return "completed"
    return "time is up" if info["TimeLimit.truncated"] else f"ended with reward {reward:g}"


def _check_side(side: int) -> None:
    if side not in SIDES:
        raise ValueError(f"a side is one of {', '.join(map(str, SIDES))} pixels, got {side!r}")


def _check_frames(frames: Frames, name: str = "") -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(
            f"expected uint8 frames (time, height, width, 3){f' of {name}' if name else ''}, got "
            f"{frames.dtype} of shape {frames.shape}"
        )


def _check_rate(frames_per_second: float) -> None:
    if not 0 < frames_per_second <= 50:
        raise ValueError(f"expected 0 < frames_per_second <= 50, got {frames_per_second}")
