"""Runs one after another, or distributed by Ray; one that fails does not stop the others."""

import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from rlbilinear.agents.comparison.matrix import Entry
from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.run_status import finish

ray: Any = None
with suppress(ModuleNotFoundError):
    ray = importlib.import_module("ray")

RETRIES = 2
"""How often a run is resumed elsewhere, from its last checkpoint, when its machine is lost."""

POLL = 5.0
"""Seconds between updates of the progress bar from the runs' folders."""

PATIENCE = 300.0
"""Seconds that stopped runs are given to save."""


class Outcome(NamedTuple):
    """A run that has ended, and why it failed, or None."""

    entry: Entry
    error: str | None


class Resources(NamedTuple):
    """CPUs and GPUs that Ray gives to each run."""

    cpus: int
    gpus: float


def one_after_another(
    entries: Sequence[Entry], *, final_levels: int, threads: int | None
) -> Iterator[Outcome]:
    """Bring each run to completion in this process.

    Raises:
        KeyboardInterrupt: stopped; all can be resumed.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    for entry in entries:
        try:
            finish(entry.options, final_levels=final_levels)
        except Exception as error:
            yield Outcome(entry, _line(error))
        else:
            yield Outcome(entry, None)


def connect(address: str | None) -> str:
    """Start Ray on this machine, or connect to a cluster, and describe it in words.

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
    """Return the resources of each run; by default one CPU, and one GPU if there is any.

    Raises:
        ValueError: no connected machine has that much, or a GPU is named by its number.
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
    entries: Sequence[Entry], given: Resources, *, final_levels: int, progress: bool
) -> Iterator[Outcome]:
    """Bring each run to completion in a task of its own, as many at a time as resources allow.

    Call `connect` before. Where runs are on several machines, their folder must be shared.

    Raises:
        KeyboardInterrupt: stopped; the runs have saved and can be resumed.
    """
    command, threads = sys.argv, given.cpus

    def task(options: TrainOptions) -> None:  # pickled by value: no machine needs this file
        sys.argv = command  # a run's record says how it was made
        torch.set_num_threads(threads)
        finish(options, final_levels=final_levels)

    remote = ray.remote(num_cpus=given.cpus, num_gpus=given.gpus, max_retries=RETRIES)(task)
    waiting = {
        remote.options(name=str(entry)).remote(
            replace(entry.options, out=entry.options.out.absolute(), progress=False)
        ): entry
        for entry in entries
    }
    total = sum(entry.options.frames for entry in entries)

    def done_so_far() -> int:
        return min(total, sum(entry.run.frames for entry in entries))

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
