"""Shared by the commands that train: a run is started, replaced or resumed."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import tyro

from rlbilinear.agents.folder import is_free, program

RunOptions = TypeVar("RunOptions")


@dataclass(frozen=True)
class RunCommand(Generic[RunOptions]):
    """A run's options, and what becomes of the run that is in its folder."""

    options: Annotated[RunOptions, tyro.conf.arg(name="")]
    overwrite: bool = False
    """replace the run in the folder"""
    resume: bool = False
    """resume the run in the folder"""


def how_to_resume(run: Path, *, saved: bool) -> str:
    """Return what to tell the user whose run was stopped.

    Args:
        run: its folder.
        saved: whether it has a checkpoint to resume from.
    """
    given = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    if saved:
        return f"to resume:\n{shlex.join([*program(), *given, '--resume'])}"
    again = "" if is_free(run) else " with --overwrite"
    return f"nothing was saved yet: the same command{again} starts again"
