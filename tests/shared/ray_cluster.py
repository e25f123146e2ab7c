"""A real Ray cluster on this machine: nodes started by Ray's own command, each a machine to Ray."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

RAY = Path(sys.executable).with_name("ray")
PATIENCE = 120.0
"""Seconds that anything may take, on a machine that does much else."""


def wait_until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until something holds; fail by name where it never does."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"after {patience:g} s: not yet {what}")
        time.sleep(0.1)


class Node:
    """A head or a worker, in a process group of its own, so that nothing of it can be left."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], folder: Path, number: int
    ) -> None:
        self.arguments, self.log = arguments, folder / f"node{number}.log"
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [RAY, "start", *arguments, "--block"],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until the node is part of the cluster."""
        wait_until(self._has_started, f"started: {self.arguments}")

    def _has_started(self) -> bool:
        said = self.log.read_text()
        if self.process.poll() is not None:
            raise AssertionError(f"ray start ended:\n{said}")
        return "Ray runtime started" in said

    @property
    def raylet(self) -> psutil.Process:
        """The process that Ray knows the machine by."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if child.name() == "raylet")

    def tasks(self) -> set[str]:
        """Return the names of the tasks that the node runs now."""
        titles = []
        with contextlib.suppress(psutil.Error, StopIteration):
            for child in self.raylet.children():
                with contextlib.suppress(psutil.Error):
                    titles.append(" ".join(child.cmdline()).strip())  # padded with blanks
        return {title.removeprefix("ray::") for title in titles if " seed " in title}

    def end(self) -> None:
        """End all of the node's processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Cluster:
    """A head that runs nothing, and the workers that were added, of one CPU each.

    Leaving it ends all of them, whatever happened.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: Ray puts sockets there
        self.environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",  # nobody else may run code here
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "OMP_NUM_THREADS": "1",
        }
        self.nodes: list[Node] = []
        self.port, self._client_port = _free_ports(2)
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> "Cluster":
        self._before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as any other end
        try:
            self._add(
                "--head",
                "--num-cpus=0",
                f"--port={self.port}",
                f"--ray-client-server-port={self._client_port}",
                "--include-dashboard=false",
                f"--temp-dir={self.folder}",
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.end()
        shutil.rmtree(self.folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, self._before)

    def add_worker(self) -> Node:
        """Start a worker, and return it."""
        return self._add("--num-cpus=1", f"--address={self.address}")

    def _add(self, *arguments: str) -> Node:
        common = ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]
        common += ["--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false"]
        node = Node([*arguments, *common], self.environment, self.folder, len(self.nodes))
        self.nodes.append(node)
        node.wait()
        return node


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
