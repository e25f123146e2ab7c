"""Send a maze agent to every free cell of held-out mazes by bias maps, and see where it arrives.

    rlbilinear send --out runs/send
    rlbilinear send --out runs/send --mazes 100 --resume
    rlbilinear send --out runs/send --target 3 7

What a cheese on a cell adds to a layer's output is measured on fitting levels, and added as a bias:
with that map the agent walks to the cell, in any maze. OUT has the maps of all cells, and a table
and a figure: the maps beside a real cheese, the agent left alone, controls, and patched channels.
With --target the folder OUT/to-ROW-COLUMN has the agent with that cell's map in its weights, which
every other command takes; nothing is played.
"""

from dataclasses import dataclass
from pathlib import Path

from rlbilinear.agents import Agent, load
from rlbilinear.agents.edits.directions import steer
from rlbilinear.agents.folder import check_free, locked, provenance, write_json
from rlbilinear.commands.outputs import check_folder, writing
from rlbilinear.commands.running import Command, Count, Seed
from rlbilinear.envs import Cell
from rlbilinear.envs.levels import WORLD_SIZE
from rlbilinear.probes import destinations
from rlbilinear.probes.destinations import fit_maps, load_maps, save_maps, ways_to_send
from rlbilinear.probes.destinations_table import (
    check_settings,
    destinations_figure,
    destinations_summary,
    send_everywhere,
)

MAPS, TABLE, FIGURE, MADE = "maps.safetensors", "summary.csv", "destinations.png", "made.json"
FITTED = "maps.json"
"""What the maps depend on."""


@dataclass(frozen=True)
class SendOptions:
    """Send a maze agent to every free cell of held-out mazes."""

    out: Path = Path("runs/send")
    """folder of the maps, tables and figure"""
    agent: str = "maze-bimpala-compact"
    """a zoo agent, or a folder"""
    layer: str = destinations.LAYER
    """to whose output the maps are added"""
    mazes: Count = 50
    """held-out mazes"""
    fit_levels: Count = destinations.FIT_LEVELS
    """levels that the maps are fitted to"""
    per_cell: Count = destinations.PER_CELL
    """over at most so many of them each map is the mean"""
    target: tuple[int, int] | None = None
    """row and column: only save the agent that goes there"""
    seed: Seed = 0
    """seed of everything random"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    resume: bool = False
    """go on with what the folder has"""
    progress: bool = True
    """show progress bars"""


def _send(options: SendOptions) -> None:
    """Fit the maps; save the agent of one target, or send the agent everywhere."""
    side = WORLD_SIZE["easy"]
    if options.target is not None and not all(0 <= at < side for at in options.target):
        raise ValueError(f"--target: rows and columns are 0 to {side - 1}, got {options.target}")
    if not options.resume:
        check_folder(options.out, overwrite=False, marker="")
    agent = load(options.agent, options.device)
    with locked(options.out), writing(options.out):
        if not options.resume:
            check_free(options.out, overwrite=False, marker="")
        _send_from(options, agent)


def _send_from(options: SendOptions, agent: Agent) -> None:
    """Send the agent, and keep in the folder what is found; the folder is this process's alone."""
    fitted = {
        "agent": options.agent,
        "layer": options.layer,
        "fit_levels": options.fit_levels,
        "per_cell": options.per_cell,
        "seed": options.seed,
    }
    check_settings(options.out / FITTED, fitted)
    if not (options.out / MAPS).exists():
        maps = fit_maps(
            agent,
            options.layer,
            levels=options.fit_levels,
            per_cell=options.per_cell,
            seed=options.seed,
        )
        write_json(options.out / FITTED, fitted)
        save_maps(options.out / MAPS, maps, options.layer)
    maps, layer = load_maps(options.out / MAPS)
    if layer != options.layer:
        raise ValueError(f"--layer: the maps in {options.out} are of {layer}")
    if options.target is not None:
        cell = Cell(*options.target)
        if cell not in maps:
            raise ValueError(f"--target: {cell} is free in no fitting level; fit to more")
        folder = options.out / f"to-{cell.row}-{cell.column}"
        steer(agent, options.layer, maps[cell]).save(folder)
        print(f"Agent: {folder}")
        return
    settings = {**fitted, "mazes": options.mazes}
    ways = ways_to_send(agent, options.layer, maps, seed=options.seed)
    sent = send_everywhere(
        ways, options.mazes, options.out, settings, seed=options.seed, progress=options.progress
    )
    summary = destinations_summary(sent, seed=options.seed)
    summary["gain"] = summary["way"].map({name: way.gain for name, way in ways.items()})
    summary.to_csv(options.out / TABLE, index=False)
    destinations_figure(sent, summary).savefig(options.out / FIGURE)
    write_json(options.out / MADE, {**provenance(), **settings})
    print(summary.drop(columns="mazes").to_string(index=False, float_format="{:.3f}".format))
    print(f"\nMaps, table and figure: {options.out}")


def _resume(options: SendOptions) -> str:
    return f"what is done is in {options.out}: the same command with --resume continues"


main = Command(SendOptions, _send, __doc__, _resume)
