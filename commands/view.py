"""Show a report as one page: figures, sortable tables, videos; it works offline.

    rlbilinear view runs/demo
    rlbilinear view runs/demo --steer

Takes the folder of `rlbilinear validate`, or of any command that writes tables and figures. The
page is one file that can be sent to others. With --steer it has a maze to click in: where does the
agent go when a cheese is planted there, along which direction, how strong? That is computed from
the report's own agent, directions and fitting levels, in a few minutes.
"""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rlbilinear.commands.outputs import check_writable, new_file
from rlbilinear.commands.running import Command, Seed
from rlbilinear.probes.page import page, read_folder

PAGE = "report.html"


@dataclass(frozen=True)
class ViewOptions:
    """Show a report as one page."""

    report: Annotated[Path, tyro.conf.Positional]
    """folder of a report"""
    out: Path | None = None
    """the page; by default report.html in the folder"""
    steer: bool = False
    """add a maze to click in, of the agent of a validation"""
    agent: str | None = None
    """with --steer, the agent: a zoo agent, a folder, or hf://; by default the report's"""
    level: Seed | None = None
    """with --steer, seed of the maze; by default the first held-out one with more than 30 cells"""
    open: bool = True
    """open the page in the browser"""


def _view(options: ViewOptions) -> None:
    """Write the page, and open it."""
    target = options.out or options.report / PAGE
    if target.is_dir():
        raise ValueError(f"--out: {target} is a folder; give the name of a file")
    report = read_folder(options.report)
    check_writable(target)
    steering = steered(options, report.settings) if options.steer else None
    text = page(report, steering)
    with new_file(target) as file:
        file.write_text(text)
    print(f"{target} ({len(text) / 1e6:.1f} MB)")
    if options.open and not webbrowser.open(target.absolute().as_uri()):
        print("no browser could be started; open the file in one")


def steered(options: ViewOptions, settings: dict[str, Any]) -> dict[str, Any]:
    """Compute the maze to click in, with the agent, layer, concept and sizes of a validation.

    Raises:
        ValueError: the report is none of a validation, or its agent cannot be loaded.
    """
    from rlbilinear.agents import load
    from rlbilinear.envs import Maze
    from rlbilinear.probes.concepts import concept
    from rlbilinear.probes.page_steering import large_maze, steered_maze
    from rlbilinear.probes.study import Sizes, prepare

    if missing := {"agent", "layer", "concept", "sizes", "seed"} - settings.keys():
        raise ValueError(
            f"--steer needs a report of `rlbilinear validate`; the settings of {options.report} "
            f"lack {', '.join(sorted(missing))}"
        )
    study = prepare(
        load(options.agent or settings["agent"]),
        settings["layer"],
        concept(settings["concept"]),
        sizes=Sizes(**settings["sizes"]),
        seed=settings["seed"],
    )
    maze = large_maze() if options.level is None else Maze.from_seed(options.level)
    return steered_maze(study, maze)


main = Command(ViewOptions, _view, __doc__)
