"""Ask which concepts agents use, and where: all concepts at all layers, one picture per agent.

    rlbilinear atlas --agents maze-bimpala-compact --out runs/atlas
    rlbilinear atlas --agents maze-bimpala-compact --concepts cheese wall --ranks 1 2 --resume

Each concept, layer and rank is written as soon as it is known: --resume continues an interrupted
atlas. The folder OUT/report has report.md, figures, tables, settings.json, and TensorBoard's
events.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from rlbilinear.agents import load
from rlbilinear.commands.outputs import check_folder, check_writable, writing
from rlbilinear.commands.running import Command, Count, Seed
from rlbilinear.probes.causal.atlas import AtlasSizes, atlas
from rlbilinear.probes.report import REPORT
from rlbilinear.probes.subject import Subject, as_subject
from rlbilinear.probes.surrogate import SURROGATE, has_relu_blocks, surrogate_of


@dataclass(frozen=True)
class AtlasOptions:
    """Ask which concepts agents use, and where."""

    agents: tuple[str, ...] = ("maze-bimpala-compact",)
    """zoo agents, or folders"""
    surrogates: bool = False
    """ask also the quadratic surrogate of each agent with ReLU blocks"""
    concepts: tuple[str, ...] = ("all",)
    """names of concepts of the agents' game, or all"""
    layers: tuple[str, ...] = ("all",)
    """names of layers, or all"""
    ranks: tuple[Count, ...] = (1, 2, 4)
    """numbers of directions that are exchanged"""
    out: Path = Path("runs/atlas")
    """folder of the results"""
    fit_levels: Count = AtlasSizes.fit_levels
    """levels to fit on"""
    levels: Count = AtlasSizes.levels
    """held-out levels, on which all is decided"""
    states: Count = AtlasSizes.states_per_level
    """labelled states of each level"""
    pairs: Count = AtlasSizes.pairs_per_level
    """pairs of each level"""
    controls: Count = AtlasSizes.controls
    """random subspaces that each effect is compared with"""
    seed: Seed = 0
    """seed of everything random"""
    resume: bool = False
    """resume the atlas in the folder"""
    progress: bool = True
    """show progress bars"""


def _atlas(options: AtlasOptions) -> None:
    """Make the atlas, print what was found, and save the report."""
    check_writable(options.out / "report")
    check_folder(options.out / "report", overwrite=options.resume, marker=REPORT)
    found = atlas(
        subjects(options),
        [*options.concepts],
        "all" if options.layers == ("all",) else options.layers,
        options.ranks,
        out=options.out,
        sizes=AtlasSizes(
            options.fit_levels,
            options.levels,
            options.states,
            options.pairs,
            options.controls,
            options.seed,
        ),
        resume=options.resume,
        progress=options.progress,
    )
    with writing(options.out / "report"):
        found.report.save(options.out / "report", overwrite=options.resume)
    if len(found.cells):
        shown = found.cells[["agent", "concept", "layer", "status", "score", "sufficient", "shown"]]
        print(shown.to_string(index=False, float_format="{:.2f}".format))
    for row in found.not_asked.itertuples():
        print(f"not asked: {row.agent}, {row.concept}: {row.reason}")
    print(f"\nReport:       {options.out / 'report' / REPORT}")
    print(f"TensorBoard:  {Path(sys.executable).parent / 'tensorboard'} --logdir {options.out}")


def subjects(options: AtlasOptions) -> list[str | Subject]:
    """Return what is asked: the agents, and the surrogates that are wanted after them.

    Raises:
        ValueError: surrogates are wanted, and no agent has ReLU blocks.
    """
    if not options.surrogates:
        return [*options.agents]
    relu = {name: agent for name in options.agents if has_relu_blocks(agent := load(name))}
    if not relu:
        raise ValueError(f"--surrogates: no ReLU blocks in {', '.join(options.agents)}")
    made = [
        as_subject(surrogate_of(agent, seed=options.seed), name=name + SURROGATE)
        for name, agent in relu.items()
    ]
    return [*options.agents, *made]


def _resume(options: AtlasOptions) -> str:
    return f"what is done is in {options.out}: the same command with --resume continues"


main = Command(AtlasOptions, _atlas, __doc__, _resume)
