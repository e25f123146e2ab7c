"""Take a direction of a layer apart: its spectrum, its eigenfilters, and what excites them.

    rlbilinear decompose --agent maze-bimpala-compact --layer block2 --direction probe
    rlbilinear decompose --layer dense --direction right --depth --sweep 1 2 4 8 16 32

The direction "probe" is that of a probe fitted to the cheese, "difference" is what changes most
when only the cheese moves. A sweep keeps eigenvectors of the policy's forms in the dense layer, and
those of the direction in a convolution.

The folder has report.md, figures, tables, settings.json, and TensorBoard's events.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from rlbilinear.agents.folder import provenance
from rlbilinear.agents.truncate import Of
from rlbilinear.commands.inputs import load_maze_agent
from rlbilinear.commands.outputs import check_folder, tensorboard_command, writing
from rlbilinear.commands.running import Command, Count, Seed, Several
from rlbilinear.probes.chains import with_depth
from rlbilinear.probes.decomposition import REPORT, Decomposition, decompose
from rlbilinear.probes.truncation import with_sweep


@dataclass(frozen=True)
class DecomposeOptions:
    """Take a direction of a layer apart, and draw what it does."""

    agent: str = "maze-bimpala-compact"
    """a zoo agent, or a folder; it must play maze"""
    layer: str = "block2"
    """a bilinear block, or dense"""
    direction: str = "probe"
    """probe, difference, the index of a channel, left|down|up|right|stay, or a .npy file"""
    out: Path = Path("runs/decomposition")
    """folder of the results"""
    filters: Count = 6
    """number of eigenfilters to draw"""
    levels: Count = 24
    """held-out levels to play, to find what excites the filters most"""
    fit_levels: Count = 60
    """levels on which the probe is fitted, or the difference measured"""
    depth: bool = False
    """also follow the direction down through the layers below, with the R² of what is kept"""
    sweep: Several[Count] = ()
    """also play with this many eigenvectors of the layer kept"""
    of: Of = "action"
    """in a sweep of the dense layer: eigenvectors of each action, of each move, or joint ones"""
    whole: bool = False
    """in a sweep of a convolution, keep eigenfilters of all its directions, not only of this one"""
    centred: bool = False
    """in a sweep of the dense layer, subtract the mean of the forms first"""
    sweep_levels: Count = 100
    """held-out levels to play with each number of eigenvectors"""
    seed: Seed = 0
    """seed of everything random"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    overwrite: bool = False
    """replace the results in the folder"""
    progress: bool = True
    """show progress bars"""


def decomposed(options: DecomposeOptions) -> Decomposition:
    """Decompose, and play truncated agents when asked.

    Raises:
        ValueError: unknown agent, layer or direction, or more eigenvectors than the rank.
    """
    agent = load_maze_agent(options.agent, options.device)
    recorded = {name: str(value) for name, value in asdict(options).items()}
    found = decompose(
        agent,
        options.layer,
        options.direction,
        filters=options.filters,
        levels=options.levels,
        fit_levels=options.fit_levels,
        seed=options.seed,
        settings={"options": recorded, **provenance()},
        progress=options.progress,
    )
    if options.depth:
        found = with_depth(found, agent)
    if not options.sweep:
        return found
    return with_sweep(
        found,
        agent,
        options.sweep,
        of=options.of,
        whole=options.whole,
        centred=options.centred,
        levels=options.sweep_levels,
        seed=options.seed,
        progress=options.progress,
    )


def _decompose(options: DecomposeOptions) -> None:
    """Decompose, print what was found, and save it."""
    check_folder(options.out, overwrite=options.overwrite, marker=REPORT)
    found = decomposed(options)
    print(found.title)
    for name, drawing in found.figures.items():
        print(f"  {name}.png: {drawing.caption}")
    if "sweep" in found.tables:
        print(found.tables["sweep"].to_string(index=False, float_format="{:.3g}".format))
    with writing(options.out):
        found.save(options.out, overwrite=options.overwrite)
    print(f"\nReport:       {options.out / REPORT}")
    print(f"TensorBoard:  {tensorboard_command(options.out)}")


main = Command(DecomposeOptions, _decompose, __doc__)
