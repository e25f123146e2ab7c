"""Edit a maze as a text file, and see what the simulator draws and where an agent goes in it.

    rlbilinear maze --out maze.txt --seed 3 --agent maze-bimpala-compact --watch

Writes a level as text, unless the file exists, and draws it as maze.png beside it. Edit the text in
any editor; run this again to draw it again, or use --watch. Two characters are a cell: ██ or ##
wall, C cheese (one, several or none), M mouse; spaces are free.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from rlbilinear.commands.inputs import load_maze_agent
from rlbilinear.commands.outputs import check_writable, new_file, writing
from rlbilinear.commands.running import Command, Seed
from rlbilinear.envs import Maze, human_view, vector_field
from rlbilinear.envs.fields import MovePolicy
from rlbilinear.envs.overlays import arrows
from rlbilinear.envs.text_overlays import arrows_text
from rlbilinear.probes.moves import move_probabilities

PAUSE = 0.3
"""Seconds between two looks at a watched file."""


@dataclass(frozen=True)
class MazeOptions:
    """Edit a maze as a text file."""

    out: Path
    """the text file; if it exists, it is drawn and never replaced"""
    seed: Seed = 0
    """seed of the level that a new file starts with"""
    mode: str = "easy"
    """distribution mode of that level: easy, hard or memory"""
    picture: Path | None = None
    """the picture; by default beside the text, with the suffix .png"""
    agent: str | None = None
    """draw where this agent goes from each cell: a zoo agent, or a folder; it must play maze"""
    watch: bool = False
    """draw again whenever the file changes, until Ctrl-C"""
    allow_disconnected: bool = False
    """accept free cells that the mouse cannot reach"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""


def draw(options: MazeOptions, policy: MovePolicy | None) -> None:
    """Read the text, and draw it on the screen and as PNG.

    Raises:
        ValueError: the text is not a maze; says where and why.
        OSError: a file cannot be read or written.
    """
    maze = Maze.load(options.out, allow_disconnected=options.allow_disconnected)
    view, text = human_view(maze), str(maze)
    if policy is not None:
        field = vector_field(maze, policy)
        view, text = arrows(view, maze, field), arrows_text(maze, field)
    target = _picture(options)
    with new_file(target) as unfinished:
        Image.fromarray(view).save(unfinished, "PNG")
    print(text)
    print(f"{options.out} is drawn as {target}", flush=True)


def watch(path: Path, redraw: Callable[[], None], pause: Callable[[float], object]) -> None:
    """Redraw whenever a file has changed, without end; errors in it are printed on stderr."""
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
            print(f"{error}\nthe picture was not changed", file=sys.stderr, flush=True)


def stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file does; None while it does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def edit(options: MazeOptions, pause: Callable[[float], object] = time.sleep) -> None:
    """Write the level if the file does not exist, draw, and watch when asked.

    Raises:
        ValueError: the text is not a maze, an unknown mode or agent, or one of another game.
        OSError: a file cannot be read or written.
    """
    if options.out.is_dir():
        raise ValueError(f"--out: {options.out} is a folder; give the name of a text file")
    if _picture(options).is_dir():
        raise ValueError(f"--picture: {_picture(options)} is a folder; give the name of a file")
    if options.picture == options.out or options.out.suffix.lower() == ".png":
        raise ValueError(f"{options.out} is the text file; give the picture another name")
    policy = None
    if options.agent is not None:
        agent = load_maze_agent(options.agent, options.device)
        policy = partial(move_probabilities, agent)
    check_writable(_picture(options))
    if options.out.exists():
        print(f"{options.out} exists and is not changed (remove it to start with a level)")
    else:
        level = Maze.from_seed(options.seed, options.mode)
        with writing(options.out):
            options.out.parent.mkdir(parents=True, exist_ok=True)
            level.save(options.out)
    if not options.watch:
        draw(options, policy)
        return
    redraw = partial(draw, options, policy)
    try:
        redraw()
    except ValueError as error:  # to be corrected while it is watched
        print(error, file=sys.stderr, flush=True)
    print("watching; Ctrl-C ends it", flush=True)
    watch(options.out, redraw, pause)


def _picture(options: MazeOptions) -> Path:
    return options.picture or options.out.with_suffix(".png")


main = Command(MazeOptions, edit, __doc__, lambda options: f"{options.out} stays")
