"""What a fresh process takes to import the package, and to show the commands, in CPU time.

Other processes take no part in that; on a quiet machine with the files in memory it is the time.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from math import nan

from rlbilinear.benchmarks.measure import Comparison, Cost

IMPORT_SECONDS, HELP_SECONDS = 2.5, 0.7
REPEATS = 3


def comparisons() -> Iterator[Comparison]:
    """Measure new processes."""
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
    inner = "\n".join(f"from rlbilinear.{name} import *" for name in ("envs", "agents", "probes"))
    yield _within(
        "and all names of rlbilinear.envs, .agents and .probes",
        _less(inner, torch),
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
    """Return the CPU seconds of a process, user and system: the median of some runs."""
    seconds = []
    for _ in range(REPEATS + 1):
        before = os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        seconds.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
    return statistics.median(seconds[1:])  # the first writes bytecode
