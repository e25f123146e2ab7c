"""How long a fresh process takes to import the package, and to show the commands."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from math import nan

from rlbilinear.benchmarks.measure import Comparison, Cost, measure

IMPORT_SECONDS, HELP_SECONDS = 2.5, 0.7


def comparisons() -> Iterator[Comparison]:
    """Measure new processes, after one that is not timed, so that files are in memory."""
    nothing, torch = _seconds("pass"), _seconds("import torch")
    yield _within("import rlbilinear", _less("import rlbilinear", nothing), IMPORT_SECONDS)
    everything = _less(
        "from rlbilinear import *\nimport sys\nassert 'procgen' not in sys.modules", torch
    )
    yield _within(
        "import rlbilinear and all its names, torch's own import aside",
        everything,
        IMPORT_SECONDS,
        "import torch",
        Cost(torch - nothing, nan),
    )
    yield _within(
        "rlbilinear --help",
        Cost(_run([sys.executable, "-m", "rlbilinear", "--help"]), nan),
        HELP_SECONDS,
        "python -c pass",
        Cost(nothing, nan),
    )


def _within(
    task: str, ours: Cost, limit: float, alternative: str = "", other: Cost | None = None
) -> Comparison:
    target = f"at most {limit:g} s"
    return Comparison(task, ours, alternative, other, target, ours.seconds <= limit)


def _less(code: str, seconds: float) -> Cost:
    return Cost(max(_seconds(code) - seconds, 0.0), nan)


def _seconds(code: str) -> float:
    return _run([sys.executable, "-c", code])


def _run(command: Sequence[str]) -> float:
    def start() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return measure(start, repeats=3, memory=False).seconds
