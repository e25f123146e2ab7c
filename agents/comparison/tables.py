"""What the runs of a comparison have to tell, as tables, without drawing."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlbilinear.agents.comparison.matrix import Run, parameters
from rlbilinear.agents.ppo import OPTIONS, RESULTS
from rlbilinear.agents.run_status import frames_done, trained_frames
from rlbilinear.agents.scores import SETS, final_scores, score_range

MEASURES = (*SETS, "gap")
"""Final scores: on training levels, on held-out levels, and the first minus the second."""

WHILE_TRAINING, EVALUATION, FINAL_AGENT = "while training", "evaluation", "final agent"
"""How a row of `Collected.evaluations` was measured: the mean of the last 100 training episodes;
an evaluation during training; the final agent on as many levels of each set."""

TRAINING_CURVES = {f"training_levels/{name}": name for name in ("return", "success", "steps")}
SPEED = "time/steps_per_second"
"""Scalars that a run writes, by their tags in TensorBoard."""


class Collected(NamedTuple):
    """What was found in the runs' folders.

    Attributes:
        runs: that exist, in the comparison's order.
        frames: that a run must have to count as finished.
        status: a row a run: game, architecture, seed, frames, finished, hours, parameters.
        evaluations: a row a run, level set and evaluation: returns and normalised scores.
        final: a row a finished run and measure: ``return`` and ``normalised``.
        levels: a row a finished run, level set and level, from `agents.scores.final_scores`.
        skip_unplayable: whether unplayable levels are left out of all scores.
    """

    runs: list[Run]
    frames: int
    status: pd.DataFrame
    evaluations: pd.DataFrame
    final: pd.DataFrame
    levels: pd.DataFrame
    skip_unplayable: bool = False

    @property
    def counted(self) -> pd.DataFrame:
        """The levels that scores are made of."""
        return _counted(self.levels, self.skip_unplayable)


KEY = ["game", "architecture", "seed"]


def collect(
    runs: Sequence[Run],
    *,
    frames: int,
    final_levels: int,
    device: str,
    progress: bool,
    skip_unplayable: bool = False,
) -> Collected:
    """Read all runs; a finished one whose agent was not scored yet is scored now.

    Args:
        runs: of the comparison; those that do not exist yet are left out.
        frames: that a run must have to count as finished.
        final_levels: how many levels of each set final agents are scored on.
        device: where they play.
        progress: show a bar.
        skip_unplayable: leave levels that are over at the first step, without a reward, whatever
            one does, out of the scores of final agents.

    Raises:
        ValueError: none of them exists, or all levels of a set are left out.
        CheckpointError: a run cannot be read.
    """
    runs = [run for run in runs if (run.options.out / OPTIONS).is_file()]
    if not runs:
        raise ValueError("there is no run yet")
    status, evaluations, levels = [], [], []
    for run in runs:
        key = dict(zip(KEY, run, strict=False))
        scalars = read_scalars(run.options.out, (*TRAINING_CURVES, SPEED))
        curves = read_curves(run, scalars)
        finished = trained_frames(run.options.out) >= frames
        if finished:
            played = final_scores(
                run.options.out,
                levels=run.options.levels,
                count=final_levels,
                mode=run.options.mode,
                device=device,
                progress=progress,
            )
            counted = _counted(played, skip_unplayable)
            if left := {*SETS} - {*counted["levels"]}:
                raise ValueError(f"{run}: all {' and '.join(sorted(left))} levels are unplayable")
            means = counted.groupby("levels")[["return", "success", "steps"]].mean().reset_index()
            row = means.assign(frames=trained_frames(run.options.out), measured=FINAL_AGENT)
            curves = pd.concat([curves, row], ignore_index=True)
            levels.append(played.assign(**key))
        low, high = score_range(run.game, run.options.mode)
        curves["normalised"] = (curves["return"] - low) / (high - low)
        evaluations.append(curves.assign(**key))
        status.append(
            {
                **key,
                "frames": frames_done(run.options.out),
                "finished": finished,
                "hours": hours(scalars[SPEED]),
                "parameters": parameters(
                    run.options.architecture or "bimpala", run.options.architecture_arguments()
                ),
            }
        )
    table = pd.concat(evaluations, ignore_index=True)
    table = table[
        [*KEY, "frames", "levels", "measured", "return", "normalised", "success", "steps"]
    ]
    return Collected(
        runs,
        frames,
        pd.DataFrame(status),
        table,
        _final(table),
        pd.concat(levels, ignore_index=True) if levels else pd.DataFrame(),
        skip_unplayable,
    )


def _counted(levels: pd.DataFrame, skip_unplayable: bool) -> pd.DataFrame:
    return levels[~levels["unplayable"]] if skip_unplayable and len(levels) else levels


def _final(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run and measure, from the rows of final agents."""
    last = evaluations[evaluations["measured"] == FINAL_AGENT].set_index(KEY)
    training, held_out = (last[last["levels"] == name][["return", "normalised"]] for name in SETS)
    by_measure = dict(zip(MEASURES, (training, held_out, training - held_out), strict=True))
    return pd.concat(by_measure, names=["measure"]).reset_index()


def read_curves(run: Run, scalars: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return a run's scores through training.

    Those of held-out levels are the evaluations in its results; those of training levels are the
    moving average of training episodes, which is among the scalars.
    """
    results = run.options.out / RESULTS
    history = json.loads(results.read_text())["held_out"] if results.is_file() else []
    held_out = pd.DataFrame(history, columns=["frames", *TRAINING_CURVES.values()])
    training = pd.DataFrame({column: scalars[tag] for tag, column in TRAINING_CURVES.items()})
    parts = [
        held_out.assign(levels="held_out", measured=EVALUATION),
        training.rename_axis("frames")
        .reset_index()
        .assign(levels="training", measured=WHILE_TRAINING),
    ]
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def read_scalars(run: Path, names: Iterable[str]) -> dict[str, pd.Series]:
    """Return scalars from a run's TensorBoard files, by frames; an empty series where none is.

    A run that was killed and went on has some frames twice: the later value stands.
    """
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of just that
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    if (run / "tensorboard").is_dir():
        accumulator.Reload()
        there = set(accumulator.Tags()["scalars"])
    else:
        there = set()
    found: dict[str, pd.Series] = {}
    for name in names:
        events = accumulator.Scalars(name) if name in there else []
        # the files hold float32: seven digits
        by_frames = {event.step: float(f"{event.value:.7g}") for event in events}
        found[name] = pd.Series(by_frames, dtype=float).sort_index()
    return found


def hours(speeds: pd.Series) -> float:
    """Return how long a run took, of its frames a second by frames: without standing still."""
    frames = np.diff(speeds.index.to_numpy(float), prepend=0)
    return float((frames / speeds.to_numpy()).sum() / 3600)
