"""The measurements of a comparison's runs, as tables, without drawing."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlbilinear.agents.comparison.alike import made_differently
from rlbilinear.agents.comparison.matrix import Entry, parameters
from rlbilinear.agents.run import OPTIONS, TENSORBOARD
from rlbilinear.agents.scores import SETS, final_scores, score_range

MEASURES = (*SETS, "gap")
"""Final scores: on training levels, on held-out levels, and the first minus the second."""

WHILE_TRAINING, EVALUATION, FINAL_AGENT = "while training", "evaluation", "final agent"
"""How a row of `Collected.evaluations` was measured: the mean of the last 100 training episodes;
an evaluation during training; the final agent on as many levels of each set."""

TRAINING_CURVES = {f"training_levels/{name}": name for name in ("return", "success", "steps")}
SPEED = "time/steps_per_second"
"""Scalars that a run writes, by their tags in TensorBoard."""

FINISHED, SHORT, DIFFERENT, MISSING = "finished", "short", "made differently", "missing"
"""States of a run: it has all its frames; it has fewer; it was made by other options or other code
than most seeds of its game and architecture; it does not exist. Final scores are of finished runs
only, curves of finished and short ones."""


class Collected(NamedTuple):
    """What was found in the runs' folders.

    Attributes:
        entries: the finished and short runs, in the comparison's order.
        frames: that a run must have to count as finished.
        status: a row a run of the full matrix: game, architecture, seed, ``state``, ``why``,
            frames, hours, parameters.
        evaluations: a row a run, level set and evaluation: returns and normalised scores, and
            whether the run is finished.
        final: a row a finished run and measure: ``return`` and ``normalised``.
        levels: a row a finished run, level set and level, from `agents.scores.final_scores`.
        skip_unplayable: whether unplayable levels are left out of all scores.
    """

    entries: list[Entry]
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
COLUMNS = [*KEY, "frames", "levels", "measured", "return", "normalised", "success", "steps"]
COLUMNS = [*COLUMNS, "finished"]


def collect(
    entries: Sequence[Entry],
    *,
    frames: int,
    final_levels: int,
    device: str,
    progress: bool,
    skip_unplayable: bool = False,
) -> Collected:
    """Read all runs; a finished one whose agent was not scored yet is scored now.

    Args:
        entries: of the comparison. Runs that are not there, of these or of the full matrix of
            their games, architectures and seeds, are listed as missing.
        frames: that a run must have to count as finished.
        final_levels: how many levels of each set final agents are scored on.
        device: where they play.
        progress: show a bar.
        skip_unplayable: leave levels that are over at the first step, without a reward, whatever
            one does, out of the scores of final agents.

    Raises:
        ValueError: none of the runs exists, or all levels of a set are left out.
        CheckpointError: a run cannot be read.
    """
    there = [entry for entry in entries if (entry.run.folder / OPTIONS).is_file()]
    if not there:
        raise ValueError("there is no run yet")
    different = made_differently(there)
    status, evaluations, levels = [], [], []
    for entry in there:
        key = dict(zip(KEY, entry, strict=False))
        state, why = _state(entry, frames, different)
        scalars = read_scalars(entry.run.folder, (*TRAINING_CURVES, SPEED))
        facts = {"frames": entry.run.frames, "hours": hours(scalars[SPEED])}
        status.append({**key, "state": state, "why": why, **facts, "parameters": _size(entry)})
        if state == DIFFERENT:
            continue
        curves = read_curves(entry, scalars)
        if state == FINISHED:
            played = final_scores(
                entry.run.folder,
                levels=entry.options.levels,
                count=final_levels,
                mode=entry.options.mode,
                device=device,
                progress=progress,
            )
            counted = _counted(played, skip_unplayable)
            if left := {*SETS} - {*counted["levels"]}:
                raise ValueError(
                    f"{entry.run.folder}: all {' and '.join(sorted(left))} levels are unplayable"
                )
            means = counted.groupby("levels")[["return", "success", "steps"]].mean().reset_index()
            row = means.assign(frames=entry.run.trained_frames, measured=FINAL_AGENT)
            curves = pd.concat([curves, row], ignore_index=True)
            levels.append(played.assign(**key))
        low, high = score_range(entry.game, entry.options.mode)
        curves["normalised"] = (curves["return"] - low) / (high - low)
        evaluations.append(curves.assign(**key, finished=state == FINISHED))
    table = pd.concat(evaluations, ignore_index=True)[COLUMNS]
    return Collected(
        [entry for entry in there if entry not in different],
        frames,
        pd.DataFrame([*status, *_missing(entries, there)]),
        table,
        _final(table),
        pd.concat(levels, ignore_index=True) if levels else pd.DataFrame(),
        skip_unplayable,
    )


def _counted(levels: pd.DataFrame, skip_unplayable: bool) -> pd.DataFrame:
    return levels[~levels["unplayable"]] if skip_unplayable and len(levels) else levels


def averaged(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the runs that means are taken over: finished ones, or all if none is."""
    finished = evaluations["finished"].astype(bool)
    return evaluations[finished] if finished.any() else evaluations


def _state(entry: Entry, frames: int, different: Mapping[Entry, str]) -> tuple[str, str]:
    """Return the state of a run that exists, and why it is in it."""
    if entry in different:
        return DIFFERENT, different[entry]
    if entry.run.trained_frames < frames:
        done = entry.run.frames
        return SHORT, f"{done:,} of {frames:,} frames" if done < frames else "no trained agent yet"
    return FINISHED, ""


def _missing(entries: Sequence[Entry], there: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return rows of status for what the full matrix lacks, seed by seed."""
    found = {entry[:3] for entry in there}
    sizes = {entry.architecture: _size(entry) for entry in entries}
    seeds = dict.fromkeys(entry.seed for entry in entries)
    games = dict.fromkeys(entry.game for entry in entries)
    return [
        {
            **dict(zip(KEY, (game, architecture, seed), strict=True)),
            **{"state": MISSING, "why": "", "frames": 0, "parameters": sizes[architecture]},
        }
        for seed, game, architecture in product(seeds, games, sizes)
        if (game, architecture, seed) not in found
    ]


def _size(entry: Entry) -> int:
    return parameters(entry.options.new_architecture, entry.options.architecture_arguments())


def _final(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run and measure, from the rows of final agents."""
    last = evaluations[evaluations["measured"] == FINAL_AGENT].set_index(KEY)
    training, held_out = (last[last["levels"] == name][["return", "normalised"]] for name in SETS)
    by_measure = dict(zip(MEASURES, (training, held_out, training - held_out), strict=True))
    return pd.concat(by_measure, names=["measure"]).reset_index()


def read_curves(entry: Entry, scalars: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return a run's scores through training.

    Those of held-out levels are the evaluations in its results; those of training levels are the
    moving average of training episodes, which is among the scalars.
    """
    held_out = pd.DataFrame(entry.run.held_out(), columns=["frames", *TRAINING_CURVES.values()])
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

    A run that was killed and resumed has some frames twice: the later value counts.
    """
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of just that
    accumulator = EventAccumulator(str(run / TENSORBOARD), size_guidance={"scalars": 0})
    if (run / TENSORBOARD).is_dir():
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
    """Return how long a run took, from its frames a second by frames; pauses do not count."""
    frames = np.diff(speeds.index.to_numpy(float), prepend=0)
    return float((frames / speeds.to_numpy()).sum() / 3600)
