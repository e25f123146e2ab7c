"""Measure speed and memory, side by side with the alternative, in one run.

    python scripts/benchmark.py envs decomposition polynomial training

Prints a table for each subject, and with --out writes them as CSV beside the machine and versions,
and the subject's figures.
Times are medians; on a busy machine trust the ratios.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import pandas as pd
import tyro

from rlbilinear.agents.folder import provenance, write_json
from rlbilinear.benchmarks.measure import table

Subject = Literal["envs", "decomposition", "polynomial", "training"]


@dataclass(frozen=True)
class Command:
    """Measure speed and memory, side by side with the alternative."""

    subjects: Annotated[tuple[Subject, ...], tyro.conf.Positional] = get_args(Subject)
    """what to measure: one or several of envs, decomposition, polynomial, training"""
    out: Path | None = None
    """folder for the tables as CSV, and figures"""


def main() -> None:
    """Measure what the command line names."""
    command = tyro.cli(Command, description=__doc__)
    for subject in command.subjects:
        module = importlib.import_module(f"rlbilinear.benchmarks.{subject}")
        rows = table(module.compare())
        print(f"\n{subject}\n{rows.to_string(index=False)}", flush=True)
        if command.out is not None:
            write(rows, command.out, subject)
            for name, figure in getattr(module, "figures", dict)().items():
                figure.savefig(command.out / f"{subject}_{name}.png", dpi=150)


def write(rows: pd.DataFrame, out: Path, subject: str) -> None:
    """Write a subject's table as CSV, and what it was measured on as JSON."""
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{subject}.csv"
    rows.to_csv(partial, index=False)
    partial.replace(out / f"{subject}.csv")
    write_json(out / f"{subject}.json", provenance())
