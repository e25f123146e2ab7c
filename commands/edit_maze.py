"""Edit a maze as a text file, and see what the simulator draws and where an agent goes in it.

    python scripts/edit_maze.py --out maze.txt --seed 3 --agent maze-bimpala-compact --watch

Writes the level as text unless the file is there, and draws it as maze.png beside it. Edit the text
in any editor; run this again, or let it --watch, to draw it again. Two characters are a cell: ██ or
## wall, C cheese (several or none are allowed), M mouse; spaces are free.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from PIL import Image

from rlbilinear.agents import load
from rlbilinear.envs import Maze, human_view, vector_field
from rlbilinear.envs.fields import MovePolicy
from rlbilinear.envs.files import replacing
from rlbilinear.envs.overlays import arrows
from rlbilinear.envs.text_overlays import arrows_text
from rlbilinear.probes.moves import move_probabilities

PAUSE = 0.3
"""Seconds between two looks at a watched file."""


@dataclass(frozen=True)
class Options:
    """Edit a maze as a text file."""

    out: Path
    """the text file; one that is there is drawn as it is, never replaced"""
    seed: int = 0
    """level that a new file begins with"""
    mode: str = "easy"
    """its distribution mode: easy, hard or memory"""
    picture: Path | None = None
    """the picture; by default beside the text, with the ending .png"""
    agent: str | None = None
    """draw where this agent goes from each cell: a name of the zoo, or a folder"""
    watch: bool = False
    """draw again whenever the file changes, until Ctrl-C"""
    allow_disconnected: bool = False
    """accept free cells that no way leads to from the mouse"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""


def draw(options: Options, policy: MovePolicy | None) -> None:
    """Read the text, and draw it on the screen and as PNG.

    Raises:
        ValueError: the text is no maze; says where and why.
        OSError: a file cannot be read or written.
    """
    maze = Maze.load(options.out, allow_disconnected=options.allow_disconnected)
    view, text = human_view(maze), str(maze)
    if policy is not None:
        field = vector_field(maze, policy)
        view, text = arrows(view, maze, field), arrows_text(maze, field)
    target = options.picture or options.out.with_suffix(".png")
    with replacing(target) as unfinished:
        Image.fromarray(view).save(unfinished, "PNG")
    print(text)
    print(f"{options.out} is drawn as {target}", flush=True)


def watch(path: Path, redraw: Callable[[], None], pause: Callable[[float], object]) -> None:
    """Call whenever a file has changed, without end; what is wrong with it is said on stderr."""
    seen = stamp(path)
    while True:
        pause(PAUSE)
        now = stamp(path)
        if now == seen or now is None:  # some editors remove a file before they write it
            continue
        seen = now
        try:
            redraw()
        except (ValueError, OSError) as error:
            print(f"{error}\nthe picture stays as it was", file=sys.stderr, flush=True)


def stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file does; None while there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def run(options: Options, pause: Callable[[float], object] = time.sleep) -> None:
    """Write the level when there is no file, draw, and watch when asked.

    Raises:
        ValueError: the text is no maze, or a seed, mode or agent that there is not.
        OSError: a file cannot be read or written.
    """
    if options.picture == options.out or options.out.suffix.lower() == ".png":
        raise ValueError(f"{options.out} is the text file; give the picture another name")
    policy = None
    if options.agent is not None:
        policy = partial(move_probabilities, load(options.agent, options.device))
    if options.out.exists():
        print(f"{options.out} is there and stays as it is (remove it to begin with a level)")
    else:
        Maze.from_seed(options.seed, options.mode).save(options.out)
    if not options.watch:
        draw(options, policy)
        return
    redraw = partial(draw, options, policy)
    try:
        redraw()
    except ValueError as error:  # to be mended while it is watched
        print(error, file=sys.stderr, flush=True)
    print("watching; Ctrl-C ends it", flush=True)
    watch(options.out, redraw, pause)


def main() -> None:
    """Edit a maze as a text file."""
    options = tyro.cli(Options, description=__doc__)
    try:
        run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
