"""Take a direction of a layer apart: its spectrum, its eigenfilters, and what excites them.

    python scripts/decompose.py --agent maze-bimpala-compact --layer block2 --direction probe
    python scripts/decompose.py --layer dense --direction right --depth --sweep 1 2 4 8 16 32

The folder has report.md, figures, tables, settings.json, and TensorBoard's events.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from rlbilinear.agents import load
from rlbilinear.agents.folder import provenance
from rlbilinear.agents.truncate import Of
from rlbilinear.probes.chains import with_depth
from rlbilinear.probes.decomposition import REPORT, Decomposition, check_output, decompose
from rlbilinear.probes.truncation import with_sweep


@dataclass(frozen=True)
class Options:
    """Take a direction of a layer apart, and draw what it does."""

    agent: str = "maze-bimpala-compact"
    """a name of the zoo, or a folder"""
    layer: str = "block2"
    """a bilinear block, or dense"""
    direction: str = "probe"
    """probe (for the cheese), difference (what changes when only the cheese moves), the index of a
    channel, left|down|up|right|stay, or a .npy file"""
    out: Path = Path("runs/decomposition")
    """folder of the results"""
    filters: int = 6
    """eigenfilters drawn"""
    levels: int = 24
    """held-out levels that are played, to find what excites the filters most"""
    fit_levels: int = 60
    """levels on which a probe is fitted, or a difference found"""
    depth: bool = False
    """also follow the direction down through the layers below, with the R² of what is kept"""
    sweep: tuple[int, ...] = ()
    """also play with so many eigenvectors kept: of the policy's forms in the dense layer, or of the
    direction in a convolution"""
    of: Of = "action"
    """whose eigenvectors a sweep of the dense layer keeps: each action's, each group's, or joint"""
    whole: bool = False
    """a sweep of a convolution keeps eigenfilters of all its directions, not of the one alone"""
    centred: bool = False
    """in a sweep of the dense layer, take the mean of the forms off first"""
    sweep_levels: int = 100
    """held-out levels played with each number of eigenvectors"""
    seed: int = 0
    """of everything random"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    overwrite: bool = False
    """replace results that are in the folder"""
    progress: bool = True
    """show bars"""


def run(options: Options) -> Decomposition:
    """Decompose, and play truncated agents when asked.

    Raises:
        ValueError: an agent, layer or direction that there is not; a k beyond the rank.
    """
    agent = load(options.agent, options.device)
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


def main() -> None:
    """Decompose, save, and say what was found."""
    try:
        options = tyro.cli(Options, description=__doc__)
        check_output(options.out, overwrite=options.overwrite)
        found = run(options)
        found.save(options.out, overwrite=options.overwrite)
    except (ValueError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was written")
    print(found.title)
    for name, drawing in found.figures.items():
        print(f"  {name}.png: {drawing.caption}")
    if "sweep" in found.tables:
        print(found.tables["sweep"].to_string(index=False, float_format="{:.3g}".format))
    print(f"\nReport:       {options.out / REPORT}")
    print(f"TensorBoard:  {Path(sys.executable).parent / 'tensorboard'} --logdir {options.out}")
