"""The progress of a comparison's runs, and how an unfinished run is completed."""

from enum import Enum
from typing import NamedTuple

from rlbilinear.agents.folder import is_free
from rlbilinear.agents.options import TrainOptions, check_length, check_same_run
from rlbilinear.agents.ppo import train
from rlbilinear.agents.run import OPTIONS, Run
from rlbilinear.agents.scores import final_scores


class Progress(Enum):
    """How far a run is."""

    NEW = "not begun"
    STOPPED = "under way or stopped"
    FINISHED = "finished"


class Standing(NamedTuple):
    """How far a run is, and the frames of its last checkpoint."""

    progress: Progress
    frames: int


def standing(options: TrainOptions) -> Standing:
    """Look into a run's folder, and return how far the run is.

    Raises:
        ValueError: the folder holds something else: another run, or one trained for longer.
        CheckpointError: files of the run are damaged.
    """
    run = Run(options.out)
    if is_free(run.folder):
        return Standing(Progress.NEW, 0)
    if not (run.folder / OPTIONS).is_file():
        raise ValueError(f"{run.folder} holds something that is not a run: choose another place")
    check_same_run(run.folder, run.record()["options"], options)
    check_length(run.folder, run.frames, options)
    if min(run.frames, run.trained_frames) >= options.frames:
        return Standing(Progress.FINISHED, run.frames)
    if run.newest_checkpoint() is None:
        return Standing(Progress.NEW, 0)
    return Standing(Progress.STOPPED, run.frames)


def finish(options: TrainOptions, *, final_levels: int) -> None:
    """Bring a run to completion from wherever it is, and score its agent.

    Args:
        options: of the run.
        final_levels: how many levels of each set the agent is scored on.

    Raises:
        ValueError: as `standing`, or options that are not accepted.
        KeyboardInterrupt: it was stopped, and can be resumed.
    """
    progress = standing(options).progress
    if progress is not Progress.FINISHED:
        begun = (options.out / OPTIONS).is_file()
        resume = progress is Progress.STOPPED
        train(options, resume=resume, overwrite=begun and not resume)
        if standing(options).progress is not Progress.FINISHED:
            raise KeyboardInterrupt
    final_scores(
        options.out,
        levels=options.levels,
        count=final_levels,
        mode=options.mode,
        device=options.device,
        progress=options.progress,
    )
