"""Runs one after another, or spread by Ray; what fails or is stopped does not lose the rest."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from rlbilinear.agents.comparison.matrix import Run
from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.run_status import finish, frames_done

try:
    import ray
except ModuleNotFoundError:
    ray = None

RETRIES = 2
"""How often a run goes on elsewhere, from its last checkpoint, when its machine is lost."""

POLL = 5.0
"""Seconds between looks at the runs' folders, for the bar."""

PATIENCE = 300.0
"""Seconds that stopped runs are given to save."""


class Outcome(NamedTuple):
    """What became of a run: why it failed, or None."""

    run: Run
    error: str | None


class Resources(NamedTuple):
    """What Ray gives to a run."""

    cpus: int
    gpus: float


def one_after_another(
    runs: Sequence[Run], *, final_levels: int, threads: int | None
) -> Iterator[Outcome]:
    """Bring each run to its end in this process.

    Raises:
        KeyboardInterrupt: stopped; all can be continued.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    for run in runs:
        try:
            finish(run.options, final_levels=final_levels)
        except Exception as error:
            yield Outcome(run, _line(error))
        else:
            yield Outcome(run, None)


def connect(address: str | None) -> str:
    """Start Ray on this machine, or connect to a cluster, and return what there is in words.

    Raises:
        ValueError: Ray is not installed.
        ConnectionError: no cluster at the address.
    """
    if ray is None:
        raise ValueError("Ray is not installed: pip install 'rlbilinear[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports nothing to anybody
    local = {"include_dashboard": False} if address is None else {}
    ray.init(address=address or "local", logging_level="error", log_to_driver=False, **local)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C; Ray's exits at once
    there = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    where = f"{nodes} machines" if nodes > 1 else "one machine"
    return (
        f"Ray {ray.__version__} on {where}: {there.get('CPU', 0):g} CPUs, "
        f"{there.get('GPU', 0):g} GPUs"
    )


def resources(device: str, cpus: int | None, gpus: float | None) -> Resources:
    """Decide what a run gets; where nothing is said, a CPU, and a GPU if there is one to use.

    Raises:
        ValueError: no machine connected has that much, or a GPU is named by its number.
    """
    if device.startswith("cuda:"):
        raise ValueError(f"device {device}: Ray chooses the GPU of each run; give cuda")
    most = {
        kind: max((node["Resources"].get(kind, 0.0) for node in ray.nodes()), default=0.0)
        for kind in ("CPU", "GPU")
    }
    if gpus is None:
        gpus = 0.0 if device in ("cpu", "mps") else min(1.0, most["GPU"])
        if device.startswith("cuda") and not gpus:
            raise ValueError(f"device {device}: no machine that Ray has here has a GPU")
    chosen = Resources(1 if cpus is None else cpus, gpus)
    for kind, asked in zip(("CPU", "GPU"), chosen, strict=True):
        if asked > most[kind]:
            raise ValueError(
                f"a run asks for {asked:g} {kind}s, and the largest machine has {most[kind]:g}"
            )
    return chosen


def by_ray(
    runs: Sequence[Run], given: Resources, *, final_levels: int, progress: bool
) -> Iterator[Outcome]:
    """Bring each run to its end in a task of its own, as many at a time as there is room for.

    Call `connect` before. Where runs are on several machines, their folder must be shared.

    Raises:
        KeyboardInterrupt: stopped; the runs have saved and can be continued.
    """
    command, threads = sys.argv, given.cpus

    def task(options: TrainOptions) -> None:  # travels by value: no machine needs this file
        sys.argv = command  # a run's record says how it was made
        torch.set_num_threads(threads)
        finish(options, final_levels=final_levels)

    remote = ray.remote(num_cpus=given.cpus, num_gpus=given.gpus, max_retries=RETRIES)(task)
    waiting = {
        remote.options(name=str(run)).remote(
            replace(run.options, out=run.options.out.absolute(), progress=False)
        ): run
        for run in runs
    }
    total = sum(run.options.frames for run in runs)

    def done_so_far() -> int:
        return min(total, sum(frames_done(run.options.out) for run in runs))

    bar = tqdm(
        total=total,
        initial=done_so_far(),
        desc="training",
        unit="frame",
        unit_scale=True,
        disable=not progress,
    )
    try:
        while waiting:
            done, _ = ray.wait([*waiting], timeout=POLL)
            bar.update(done_so_far() - bar.n)
            for one in done:
                yield Outcome(waiting.pop(one), _error(one))
    finally:
        bar.close()
        for one in waiting:
            ray.cancel(one)
        if waiting:
            ray.wait([*waiting], num_returns=len(waiting), timeout=PATIENCE)
        ray.shutdown()


def _error(task: Any) -> str | None:
    """Return why a task that has ended failed, or None."""
    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return _line(error.cause)
    except ray.exceptions.RayError as error:
        return _line(error)
    return None


def _line(error: BaseException) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"
