"""Measure speed and memory, side by side with the alternative, in one run.

    rlbilinear benchmark startup envs decomposition polynomial probes training

Prints a table for each subject. With --out it also writes each table as CSV, the machine and
versions as JSON, and figures. Times are medians; on a busy machine only the ratios are reliable.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import pandas as pd
import tyro

from rlbilinear.agents.folder import provenance, write_json
from rlbilinear.benchmarks.measure import table
from rlbilinear.commands.outputs import check_writable, new_file, writing
from rlbilinear.commands.running import Command

Subject = Literal[
    "startup", "envs", "decomposition", "polynomial", "probes", "training", "language"
]
DEFAULT: tuple[Subject, ...] = get_args(Subject)[:-1]


@dataclass(frozen=True)
class BenchmarkOptions:
    """Measure speed and memory, side by side with the alternative."""

    subjects: Annotated[tuple[Subject, ...], tyro.conf.Positional] = DEFAULT
    """what to measure; by default everything that needs no extra: all but language"""
    out: Path | None = None
    """folder for the tables as CSV, and figures"""


def _benchmark(options: BenchmarkOptions) -> None:
    """Measure the subjects one after another."""
    if options.out is not None:
        check_writable(options.out / f"{options.subjects[0]}.csv")
    for subject in options.subjects:
        module = importlib.import_module(f"rlbilinear.benchmarks.{subject}")
        rows = table(module.comparisons())
        print(f"\n{subject}\n{rows.to_string(index=False)}", flush=True)
        if options.out is not None:
            write(rows, options.out, subject)
            for name, figure in getattr(module, "figures", dict)().items():
                with new_file(options.out / f"{subject}_{name}.png") as file:
                    figure.savefig(file, dpi=150)


def write(rows: pd.DataFrame, out: Path, subject: str) -> None:
    """Write a subject's table as CSV, and what it was measured on as JSON."""
    with new_file(out / f"{subject}.csv") as file:
        rows.to_csv(file, index=False)
    with writing(out / f"{subject}.json"):
        write_json(out / f"{subject}.json", provenance())


main = Command(BenchmarkOptions, _benchmark, __doc__)
