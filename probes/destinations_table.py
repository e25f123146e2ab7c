"""How far each way to send an agent gets: all free cells of held-out mazes, as table and figure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure

from rlbilinear.agents.folder import write_json
from rlbilinear.envs import EVALUATION, Maze
from rlbilinear.envs.files import replacing
from rlbilinear.probes.destinations import Way
from rlbilinear.probes.figures import COLOURS, CONTROL, STYLE, WIDTH
from rlbilinear.probes.sending import send
from rlbilinear.statistics import bootstrap_interval, bootstrap_of_means

REAL, MAPS, UNSENT = "a real cheese", "maps", "not sent"
SIDES = {False: "no cheese", True: "own cheese"}
"""What else is in the maze: nothing, or the level's own cheese somewhere."""
SETTINGS = "sent.json"
BINS = (0, 5, 10, 20, 30, 1000)
"""Of distances, in steps."""


def send_everywhere(
    ways: Mapping[str, Way],
    mazes: int,
    out: Path,
    settings: Mapping[str, Any],
    *,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Send an agent to every free cell of the first held-out mazes, in every way.

    Each way's table is written as soon as it is there, and read again when it is.

    Args:
        ways: by name.
        mazes: how many.
        out: folder of the tables.
        settings: what the tables depend on; those of another run are refused.
        seed: seed of the sampling of moves.
        progress: show bars.

    Returns:
        The rows of `send` with ``way`` and ``maze`` (`SIDES`). Errands behind the level's own
        cheese are left out where it is there.

    Raises:
        ValueError: the folder has tables of other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    check_settings(out / SETTINGS, settings)
    write_json(out / SETTINGS, dict(settings))
    own = [Maze.from_seed(level) for level in EVALUATION.first(mazes)]
    tables = []
    for cheese, side in SIDES.items():
        for name, way in ways.items():
            if cheese and not way.cheese:
                continue
            part = out / f"{side}, {name}.csv".replace(" ", "-").replace(",", "")
            if not part.exists():
                if progress:
                    print(f"{side}: {name}", flush=True)
                states = own if cheese else [maze.with_cheese() for maze in own]
                found = send(states, way.sender, seed=seed, progress=progress)
                with replacing(part) as partial:
                    found.to_csv(partial, index=False)
            tables.append(pd.read_csv(part).assign(way=name, maze=side))
    return pd.concat(tables, ignore_index=True)


def check_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse other settings than those that the contents of a folder depend on, if it has any.

    Raises:
        ValueError: they are others; what differs is named.
    """
    if not file.exists():
        return
    before = json.loads(file.read_text())
    names = sorted(
        name for name in before.keys() | settings if before.get(name) != settings.get(name)
    )
    if names:
        said = ", ".join(
            f"{name} {before.get(name)!r}, not {settings.get(name)!r}" for name in names
        )
        raise ValueError(
            f"{file.parent} was made with other settings ({said}); choose another folder"
        )


def destinations_summary(sent: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Average by maze, and over mazes.

    Returns:
        A row for each way with and without the level's own cheese: ``maze``, ``way``, ``reached``
        (the mean over mazes of the share of their cells that are reached) with ``low`` and
        ``high``; ``of_cells``, the share of all cells; ``of_real``, ``of_cells`` relative to a real
        cheese on the same errands, with ``of_real_low`` and ``of_real_high``; ``eaten``, the share
        that ended at the level's own cheese;
        ``finite``; ``cells`` and ``mazes``, their numbers.
    """
    key = ["level", "row", "column"]
    real = sent[sent["way"] == REAL].set_index(key)["reached"]
    rows = []
    for (side, way), own in sent.groupby(["maze", "way"], sort=False):
        value = bootstrap_interval(
            *(
                own.groupby("level")["reached"].mean().reset_index()[name].to_numpy()
                for name in ("reached", "level")
            ),
            seed=seed,
        )
        there = real.reindex(pd.MultiIndex.from_frame(own[key]))
        share = bootstrap_of_means(
            np.stack([own["reached"], there], 1), own["level"].to_numpy(), _ratio, seed=seed
        )
        rows.append(
            {
                "maze": side,
                "way": way,
                "reached": value.estimate,
                "low": value.low,
                "high": value.high,
                "of_cells": own["reached"].mean(),
                "of_real": share.estimate,
                "of_real_low": share.low,
                "of_real_high": share.high,
                "eaten": own["eaten"].mean(),
                "finite": own["finite"].mean(),
                "cells": len(own),
                "mazes": own["level"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def _ratio(means: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
    """Return the first as a share of the second; NaN of nothing."""
    whole = means[..., 1]
    return np.divide(means[..., 0], whole, out=np.full(whole.shape, np.nan), where=whole > 0)


@rc_context(STYLE)
def destinations_figure(sent: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Draw how many cells each way reaches, and how that falls with distance."""
    figure = Figure(figsize=(WIDTH * 1.4, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    order = summary.groupby("way")["reached"].max().sort_values()
    for offset, (side, colour) in zip(
        (0.17, -0.17), (("no cheese", COLOURS[0]), ("own cheese", COLOURS[1])), strict=True
    ):
        rows = summary[summary["maze"] == side].set_index("way")
        at = np.array([order.index.get_loc(name) for name in rows.index]) + offset
        left.hlines(at, rows["low"], rows["high"], color=colour, lw=2)
        left.plot(rows["reached"], at, "o", color=colour, label=f"maze with {side}")
    real = summary.loc[summary["way"] == REAL, "reached"].iloc[0]
    left.axvline(real, color=CONTROL, ls=":", lw=1)
    left.set_yticks(range(len(order)), order.index)
    left.set(xlim=(-0.02, 1.02), xlabel="share of a maze's free cells that are reached")
    left.set_title("Sent to every free cell", fontsize=11)
    left.legend(fontsize=9, loc="lower right")
    left.grid(axis="x", alpha=0.3)
    labels = [f"{low + 1} to {high}" for low, high in itertools.pairwise(BINS)]
    labels[-1] = f"over {BINS[-2]}"
    for number, way in enumerate(_shown(order.index)):
        rows = sent[(sent["way"] == way) & (sent["maze"] == SIDES[False])]
        far = pd.cut(rows["distance"], BINS, labels=labels)
        means = rows.groupby(far, observed=False)["reached"].mean()
        right.plot(labels, means, "o-", color=[*COLOURS, CONTROL][number], label=way)
    right.set(ylim=(-0.02, 1.02), xlabel="steps of the shortest way", ylabel="reached")
    right.set_title("By distance, in mazes without a cheese", fontsize=11)
    right.legend(fontsize=9)
    right.grid(alpha=0.3)
    return figure


def _shown(ways: Sequence[str]) -> list[str]:
    """Return the ways whose curves are drawn: the best, and a control of each kind."""
    wanted = (REAL, MAPS, "maps, 1 direction", "own difference, 1 direction", UNSENT)
    return [way for way in wanted if way in {*ways}]
