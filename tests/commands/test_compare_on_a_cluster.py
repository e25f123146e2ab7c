"""`rlbilinear compare --address` on a Ray cluster of several processes, some of them killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rlbilinear.agents.run import Run
from rlbilinear.commands import compare

pytest.importorskip("ray", reason="Ray is an optional extra")
pytest.importorskip("psutil", reason="finds the processes of the cluster")
from ray_cluster import cluster, wait_until

pytestmark = pytest.mark.slow

ARCHITECTURE = "impala-small,channels=[2,2],features=8"
SEEDS = range(4)
FRAMES = 24_000
MATRIX = [
    *("--games=fruitbot", f"--architectures={ARCHITECTURE}", "--seeds", *map(str, SEEDS)),
    *("--num-envs=2", "--num-steps=64", "--minibatches=2", "--epochs=1", f"--frames={FRAMES}"),
    *("--levels=3", "--held-out=2", f"--evaluate-every={FRAMES}", "--film-every=0"),
    *("--save-every=1000", "--device=cpu", "--final-levels=2", "--cpus-per-run=1"),
    "--no-progress",
]


def run_of(out, seed):
    return Run(out / "fruitbot" / ARCHITECTURE / f"seed{seed}")


def weights(out):
    return [(run_of(out, seed).folder / "agent/model.safetensors").read_bytes() for seed in SEEDS]


def driver(made, out):
    """Start the command as a user would."""
    command = [sys.executable, "-m", "rlbilinear.commands.main", "compare", "--out", str(out)]
    log = (made.folder / f"driver{time.monotonic_ns()}.log").open("w+")
    process = subprocess.Popen(
        [*command, "--address", made.address, *MATRIX],
        env=made.environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return process, log


def under_way(out):
    """The seeds that have a checkpoint and are not finished."""
    frames = {seed: run_of(out, seed).frames for seed in SEEDS if run_of(out, seed).folder.exists()}
    return {seed for seed, done in frames.items() if 0 < done < FRAMES}


def test_workers_and_drivers_may_be_killed_and_nodes_added(tmp_path):
    alone, out = tmp_path / "alone", tmp_path / "shared"
    compare.main(["--out", str(alone), "--no-ray", *MATRIX])
    with cluster() as made:
        first, _ = made.add_worker(), made.add_worker()
        started, log = driver(made, out)
        try:
            # three machines of one CPU, so three runs at a time
            wait_until(lambda: len(under_way(out)) == 3 and first.tasks(), "three runs under way")
            (lost,) = first.tasks()
            os.kill(first.raylet.pid, signal.SIGKILL)

            done = {seed: run_of(out, seed).frames for seed in under_way(out)}
            wait_until(
                lambda: sum(run_of(out, seed).frames > done[seed] for seed in done) >= 2,
                "the other two further",
            )
            assert started.poll() is None and len(under_way(out)) == 3
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()

            again, log = driver(made, out)
            try:
                wait_until(lambda: any(node.tasks() for node in made.nodes), "begun again")
                added = made.add_worker()
                wait_until(added.tasks, "a run on the added node")
                assert again.wait(300) == 0, log.seek(0) or log.read()
                log.seek(0)
                said = log.read()
            finally:
                if again.poll() is None:
                    os.killpg(again.pid, signal.SIGKILL)
                    again.wait()
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()
    assert "Ray" in said and "on 3 machines: 3 CPUs" in said, said
    assert f"{len(SEEDS)} of {len(SEEDS)} runs finished" in said
    assert lost in said
    assert weights(out) == weights(alone)
