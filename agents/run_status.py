"""Runs of many: where each stands, and bringing it to its end whatever it has behind it."""

import json
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from rlbilinear.agents.checkpoint import CONFIG, CheckpointError
from rlbilinear.agents.folder import is_free
from rlbilinear.agents.options import TrainOptions, check_same_run, identity, recorded_identity
from rlbilinear.agents.ppo import AGENT, CHECKPOINTS, OPTIONS, RESULTS, train
from rlbilinear.agents.scores import final_scores
from rlbilinear.agents.training_state import NUMBERS


class State(Enum):
    """How far a run is."""

    NEW = "not begun"
    STOPPED = "under way or stopped"
    FINISHED = "finished"


class Standing(NamedTuple):
    """How far a run is, and the frames of its last checkpoint."""

    state: State
    frames: int


def recorded_options(run: Path) -> TrainOptions:
    """Return the options of a run that is in a folder.

    Raises:
        CheckpointError: the folder holds no run, or one of a version with other options.
    """
    try:
        recorded = json.loads((run / OPTIONS).read_text())["options"]
        known = {field.name for field in fields(TrainOptions)}
        given = {name: value for name, value in recorded.items() if name in known}
        arguments = json.dumps(given.pop("architecture_options"))
        return TrainOptions(**{**given, "out": run, "architecture_options": arguments})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run} holds no run that can be read: {error!r}") from error


def run_identity(options: TrainOptions) -> dict[str, Any]:
    """Return the `identity` of the run in the options' folder; of the options if none has begun.

    What is recorded there stands, where today's options and presets would give something else.

    Raises:
        CheckpointError: the record cannot be read.
    """
    record = _read(options.out / OPTIONS).get("options")
    return identity(options) if record is None else recorded_identity(record)


def standing(options: TrainOptions) -> Standing:
    """Look into a run's folder, and return how far it is.

    Raises:
        ValueError: something else is in the folder: another run, or more frames than asked for.
        CheckpointError: files of the run cannot be read.
    """
    run = options.out
    if is_free(run):
        return Standing(State.NEW, 0)
    if not (run / OPTIONS).is_file():
        raise ValueError(f"{run} holds something that is no run: choose another place")
    recorded_options(run)  # or it is no run
    check_same_run(run, _read(run / OPTIONS)["options"], options)
    frames = frames_done(run)
    hyperparameters = options.hyperparameters()
    rollout = hyperparameters.num_envs * hyperparameters.num_steps
    if frames >= options.frames + rollout:
        raise ValueError(
            f"{run} was trained for {frames:,} frames, {options.frames:,} are asked for: "
            "a fair comparison has runs of one length"
        )
    if frames >= options.frames and trained_frames(run) >= options.frames:
        return Standing(State.FINISHED, frames)
    resumable = any((run / CHECKPOINTS).glob(f"[0-9]*/{NUMBERS}"))
    return Standing(State.STOPPED if resumable else State.NEW, frames if resumable else 0)


def frames_done(run: Path) -> int:
    """Return the frames that a run had behind it when it last wrote its results."""
    return int(_read(run / RESULTS).get("frames", 0))


def trained_frames(run: Path) -> int:
    """Return the frames that a run's final agent has seen; 0 when there is none yet."""
    return int(_read(run / AGENT / CONFIG).get("made", {}).get("frames", 0))


def finish(options: TrainOptions, *, final_levels: int) -> None:
    """Begin a run, continue it, or take it as it is, and score its agent.

    Args:
        options: of the run.
        final_levels: how many levels of each set the agent is scored on.

    Raises:
        ValueError: as `standing`, or options that are not accepted.
        KeyboardInterrupt: it was stopped, and can be continued.
    """
    state = standing(options).state
    if state is not State.FINISHED:
        begun = (options.out / OPTIONS).is_file()
        resume = state is State.STOPPED
        train(options, resume=resume, overwrite=begun and not resume)
        if standing(options).state is not State.FINISHED:
            raise KeyboardInterrupt
    final_scores(
        options.out,
        levels=options.levels,
        count=final_levels,
        mode=options.mode,
        device=options.device,
        progress=options.progress,
    )


def _read(file: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is not there yet is an empty one."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
