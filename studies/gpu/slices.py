"""Programs that run to their ends in slices of limited time, several at once.

A program is stopped at the end of a slice by SIGTERM, which saves a training run, and goes on in
the next slice. What has ended well is not run again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rlbilinear.agents.folder import is_free, write_json
from rlbilinear.agents.run import Run

GRACE = 40.0
"""Seconds that programs are given to save at the end of a slice; then they are killed."""
POLL = 0.2


class Status(Enum):
    """How far a program is."""

    WAITING = "not begun"
    STOPPED = "stopped at the end of a slice"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """A program to run.

    Attributes:
        name: of its log and its record.
        arguments: of the Python interpreter.
        run: folder of the training run that it makes; the run is resumed where it has a checkpoint.
        alone: nothing else runs beside it, so that what it times is right.
        threads: of its products.
    """

    name: str
    arguments: tuple[str, ...]
    run: Path | None = None
    alone: bool = False
    threads: int = 1

    def command(self) -> list[str]:
        """Return the program's command line, which resumes what there is."""
        again: list[str] = []
        if self.run is not None and not is_free(self.run):
            saved = Run(self.run).newest_checkpoint() is not None
            again = ["--resume" if saved else "--overwrite"]
        return [sys.executable, *self.arguments, *again]


def status(out: Path, job: Job) -> Status:
    """Return how far a job is, by its record."""
    file = _record(out, job)
    return Status(json.loads(file.read_text())["status"]) if file.is_file() else Status.WAITING


def run_slice(
    jobs: Sequence[Job],
    out: Path,
    seconds: float,
    together: int,
    say: Callable[[str], None] = print,
) -> dict[str, Status]:
    """Run jobs that are not done, in order, and stop what has not ended when the time is over.

    Args:
        jobs: what is to be done.
        out: folder of ``logs/NAME.txt`` and ``jobs/NAME.json``.
        seconds: that the slice lasts, with the time to save.
        together: how many run at once.
        say: is told what begins and what ends.

    Returns:
        How far each job is now.
    """
    started = time.monotonic()
    waiting = [job for job in jobs if status(out, job) is not Status.DONE]
    running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
    stopping = started + max(seconds - GRACE, seconds / 2)
    try:
        while (waiting or running) and time.monotonic() < stopping:
            while waiting and len(running) < together and _may_begin(waiting[0], [*running]):
                job = waiting.pop(0)
                running[job] = (_begin(job, out), time.monotonic())
                say(f"{time.monotonic() - started:4.0f} s  begins {job.name}")
            _collect(running, out, started, say, stopped=False)
            time.sleep(POLL)
    finally:
        for process, _ in running.values():
            process.send_signal(signal.SIGTERM)
        last = time.monotonic() + GRACE
        while running and time.monotonic() < last:
            _collect(running, out, started, say, stopped=True)
            time.sleep(POLL)
        for process, _ in running.values():
            process.kill()
            process.wait()
        _collect(running, out, started, say, stopped=True)
    return {job.name: status(out, job) for job in jobs}


def _may_begin(job: Job, running: Sequence[Job]) -> bool:
    return not running or not (job.alone or any(other.alone for other in running))


def _begin(job: Job, out: Path) -> subprocess.Popen[bytes]:
    log = out / "logs" / f"{job.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            job.command(),
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(job.threads)},
        )


def _collect(
    running: dict[Job, tuple[subprocess.Popen[bytes], float]],
    out: Path,
    started: float,
    say: Callable[[str], None],
    *,
    stopped: bool,
) -> None:
    """Record the programs that have ended; ``stopped`` tells that they were asked to."""
    for job, (process, began) in list(running.items()):
        code = process.poll()
        if code is None:
            continue
        del running[job]
        found = Status.DONE if code == 0 else Status.STOPPED if stopped else Status.FAILED
        file = _record(out, job)
        before = json.loads(file.read_text())["seconds"] if file.is_file() else 0.0
        file.parent.mkdir(parents=True, exist_ok=True)
        seconds = round(before + time.monotonic() - began, 1)
        write_json(
            file,
            {
                "status": found.value,
                "exit_code": code,
                "seconds": seconds,
                "command": [*job.arguments],
            },
        )
        now = time.monotonic() - started
        say(f"{now:4.0f} s  {found.value}: {job.name}, {seconds:.0f} s in all")


def _record(out: Path, job: Job) -> Path:
    return out / "jobs" / f"{job.name}.json"
