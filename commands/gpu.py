"""Do what wants a GPU: its tests, the benchmark of training, and the agents that take long.

    rlbilinear gpu --pack wheels
    rlbilinear gpu --out runs/gpu --minutes 9

The first, where there is a network, collects what a machine without one lacks. The second works for
that many minutes and stops; the same command goes on where it stopped, until all is done. It is run
in a checkout of the project, which has the tests.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from rlbilinear.agents.folder import provenance, write_json
from rlbilinear.commands.outputs import check_writable, writing
from rlbilinear.commands.running import Command, Count, Failed
from rlbilinear.studies.gpu.plan import STEPS, TINY, Plan, Step, jobs
from rlbilinear.studies.gpu.slices import Status, run_slice
from rlbilinear.studies.gpu.wheels import pack


@dataclass(frozen=True)
class GpuOptions:
    """Do what wants a GPU, in slices of a few minutes."""

    out: Path | None = None
    """folder of everything: logs, records, agents"""
    steps: tuple[Step, ...] = STEPS
    """what to do, in this order"""
    minutes: float = 9.0
    """length of the slice, with the time to save"""
    together: Count | None = None
    """programs at once, by default all CPUs but two; tests and benchmark run alone"""
    tiny: bool = False
    """the same steps at tiny sizes on the processor, to see that they run"""
    pack: Path | None = None
    """collect wheels in this folder instead"""
    python: str = "3.12"
    """Python of the machine that the wheels are for"""


def _gpu(options: GpuOptions) -> None:
    if options.pack is not None:
        print(pack(options.pack, options.python))
        return
    if options.out is None:
        raise ValueError("give --out, a folder for the results, or --pack, one for the wheels")
    if not options.minutes > 0:
        raise ValueError(f"--minutes must be positive, got {options.minutes}")
    check_writable(options.out / "plan.json")
    together = options.together or max(1, (os.cpu_count() or 1) - 2)
    found = jobs(TINY if options.tiny else Plan(), options.out, options.steps)
    with writing(options.out / "plan.json"):
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "plan.json", provenance())
    ended = run_slice(found, options.out, 60 * options.minutes, together, _say)
    for name, status in ended.items():
        print(f"{name}: {status.value}")
    failed = [name for name, status in ended.items() if status is Status.FAILED]
    if failed:
        raise Failed(f"failed: {', '.join(failed)}; why is in {options.out / 'logs'}")
    if any(status is not Status.DONE for status in ended.values()):
        print("the same command goes on")


def _say(line: str) -> None:
    print(line, flush=True)


main = Command(GpuOptions, _gpu, __doc__)
