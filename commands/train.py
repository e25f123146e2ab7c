"""Train an agent by PPO.

    python scripts/train.py --out runs/coinrun --game coinrun --frames 2000000

The same command with --resume continues a run that was stopped: by Ctrl-C or SIGTERM, which save it
first, or in any other way. Watch it with ``tensorboard --logdir runs``.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.ppo import newest_checkpoint, train
from rlbilinear.agents.signals import Stopped


@dataclass(frozen=True)
class Command:
    """Train an agent by PPO on a ProcGen game."""

    options: Annotated[TrainOptions, tyro.conf.arg(name="")]
    overwrite: bool = False
    """replace a run that is in the folder"""
    resume: bool = False
    """continue the run that is in the folder"""


def main() -> None:
    """Train as the command line says."""
    command = tyro.cli(Command, description=__doc__)
    try:
        train(command.options, overwrite=command.overwrite, resume=command.resume)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except Stopped as stopped:
        print(f"{stopped}; {going_on(command.options.out)}", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        print(f"stopped at once; {going_on(command.options.out)}", file=sys.stderr)
        sys.exit(130)


def going_on(run: Path) -> str:
    """Say how the run goes on: this command with --resume, if there is a checkpoint."""
    if newest_checkpoint(run) is None:
        return "nothing was saved yet: the same command begins anew"
    given = [each for each in sys.argv if each not in ("--overwrite", "--resume")]
    return f"to go on:\n{shlex.join(['python', *given, '--resume'])}"
