"""`rlbilinear compare --address` on a Ray cluster of several processes, some of them killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from rlbilinear.agents.run import Run
from rlbilinear.commands import compare

pytest.importorskip("ray", reason="Ray is an optional extra")
pytest.importorskip("psutil", reason="finds the processes of the cluster")
from ray_cluster import Cluster, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ARCHITECTURE = "impala-small,channels=[2,2],features=8"
SEEDS = range(3)
FRAMES = 5_000
MATRIX = [
    *("--games=fruitbot", f"--architectures={ARCHITECTURE}", "--seeds", *map(str, SEEDS)),
    *("--num-envs=2", "--num-steps=64", "--minibatches=2", "--epochs=1", f"--frames={FRAMES}"),
    *("--levels=3", "--held-out=2", f"--evaluate-every={FRAMES}", "--film-every=0"),
    *("--save-every=250", "--device=cpu", "--final-levels=2", "--cpus-per-run=1"),
    "--no-progress",
]


def run_of(out, seed):
    return Run(out / "fruitbot" / ARCHITECTURE / f"seed{seed}")


def weights(out):
    """The bytes of all weights; the files also hold a seal of the record, and so of the command."""
    files = [run_of(out, seed).folder / "agent/model.safetensors" for seed in SEEDS]
    return [{name: each.tobytes() for name, each in load_file(file).items()} for file in files]


@contextmanager
def driving(cluster, out):
    """Start the command as a user would; give its process and its log; kill it at the end."""
    command = [sys.executable, "scripts/compare.py", "--out", str(out)]
    log = cluster.folder / f"driver{time.monotonic_ns()}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--address", cluster.address, *MATRIX],
            cwd=ROOT,
            env=cluster.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def under_way(out):
    """The seeds that have a checkpoint and are not finished."""
    runs = {seed: run_of(out, seed) for seed in SEEDS}
    return {seed for seed, run in runs.items() if 0 < run.frames < FRAMES}


def seeds_on(node):
    """The seeds whose runs a node has now."""
    return {int(task.rpartition(" ")[2]) for task in node.tasks()}


def test_workers_and_drivers_may_be_killed_and_nodes_added(tmp_path):
    alone, out = tmp_path / "alone", tmp_path / "shared"
    compare.main(["--out", str(alone), "--no-ray", *MATRIX])
    with Cluster() as cluster:
        first, second = cluster.add_worker(), cluster.add_worker()
        with driving(cluster, out) as (started, _):
            wait_until(lambda: under_way(out) & seeds_on(first), "a run with a checkpoint")
            (lost,) = seeds_on(first)
            os.kill(first.raylet.pid, signal.SIGKILL)
            added = cluster.add_worker()
            wait_until(added.tasks, "a run on the added node")
            elsewhere = (second, added)
            wait_until(lambda: any(lost in seeds_on(node) for node in elsewhere), "the lost run")
            assert started.poll() is None and run_of(out, lost).frames < FRAMES
        with driving(cluster, out) as (again, log):
            code = again.wait(300)
            said = log.read_text()
    assert code == 0, said
    assert "Ray" in said and "on 3 machines: 2 CPUs" in said
    assert f"{len(SEEDS)} of {len(SEEDS)} runs finished" in said
    assert weights(out) == weights(alone)
