"""Train a maze agent from the shortest-path expert, on a CPU in one to two hours.

    python scripts/distill.py --out runs/maze --precision bfloat16

The same command with --resume continues a run that was stopped. Watch it with
``tensorboard --logdir runs``.
"""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from rlbilinear.agents.distillation import DistillOptions, distill


@dataclass(frozen=True)
class Command:
    """Train a maze agent from the shortest-path expert."""

    options: Annotated[DistillOptions, tyro.conf.arg(name="")]
    overwrite: bool = False
    """replace a run that is in the folder"""
    resume: bool = False
    """continue the run that is in the folder"""


def main() -> None:
    """Train as the command line says."""
    command = tyro.cli(Command, description=__doc__)
    try:
        distill(command.options, overwrite=command.overwrite, resume=command.resume)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command with --resume continues from the last checkpoint")
