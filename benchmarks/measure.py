"""Time and peak memory of a call, and a table of comparisons."""

import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm


class Cost(NamedTuple):
    """What a call takes."""

    seconds: float
    """median of the repeats"""
    megabytes: float
    """peak of the process's resident memory during the call, above what it was before (Linux)"""


class Comparison(NamedTuple):
    """A task done in our way, and in another."""

    task: str
    ours: Cost
    alternative: str = ""
    """the other way, in words"""
    other: Cost | None = None
    """None when there is nothing to set beside it"""
    target: str = ""
    """what is asked of ours, in words"""
    met: bool | None = None
    """whether it does"""


def measure(
    call: Callable[[], object], *, repeats: int = 5, budget: float = 20.0, memory: bool = True
) -> Cost:
    """Time a call, after one that loads what libraries load once, and one whose memory is taken.

    Args:
        call: the work.
        repeats: timed calls, at least one.
        budget: seconds after which no further repeat is begun.
        memory: False for work whose memory is not the process's, but a GPU's.
    """
    call()
    megabytes = peak_memory(call) if memory else math.nan
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < budget:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return Cost(statistics.median(seconds), megabytes)


def measure_in_turns(
    ours: Callable[[], object],
    other: Callable[[], object],
    *,
    turns: int = 101,
    budget: float = 6.0,
) -> tuple[Cost, Cost]:
    """Measure two calls that are to be compared, one after the other in turns of changing order.

    What else the machine does then falls on both, and what it does meanwhile on neither: the time
    is the processor's. With one thread that is what one waits for on a machine at rest.

    Args:
        ours: the work.
        other: the other way to do it.
        turns: how often each is timed, at least 3 times.
        budget: seconds after which no further turn is begun.
    """
    calls = (ours, other)
    seconds: tuple[list[float], list[float]] = ([], [])
    memory = [peak_memory(call) for call in calls for _ in range(2)][1::2]
    begin = time.perf_counter()
    for turn in range(turns):
        if turn >= 3 and time.perf_counter() - begin > budget:
            break
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            calls[which]()
            seconds[which].append(time.process_time() - start)
    first, second = (statistics.median(each) for each in seconds)
    return Cost(first, memory[0]), Cost(second, memory[1])


def measure_each(call: Callable[[], object], calls: int = 1000) -> Cost:
    """Measure a short call: the time is its share of many."""

    def call_often() -> None:
        for _ in range(calls):
            call()

    cost = measure(call_often)
    return cost._replace(seconds=cost.seconds / calls)


def within(
    task: str, ours: Cost, limit: float, alternative: str = "", other: Cost | None = None
) -> Comparison:
    """Compare, with a limit in seconds that ours must not exceed."""
    target = f"at most {limit:g} s" if limit >= 1 else f"at most {limit * 1e6:g} us"
    return Comparison(task, ours, alternative, other, target, ours.seconds <= limit)


def peak_memory(call: Callable[[], object]) -> float:
    """Return the megabytes by which a call raises the process's resident memory at its peak.

    NaN where there is no /proc (not Linux).
    """
    gc.collect()
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        call()
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # memory freed before must not hide what the call takes
    reset.write_text("5")  # sets the peak to the present size
    before = _status("VmRSS")
    call()
    return max(_status("VmHWM") - before, 0) / 1024


def table(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """Return one row for each comparison; "times faster" is the alternative's time over ours."""
    rows = []
    for c in tqdm(comparisons, desc="measuring", leave=False):
        rows.append(
            {
                "task": c.task,
                "time": _time(c.ours.seconds),
                "memory": _memory(c.ours.megabytes),
                "alternative": c.alternative,
                "its time": _time(c.other.seconds) if c.other else "",
                "its memory": _memory(c.other.megabytes) if c.other else "",
                "times faster": f"{c.other.seconds / c.ours.seconds:.3g}" if c.other else "",
                "asked": c.target,
                "met": {None: "", True: "yes", False: "NO"}[c.met],
            }
        )
    return pd.DataFrame(rows)


def _status(field: str) -> int:
    """Read a field of the process's status, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise ValueError(f"no {field} in /proc/self/status")


def _memory(megabytes: float) -> str:
    """Return "" for NaN: it was not measured."""
    return "" if math.isnan(megabytes) else f"{megabytes:.1f} MB"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
