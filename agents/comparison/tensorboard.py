"""The comparison in TensorBoard: one curve for each architecture, figures, runs side by side."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from rlbilinear.agents.comparison.matrix import Entry
from rlbilinear.agents.comparison.tables import (
    EVALUATION,
    KEY,
    WHILE_TRAINING,
    Collected,
    averaged,
)
from rlbilinear.agents.options import Hyperparameters

TAGS = {WHILE_TRAINING: "training_levels", EVALUATION: "held_out_levels"}


def write(folder: Path, found: Collected, figures: Mapping[str, Figure], text: str) -> None:
    """Write everything for TensorBoard into a folder.

    Scalars ``GAME/held_out_levels/return`` and so on are means over the finished seeds of an
    architecture (over all, if none is finished), at the frames that all of them have; each
    architecture is a run. In the tab of hyperparameters each finished run has a row, with its final
    scores.
    """
    with SummaryWriter(str(folder / "report")) as writer:
        for name, figure in figures.items():
            writer.add_figure(name, figure, close=False)
        writer.add_text("report", "\n".join(f"    {line}" for line in text.splitlines()))
    for architecture, rows in found.evaluations.groupby("architecture", sort=False):
        with SummaryWriter(str(folder / "means" / str(architecture))) as writer:
            _means(writer, rows[rows["measured"].isin(TAGS)])
    sizes = found.status.set_index(KEY)["parameters"]
    for entry in found.entries:
        final = found.final[(found.final[KEY] == list(entry[:3])).all(axis=1)]
        if len(final):
            place = folder / "runs" / entry.game / entry.architecture / f"seed{entry.seed}"
            _row(place, entry, int(sizes[entry[:3]]), final)


def _means(writer: SummaryWriter, rows: pd.DataFrame) -> None:
    for (game, measured), of in rows.groupby(["game", "measured"]):
        for unit in ("return", "normalised"):
            wide = averaged(of).pivot_table(index="frames", columns="seed", values=unit).dropna()
            for frames, mean in wide.mean(axis=1).items():
                writer.add_scalar(f"{game}/{TAGS[measured]}/{unit}", mean, frames)


def _row(folder: Path, entry: Entry, parameters: int, final: pd.DataFrame) -> None:
    """Write a run's hyperparameters and final scores."""
    made = entry.run.identity()
    settings = {
        **dict(zip(KEY, entry, strict=False)),
        "parameters": parameters,
        **{name: made[name] for name in asdict(Hyperparameters())},
    }
    scores = {
        f"final/{row['measure']}_{unit}": row[unit]
        for _, row in final.iterrows()
        for unit in ("return", "normalised")
    }
    with SummaryWriter(str(folder)) as writer:
        writer.add_hparams(settings, scores, run_name=".")
