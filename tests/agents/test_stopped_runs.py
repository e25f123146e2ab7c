"""Runs that are killed, stopped, out of disk or out of numbers: what they leave, and going on."""

import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from safetensors import safe_open

from rlbilinear import agents
from rlbilinear.agents import logging_callback
from rlbilinear.agents.fast_ppo import FastPPO
from rlbilinear.agents.folder import HOLDER, is_free
from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.ppo import train
from rlbilinear.agents.signals import Stopped, stop_on_signals
from rlbilinear.agents.training_state import TENSORS
from rlbilinear.envs import ProcgenVecEnv

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train.py"
ROLLOUT = 4 * 16
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def tiny(out, **changes):
    options = {
        "out": out,
        "architecture": "bimpala-small",
        "architecture_options": '{"channels": 4, "features": 16}',
        "num_envs": 4,
        "num_steps": 16,
        "minibatches": 2,
        "epochs": 1,
        "frames": 8 * ROLLOUT,
        "levels": 200,
        "held_out": 1,
        "evaluate_every": 0,
        "save_every": ROLLOUT,
        "device": "cpu",
        "progress": False,
    }
    return TrainOptions(**(options | changes))


def command(options, *flags):
    """Return the script's command line for options that are not the default."""
    given = {
        name: getattr(options, name)
        for name, field in TrainOptions.__dataclass_fields__.items()
        if getattr(options, name) != field.default
    }
    no_progress = given.pop("progress", None) is False
    words = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items()]
    return [
        str(SCRIPT),
        *(word for pair in words for word in pair),
        *(["--no-progress"] if no_progress else []),
        *flags,
    ]


class Forked:
    """A run of the script in a child of `forked_runs.py`."""

    def __init__(self, launcher, options, *flags):
        self.launcher, self.stderr = launcher, options.out.with_suffix(".stderr")
        print(json.dumps([str(self.stderr), *command(options, *flags)]), file=launcher.stdin)
        launcher.stdin.flush()
        self.pid = int(launcher.stdout.readline())

    def wait(self):
        return int(self.launcher.stdout.readline())

    def ended(self):
        return bool(select.select([self.launcher.stdout], [], [], 0)[0])

    def send(self, number):
        os.kill(self.pid, number)


class Started:
    """A run of the script as a process of its own."""

    def __init__(self, options, *flags):
        self.stderr = options.out.with_suffix(".stderr")
        with self.stderr.open("w") as stderr:
            words = [sys.executable, *command(options, *flags)]
            self.process = subprocess.Popen(words, stderr=stderr, env=ENVIRONMENT)
        self.send = self.process.send_signal

    def wait(self):
        return self.process.wait()

    def ended(self):
        return self.process.poll() is not None


@pytest.fixture(autouse=True)
def interrupts():
    """Let SIGINT interrupt, also where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def launcher():
    words = [sys.executable, str(Path(__file__).with_name("forked_runs.py"))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=ENVIRONMENT, **pipes) as process:
        yield process


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted, and that saved nothing on its way."""
    options = tiny(tmp_path_factory.mktemp("whole") / "run", save_every=10**6)
    train(options)
    return options


def wait_for(condition, run):
    """Wait until a condition holds, or a run has ended."""
    deadline = time.monotonic() + 240
    while not condition() and not run.ended():
        assert time.monotonic() < deadline, run.stderr.read_text()
        time.sleep(0.002)


def newest(run):
    """Return the frames of the newest checkpoint of a run."""
    found = sorted((run / "checkpoints").glob("[0-9]*"))
    return int(found[-1].name) if found else 0


def seconds_a_rollout(run):
    """Return the seconds between the agents that a run kept after its first and last rollout."""
    kept = {int(folder.name): folder.stat().st_mtime for folder in (run / "trajectory").iterdir()}
    return (kept[max(kept)] - kept[ROLLOUT]) / (max(kept) / ROLLOUT - 1)


def same_bytes(one, two):
    """Whether two runs that have ended have the same agents and states, to the byte."""
    last = f"checkpoints/{newest(one):012d}"
    files = ("agent/model.safetensors", f"{last}/agent/model.safetensors", f"{last}/{TENSORS}")
    return all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def half_written(run):
    """Whether a checkpoint of a run is being written: it has no name yet."""
    return any((run / "checkpoints").glob(".[0-9]*.new"))


def kill_until_done(options, start, kills, seed, longest):
    """Run, kill, resume, kill ... and let it end; return the kills, and those that hit a write.

    Every other kill is at a random moment, up to so many seconds after a checkpoint; the rest are
    when one is being written.
    """
    out, draw, done, hits = options.out, random.Random(seed), 0, 0
    while True:
        begun = newest(out)
        run = start(options, *(["--resume"] if begun else ["--overwrite"]))
        further, pause, hit = begun + ROLLOUT * draw.randint(0, 2), draw.uniform(0, longest), False
        if done % 2:
            wait_for(lambda: half_written(out), run)
        else:
            wait_for(lambda last=further: newest(out) >= last, run)
            time.sleep(pause)
        if done < kills:
            with suppress(ProcessLookupError):  # it was faster
                run.send(signal.SIGSTOP)  # so that what is looked at is what is killed
                hit = half_written(out)
                run.send(signal.SIGKILL)
        code = run.wait()
        if code == 0:
            return done, hits
        assert code == -signal.SIGKILL, run.stderr.read_text()
        done, hits = done + 1, hits + hit


def test_killed_run_ends_in_the_same_bytes(tmp_path, launcher, whole):
    options = tiny(tmp_path / "run")
    longest = seconds_a_rollout(whole.out)
    kills, hits = kill_until_done(
        options, lambda *given: Forked(launcher, *given), 4, seed=0, longest=longest
    )
    print(f"{kills} kills at random moments (seed 0), {hits} while a checkpoint was written")
    assert kills >= 3
    assert same_bytes(whole.out, options.out)
    assert not list(options.out.rglob(".*"))


@pytest.mark.slow
def test_run_killed_many_times_ends_in_the_same_bytes(tmp_path):
    """As above, but each start is a process of its own, and there are evaluations."""
    changes = {"frames": 24 * ROLLOUT, "evaluate_every": 8 * ROLLOUT, "film_every": 0}
    whole = tiny(tmp_path / "whole", game="starpilot", **changes)
    assert Started(whole).wait() == 0
    options = tiny(tmp_path / "run", game="starpilot", **changes)
    kills, hits = kill_until_done(options, Started, 12, seed=1, longest=0.3)
    print(f"{kills} kills at random moments (seed 1), {hits} while a checkpoint was written")
    assert kills >= 8 and hits >= 2
    assert same_bytes(whole.out, options.out)


def signalled(monkeypatch, owner, name, number, call):
    """Let the process be sent a signal when a function is called for the given time."""
    original, calls = getattr(owner, name), iter(range(1, 10**6))

    def wrapped(*arguments, **named):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("owner", "name", "call", "frames"),
    [
        (ProcgenVecEnv, "step_async", 5, 0),  # in the first rollout
        (ProcgenVecEnv, "step_async", 2 * 16 + 5, 2 * ROLLOUT),  # in the third
        (FastPPO, "train", 3, 2 * ROLLOUT),  # between it and its update
        (FastPPO, "_accumulate", 2 * 2 + 2, 2 * ROLLOUT),  # in that, when half of it is done
        (logging_callback, "evaluate", 2, 4 * ROLLOUT),
    ],
)
def test_stopped_run_is_saved_as_it_was(tmp_path, monkeypatch, whole, owner, name, call, frames):
    """Stopped by a signal at different places, it is saved without waiting, and goes on."""
    number = signal.SIGTERM if call % 2 else signal.SIGINT
    every = 4 * ROLLOUT if owner is logging_callback else 0
    options = tiny(tmp_path / "run", save_every=10**6, evaluate_every=every)
    with monkeypatch.context() as patch:
        signalled(patch, owner, name, number, call)
        with pytest.raises(Stopped, match=rf"stopped after {frames} frames, saved in .*{frames}$"):
            train(options)
    assert newest(options.out) == frames
    assert signal.getsignal(number) is signal.default_int_handler or number == signal.SIGTERM
    train(options, resume=True)
    assert same_bytes(whole.out, options.out)


def test_second_signal_stops_at_once(capfd):
    with pytest.raises(KeyboardInterrupt) as raised, stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(raised.value, Stopped)
    assert "a second signal stops at once" in capfd.readouterr().err


def test_ignored_signal_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal is None and signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_script_stops_and_says_how_to_go_on(tmp_path, launcher):
    options = tiny(tmp_path / "a run", frames=10**7, save_every=10**6)
    run = Forked(launcher, options)
    wait_for((options.out / "trajectory" / f"{ROLLOUT:012d}").is_dir, run)
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(
            BlockingIOError, match=f"in use by process {run.pid} on {socket.gethostname()}"
        ):
            train(options, **flags)
    run.send(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    said = run.stderr.read_text()
    assert f"saved in {options.out}/checkpoints/{newest(options.out):012d}; to resume:" in said
    assert f"train.py --out '{options.out}' " in said and said.rstrip().endswith(" --resume")
    assert "Traceback" not in said


def test_a_run_that_is_stopped_before_its_first_frame_says_so(tmp_path, launcher):
    """While the given agent's critic is fitted there is nothing to save yet."""
    given = {"init_from": "maze-bimpala-compact", "architecture": None}
    options = tiny(tmp_path / "run", num_steps=20_000, architecture_options="{}", **given)
    run = Forked(launcher, options)
    wait_for((options.out / HOLDER).exists, run)
    time.sleep(0.5)
    run.send(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    said = run.stderr.read_text()
    assert "stopped before the first frame; nothing was saved yet" in said
    assert "--resume" not in said and "Traceback" not in said
    assert is_free(options.out)


@contextmanager
def files_of_at_most(size):
    """Let the system refuse to write more into any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, whole):
    options = tiny(tmp_path / "run")
    train(tiny(options.out, frames=2 * ROLLOUT))
    last = options.out / "checkpoints" / f"{2 * ROLLOUT:012d}"
    limit = files_of_at_most((last / TENSORS).stat().st_size - 1)
    with limit, pytest.raises(OSError) as raised:
        train(options, resume=True)
    assert f"cannot write in {options.out} after {3 * ROLLOUT} frames" in str(raised.value)
    assert "File too large" in str(raised.value)
    assert str(raised.value).endswith(f"the last good checkpoint is {last}")
    assert [path.name for path in (options.out / "checkpoints").iterdir()] == [last.name]
    train(options, resume=True)
    assert same_bytes(whole.out, options.out)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which needs root")
def test_full_disk_leaves_the_last_checkpoint(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=560k", "tmpfs", disk], check=True)
    try:
        options = tiny(disk / "run", frames=10**6)
        run = Started(options)
        assert run.wait() == 1
        said = (disk / "run.stderr").read_text()
        print(said)
        last = options.out / "checkpoints" / f"{newest(options.out):012d}"
        assert newest(options.out) > 0
        assert f"the last good checkpoint is {last}" in said and "Traceback" not in said
        assert "No space left on device" in said
        assert agents.load(last / "agent", device="cpu")
        shutil.copytree(options.out, tmp_path / "run")
    finally:
        subprocess.run(["umount", disk], check=True)
    frames = newest(tmp_path / "run")
    train(tiny(tmp_path / "run", frames=frames + ROLLOUT), resume=True)
    assert newest(tmp_path / "run") == frames + ROLLOUT


@pytest.mark.parametrize("place", ["/dev/null/run", "/proc/run"])
def test_folder_that_cannot_be_written_is_refused(place):
    with pytest.raises(OSError, match=f"cannot write in {place}: "):
        train(tiny(Path(place)))


def test_run_that_diverges_leaves_a_good_checkpoint(tmp_path):
    options = tiny(tmp_path / "run", learning_rate=0.03, frames=10**4)
    with pytest.raises(FloatingPointError) as raised:
        train(options)
    last = options.out / "checkpoints" / f"{newest(options.out):012d}"
    assert str(raised.value).startswith("diverged after ")
    assert str(raised.value).endswith(f"the last good checkpoint is {last}")
    for file in (last / TENSORS, last / "agent" / "model.safetensors"):
        with safe_open(file, framework="pt") as opened:
            tensors = [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118
        assert all(tensor.isfinite().all() for tensor in tensors)

    with pytest.raises(FloatingPointError, match=r"finite.*; no checkpoint was written yet"):
        train(tiny(tmp_path / "other", learning_rate=1e30, save_every=10**6))
