"""The folder of a training run: what lies where, and how it is opened, saved and finished."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rlbilinear.agents.agent import Agent
from rlbilinear.agents.checkpoint import CheckpointError
from rlbilinear.agents.folder import (
    check_free,
    clear,
    locked,
    new_folder,
    remove_leftovers,
    write_json,
)
from rlbilinear.agents.options import TrainOptions, check_record, from_record, recorded_identity
from rlbilinear.agents.saving import CONFIG
from rlbilinear.agents.training_state import NUMBERS, Snapshot

OPTIONS, RESULTS, AGENT, TENSORBOARD = "options.json", "results.json", "agent", "tensorboard"
CHECKPOINTS, TRAJECTORY = "checkpoints", "trajectory"
DISTILLED = "training.safetensors"
"""What `distill` has in place of ``checkpoints/``."""

FAILURES = (FloatingPointError, OSError, SafetensorError)
"""What ends a run that diverges or cannot be written."""

Scores = dict[str, float]
"""Frames done, and the means over the held-out levels at that time."""


@dataclass(frozen=True)
class Run:
    """A run's folder. Any process may read it; `open` gives it to one process for writing.

    The docstrings of `train` and `distill` say what they keep in it. ``resumed`` tells whether the
    run that was there is continued, or a new one begins.
    """

    folder: Path
    resumed: bool = False

    @classmethod
    @contextmanager
    def open(
        cls, folder: Path, *, overwrite: bool = False, resume: bool = False
    ) -> Iterator["Run"]:
        """Hold a folder for this process alone, to begin a run in it or to resume the one there.

        Nothing in it changes before `begin`.

        Raises:
            ValueError: both ``overwrite`` and ``resume``.
            FileExistsError: the folder has something, and neither ``overwrite`` nor ``resume`` is
                on, or it holds no run.
            BlockingIOError: another process holds it.
            OSError: the folder cannot be written.
        """
        if overwrite and resume:
            raise ValueError("choose one of overwrite and resume")
        with locked(folder):
            if not resume:
                check_free(folder, overwrite=overwrite, marker=OPTIONS)
            yield cls(folder, resume)

    def begin(self) -> None:
        """Empty the folder; if the run is resumed, remove only what a killed process left.

        Raises:
            OSError: something cannot be removed.
        """
        if not self.resumed:
            clear(self.folder, marker=OPTIONS)
        for place in (self.folder, self.folder / CHECKPOINTS, self.folder / TRAJECTORY):
            remove_leftovers(place)

    def write_record(self, record: dict[str, Any]) -> None:
        """Record how the run is made: its ``options``, command, hardware and versions."""
        write_json(self.folder / OPTIONS, record)

    def record(self) -> dict[str, Any]:
        """Return what `write_record` wrote for a PPO run.

        Raises:
            CheckpointError: the folder holds no PPO run, or its record is damaged.
        """
        file = self.folder / OPTIONS
        if not file.is_file():
            raise CheckpointError(f"{self.folder} holds no run: it lacks {OPTIONS}")
        record = _read(file)
        if not isinstance(record.get("options"), dict):
            raise CheckpointError(f'{file} is damaged: expected "options" with an object')
        try:
            check_record(record["options"])
        except ValueError as error:
            raise CheckpointError(f"{file} does not describe a PPO run: {error}") from error
        return record

    def options(self) -> TrainOptions:
        """Return the recorded options of a PPO run.

        Raises:
            CheckpointError: as `record`, or a version whose options cannot be read.
        """
        return from_record(self.folder, self.record()["options"])

    def identity(self) -> dict[str, Any]:
        """Return what tells a PPO run from another, as `rlbilinear.agents.options.identity`.

        What is recorded stands, where today's options and presets would give something else.

        Raises:
            CheckpointError: as `record`.
        """
        return recorded_identity(self.record()["options"])

    @property
    def frames(self) -> int:
        """Frames done when the run was last saved; 0 if it never was.

        Raises:
            CheckpointError: the file that says it is damaged or gone.
        """
        return _frames(self._results(), self.folder / RESULTS)

    @property
    def trained_frames(self) -> int:
        """Frames that the trained agent has seen; 0 if the run has not finished.

        Raises:
            CheckpointError: the file that says it is damaged.
        """
        file = self.folder / AGENT / CONFIG
        return _frames(_read(file).get("made", {}), file)

    def held_out(self) -> list[Scores]:
        """Return the scores on held-out levels so far, oldest first.

        Raises:
            CheckpointError: the file that has them is damaged or gone.
        """
        file = self.folder / RESULTS
        scores = self._results().get("held_out", [])
        if not isinstance(scores, list) or not all(_are_scores(each) for each in scores):
            raise CheckpointError(f"{file} is damaged: expected a list of scores in held_out")
        return scores

    def newest_checkpoint(self) -> Path | None:
        """Return what the run can be resumed from: a folder, of `distill` a file; None if none."""
        checkpoints = self._checkpoints()
        distilled = self.folder / DISTILLED
        return checkpoints[-1] if checkpoints else distilled if distilled.is_file() else None

    def save(self, agent: Agent, snapshot: Snapshot, held_out: list[Scores]) -> None:
        """Write a checkpoint and the scores so far, then remove the checkpoint before."""
        write_json(self.folder / RESULTS, {"frames": snapshot.frames, "held_out": held_out})
        older = self._checkpoints()
        place = self.folder / CHECKPOINTS / _numbered(snapshot.frames)
        if place in older:  # the run was stopped where it had been resumed
            return
        with new_folder(place, marker=NUMBERS) as folder:
            agent.save(folder / AGENT)
            snapshot.write(folder)
        for checkpoint in older:
            leaving = checkpoint.with_name(f".{checkpoint.name}.old")  # gone all at once
            shutil.rmtree(checkpoint.rename(leaving))

    def keep(self, agent: Agent, frames: int) -> None:
        """Add an agent to the trajectory, in half precision where that holds its weights."""
        largest = max(weight.abs().max().item() for weight in agent.policy.parameters())
        fits = largest <= torch.finfo(torch.float16).max
        dtype = torch.float16 if fits else torch.float32
        agent.save(self.folder / TRAJECTORY / _numbered(frames), overwrite=True, dtype=dtype)

    def finish(self, agent: Agent) -> None:
        """Write the trained agent."""
        agent.save(self.folder / AGENT, overwrite=True)

    def failure(self, error: Exception, frames: int) -> Exception:
        """Return one of `FAILURES` with how far the run was, and what it can be resumed from."""
        checkpoint = self.newest_checkpoint()
        last = (
            f"the last good checkpoint is {checkpoint}"
            if checkpoint
            else "no checkpoint was written yet"
        )
        if isinstance(error, FloatingPointError):
            return FloatingPointError(f"diverged after {frames:,} frames: {error}; {last}")
        return OSError(f"cannot write in {self.folder} after {frames:,} frames: {error}; {last}")

    def _results(self) -> dict[str, Any]:
        file = self.folder / RESULTS
        if not file.exists() and self._checkpoints():
            raise CheckpointError(
                f"{file} is gone, and with it the scores so far: put it back, or write {{}} into a "
                "new one to go on without them"
            )
        return _read(file)

    def _checkpoints(self) -> list[Path]:
        """Return the checkpoints that hold a run's state, oldest first."""
        files = (self.folder / CHECKPOINTS).glob(f"[0-9]*/{NUMBERS}")
        return sorted(file.parent for file in files)


def _numbered(frames: int) -> str:
    return f"{frames:012d}"


def _read(file: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is not there yet is an empty one."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is damaged: expected an object, got {type(found).__name__}")
    return found


def _frames(found: Any, file: Path) -> int:
    frames = found.get("frames", 0) if isinstance(found, dict) else found
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 0:
        raise CheckpointError(f"{file} is damaged: expected a number of frames, got {frames!r:.80}")
    return frames


def _are_scores(each: Any) -> bool:
    return (
        isinstance(each, dict)
        and "frames" in each
        and all(isinstance(number, int | float) for number in each.values())
    )
