"""Train an agent by PPO.

    python scripts/train.py --out runs/coinrun --game coinrun --frames 2000000

The same command with --resume continues a run that was stopped: by Ctrl-C or SIGTERM, which save it
first, or in any other way. Watch it with ``tensorboard --logdir runs``.
"""

import shlex
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from agents.options import TrainOptions
from agents.ppo import train
from agents.signals import Stopped


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
        print(f"{stopped}; to go on:\n{resume_command()}", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        print(f"stopped at once; from the last checkpoint:\n{resume_command()}", file=sys.stderr)
        sys.exit(130)


def resume_command() -> str:
    """Return this command as it continues the run."""
    given = [each for each in sys.argv if each not in ("--overwrite", "--resume")]
    return shlex.join(["python", *given, "--resume"])


if __name__ == "__main__":
    main()
