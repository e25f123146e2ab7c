"""Ask whether a maze agent uses what a probe reads, and write a report.

    python scripts/validate_probe.py --agent maze-bimpala-compact --layer block2 --out runs/demo
    python scripts/validate_probe.py --agent maze-impala-compact --surrogate beside --out runs/relu
    python scripts/validate_probe.py --agent maze-impala-compact --surrogate instead --out runs/own

The report folder has report.md, tables, figures, the edited agents, and TensorBoard's events.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rlbilinear.agents import load
from rlbilinear.agents.surrogate import regrouped
from rlbilinear.probes.concepts import concept
from rlbilinear.probes.report import REPORT, check_output
from rlbilinear.probes.study import Sizes
from rlbilinear.probes.surrogate import surrogate_of
from rlbilinear.probes.validation import validate

NAMES = {
    "no": "{}",
    "beside": "{} (by its quadratic surrogate)",
    "instead": "{}'s quadratic surrogate",
}


@dataclass(frozen=True)
class Options:
    """Ask whether a maze agent uses what a probe reads, and write a report."""

    out: Path
    """folder of the report"""
    agent: str = "maze-bimpala-compact"
    """a name of the zoo, or a folder"""
    surrogate: Literal["no", "beside", "instead"] = "no"
    """of a ReLU agent: read and edit it by the eigenfilters of its quadratic surrogate (beside), or
    validate the surrogate in its place (instead)"""
    layer: str = "block2"
    """whose output is probed and edited"""
    concept: str = "cheese_presence"
    """what the probe reads"""
    sizes: Annotated[Sizes, tyro.conf.arg(name="")] = field(default_factory=Sizes)
    seed: int = 0
    """of everything random"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    overwrite: bool = False
    """replace a report that is in the folder"""
    progress: bool = True
    """show bars"""


def main() -> None:
    """Validate, save, and print the verdict."""
    try:
        options = tyro.cli(Options, description=__doc__)
        check_output(options.out, options.overwrite)
        agent, surrogate = load(options.agent, options.device), None
        if options.surrogate != "no":
            surrogate = surrogate_of(agent, seed=options.seed)
            agent = regrouped(agent)  # whose layers have the surrogate's names
        if options.surrogate == "instead" and surrogate is not None:
            agent, surrogate = surrogate, None
        report = validate(
            agent,
            layer=options.layer,
            concept=concept(options.concept),
            sizes=options.sizes,
            seed=options.seed,
            name=NAMES[options.surrogate].format(options.agent),
            progress=options.progress,
            surrogate=surrogate,
        )
        report.save(options.out, options.overwrite)
    except (ValueError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was written")
    print(report.table())
    print(f"\nReport:       {options.out / REPORT}")
    print(f"TensorBoard:  {Path(sys.executable).parent / 'tensorboard'} --logdir {options.out}")
