"""Ask whether a maze agent uses what a probe reads, and write a report.

    rlbilinear validate --agent maze-bimpala-compact --out runs/demo
    rlbilinear validate --agent maze-impala-compact --surrogate beside --out runs/relu
    rlbilinear validate --agent maze-impala-compact --surrogate instead --out runs/surrogate

With --surrogate beside, a ReLU agent is read and edited by the eigenfilters of its quadratic
surrogate; with --surrogate instead, the surrogate is validated in its place. The report folder has
report.md, tables, figures, the edited agents, and TensorBoard's events.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rlbilinear.agents import load
from rlbilinear.agents.surrogate import regrouped
from rlbilinear.commands.outputs import check_folder, tensorboard_command, writing
from rlbilinear.commands.running import Command, Seed
from rlbilinear.probes.concepts import concept
from rlbilinear.probes.report import REPORT, ValidationReport
from rlbilinear.probes.study import Sizes
from rlbilinear.probes.surrogate import BY_SURROGATE, SURROGATE, surrogate_of
from rlbilinear.probes.validation import validate

NAMES = {
    "no": "{}",
    "beside": "{}" + BY_SURROGATE,
    "instead": "{}" + SURROGATE,
}


@dataclass(frozen=True)
class ValidateOptions:
    """Ask whether a maze agent uses what a probe reads, and write a report."""

    out: Path
    """folder of the report"""
    agent: str = "maze-bimpala-compact"
    """a zoo agent, or a folder"""
    surrogate: Literal["no", "beside", "instead"] = "no"
    """use a quadratic surrogate beside a ReLU agent, or instead of it"""
    layer: str = "auto"
    """layer whose output is probed and edited; auto chooses it on the fitting levels"""
    concept: str = "cheese_presence"
    """concept that the probe reads"""
    sizes: Annotated[Sizes, tyro.conf.arg(name="")] = field(default_factory=Sizes)
    seed: Seed = 0
    """seed of everything random"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    overwrite: bool = False
    """replace the report in the folder"""
    progress: bool = True
    """show progress bars"""


def validated(options: ValidateOptions) -> ValidationReport:
    """Load the agent, and validate the probe.

    Raises:
        ValueError: unknown agent, layer or concept, or a surrogate of an agent without ReLU.
    """
    agent, surrogate = load(options.agent, options.device), None
    if options.surrogate != "no":
        surrogate = surrogate_of(agent, seed=options.seed)
        agent = regrouped(agent)  # whose layers have the surrogate's names
    if options.surrogate == "instead" and surrogate is not None:
        agent, surrogate = surrogate, None
    return validate(
        agent,
        layer=options.layer,
        concept=concept(options.concept),
        sizes=options.sizes,
        seed=options.seed,
        name=NAMES[options.surrogate].format(options.agent),
        progress=options.progress,
        surrogate=surrogate,
    )


def _validate(options: ValidateOptions) -> None:
    """Validate, print the verdict, and save the report."""
    check_folder(options.out, overwrite=options.overwrite, marker=REPORT)
    report = validated(options)
    print(report.table())
    with writing(options.out):
        report.save(options.out, options.overwrite)
    print(f"\nReport:       {options.out / REPORT}")
    print(f"TensorBoard:  {tensorboard_command(options.out)}")


main = Command(ValidateOptions, _validate, __doc__)
