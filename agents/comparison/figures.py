"""Drawings of a comparison. Lines and dots are seeds; intervals are over seeds, from three on."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from rlbilinear.agents.comparison.summary import ALL_GAMES
from rlbilinear.agents.comparison.tables import (
    EVALUATION,
    FINISHED,
    SHORT,
    WHILE_TRAINING,
    Collected,
    averaged,
)
from rlbilinear.statistics import t_interval

FEWEST = 3
"""seeds that an interval is drawn from: that of two is wider than any figure"""

PANELS = {
    WHILE_TRAINING: "training levels, mean of the last 100 episodes",
    EVALUATION: "held-out levels",
}


def curves(found: Collected) -> Figure:
    """Draw returns against frames: each seed thin, their mean thick, its interval as a band.

    Where seeds have finished, the mean is over these.
    """
    games = [*dict.fromkeys(found.status["game"])]
    colours = _colours(found)
    figure = Figure(figsize=(11, 0.8 + 3 * len(games)), layout="constrained")
    panels = figure.subplots(len(games), 2, squeeze=False, sharey="row", sharex=True)
    for game, row in zip(games, panels, strict=True):
        for axes, (measured, title) in zip(row, PANELS.items(), strict=True):
            for architecture, colour in colours.items():
                rows = _of(found.evaluations, game, architecture)
                _curve(axes, rows[rows["measured"] == measured], architecture, colour)
            axes.set_title(f"{game}: {title}", fontsize=10)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.grid(alpha=0.25, lw=0.5)
        row[0].set_ylabel("return of an episode")
    for axes in panels[-1]:
        axes.set_xlabel("frames")
    if panels[0][0].get_legend_handles_labels()[0]:
        panels[0][0].legend(fontsize=8)
    figure.suptitle(_note(found, "thin lines", "thick"), fontsize=9)
    return figure


def returns(found: Collected) -> Figure:
    """Draw the final agents' returns on training and held-out levels, and the gap between."""
    games = [*dict.fromkeys(found.final["game"])]
    architectures = _colours(found)
    width = 1.2 + 0.75 * len(architectures)
    columns = min(len(games), 4)
    rows = -(-len(games) // columns)
    figure = Figure(figsize=(max(5.0, width * columns), 0.9 + 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, game in zip(panels, games, strict=False):
        for place, (architecture, colour) in enumerate(architectures.items()):
            final = _of(found.final, game, architecture)
            means = []
            for shift, measure, filled in ((-0.17, "training", False), (0.17, "held_out", True)):
                values = final[final["measure"] == measure]["return"].to_numpy()
                if not len(values):
                    continue
                x = place + shift
                axes.plot(
                    np.full(len(values), x),
                    values,
                    "o",
                    ms=5,
                    color=colour,
                    mfc=colour if filled else "none",
                    alpha=0.8,
                )
                _mean(axes, x, values, colour)
                means.append((x, values.mean()))
            axes.plot(*zip(*means, strict=True), color=colour, lw=0.8, ls=":") if means else None
        axes.set_title(game, fontsize=10)
        axes.set_xticks(range(len(architectures)), architectures, rotation=20, fontsize=8)
        axes.set_xlim(-0.5, len(architectures) - 0.5)
        axes.grid(axis="y", alpha=0.25, lw=0.5)
    for axes in panels[len(games) :]:
        axes.set_axis_off()
    panels[0].set_ylabel("return of an episode")
    figure.suptitle(
        "Final agents: training levels (open), held-out levels (filled); dotted: the gap\n"
        + _note(found),
        fontsize=9,
    )
    return figure


def normalised(found: Collected, aggregates: pd.DataFrame) -> Figure:
    """Draw normalised scores on held-out levels, and gaps, game by game and over all."""
    several = len(aggregates) > 0 and aggregates["games"].iloc[0] > 1
    rows = [*dict.fromkeys(found.final["game"]), *([ALL_GAMES] if several else [])]
    figure = Figure(figsize=(10, 1.6 + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {
        "held_out": "normalised score on held-out levels",
        "gap": "generalisation gap, normalised",
    }
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        for offset, (architecture, colour) in _offsets(found):
            for y, game in enumerate(rows):
                if game == ALL_GAMES:
                    of = aggregates[
                        (aggregates["architecture"] == architecture)
                        & (aggregates["measure"] == measure)
                    ].iloc[0]
                    ends = [[of["iqm"] - of["iqm_low"]], [of["iqm_high"] - of["iqm"]]]
                    axes.errorbar([of["iqm"]], [y + offset], xerr=ends, fmt="D", color=colour)
                    continue
                final = _of(found.final, game, architecture)
                values = final[final["measure"] == measure]["normalised"].to_numpy()
                label = architecture if y == 0 else None
                _dots(axes, values, y + offset, colour, label)
        axes.axvline(0, color="black", lw=0.6)
        axes.set_xlabel(title)
        axes.grid(axis="x", alpha=0.25, lw=0.5)
    _game_axis(panels[0], rows)
    panels[0].legend(fontsize=8)
    below = f"; {ALL_GAMES}: interquartile mean, stratified bootstrap" if several else ""
    figure.suptitle(_note(found) + below, fontsize=9)
    return figure


def differences(found: Collected, pairs: pd.DataFrame, margin: float) -> Figure:
    """Draw the paired differences on held-out levels, with the margin of what is comparable."""
    held_out = pairs[pairs["measure"] == "held_out"]
    groups = [*held_out.groupby(["one", "other"], sort=False)]
    rows = sum(len(group) for _, group in groups)
    figure = Figure(figsize=(9, 1.3 + 0.8 * len(groups) + 0.45 * rows), layout="constrained")
    sizes = [len(group) + 1 for _, group in groups]
    panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True, height_ratios=sizes)[:, 0]
    reach = max(2.5 * margin, 1.3 * held_out["difference"].abs().max())
    for axes, ((one, other), group) in zip(panels, groups, strict=True):
        axes.axvspan(-margin, margin, color="0.9", zorder=0)
        axes.axvline(0, color="black", lw=0.6)
        for y, (_, row) in enumerate(group.iterrows()):
            _forest(axes, row, y, reach)
        _game_axis(axes, [*group["game"]])
        axes.set_title(f"{one} minus {other}", fontsize=10)
        axes.set_xlim(-reach, reach)
    panels[-1].set_xlabel("difference of normalised scores on held-out levels")
    figure.suptitle(
        f"Black: 95 % over seeds (arrows: beyond the figure); blue: over levels, of these agents\n"
        f"grey: comparable, within {margin:g}",
        fontsize=9,
    )
    return figure


def _forest(axes: Axes, row: pd.Series, y: float, reach: float) -> None:
    """Draw a difference with both its intervals; what leaves the figure ends in an arrow."""
    low, high = row["of_these_agents_low"], row["of_these_agents_high"]
    if not np.isnan(low):
        axes.plot([low, high], [y + 0.18] * 2, color="tab:blue", lw=3, alpha=0.6)
    low, high = row["difference_low"], row["difference_high"]
    if not np.isnan(low):
        axes.plot([max(low, -reach), min(high, reach)], [y, y], color="black", lw=1.2)
        for end, marker in ((low, "<"), (high, ">")):
            if abs(end) > reach:
                axes.plot([np.sign(end) * reach], [y], marker, color="black", clip_on=False)
    axes.plot([row["difference"]], [y], "o", color="black")
    axes.annotate(
        f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}: {row['verdict']}",
        (1.01, y),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8,
    )


def _curve(axes: Axes, rows: pd.DataFrame, label: str, colour: str) -> None:
    if not len(rows):
        return
    wide = rows.pivot_table(index="frames", columns="seed", values="return")
    for seed in wide:
        axes.plot(wide[seed].dropna(), color=colour, lw=0.7, alpha=0.5)
    common = wide[averaged(rows)["seed"].unique()].dropna()
    seeds = len(common.columns)
    name = f"{label}, {seeds} seed{'s' if seeds > 1 else ''}"
    axes.plot(common.mean(axis=1), color=colour, lw=1.8, label=name)
    if seeds >= FEWEST and len(common):
        ends = np.array([t_interval(values)[1:] for values in common.to_numpy()]).T
        axes.fill_between(common.index, *ends, color=colour, alpha=0.15, lw=0)


def _dots(axes: Axes, values: np.ndarray, y: float, colour: str, label: str | None) -> None:
    axes.plot(values, np.full(len(values), y), "o", ms=4, color=colour, alpha=0.45, label=label)
    if len(values):
        mean = t_interval(values)
        axes.plot([mean.estimate], [y], "|", ms=14, mew=2, color=colour)
        if len(values) >= FEWEST:
            axes.plot(mean[1:], [y, y], color=colour, lw=1.2)


def _mean(axes: Axes, x: float, values: np.ndarray, colour: str) -> None:
    mean = t_interval(values)
    axes.plot([x - 0.1, x + 0.1], [mean.estimate] * 2, color=colour, lw=2)
    if len(values) >= FEWEST:
        axes.plot([x, x], mean[1:], color=colour, lw=1.2)


def _game_axis(axes: Axes, rows: Sequence[str]) -> None:
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)


def _of(table: pd.DataFrame, game: str, architecture: str) -> pd.DataFrame:
    return table[(table["game"] == game) & (table["architecture"] == architecture)]


def _colours(found: Collected) -> Mapping[str, str]:
    return {name: f"C{i}" for i, name in enumerate(dict.fromkeys(found.status["architecture"]))}


def _offsets(found: Collected) -> list[tuple[float, tuple[str, str]]]:
    colours = _colours(found)
    places = np.linspace(-0.2, 0.2, len(colours)) if len(colours) > 1 else [0.0]
    return [*zip(map(float, places), colours.items(), strict=True)]


def _note(found: Collected, one: str = "dots", mean: str = "bars") -> str:
    """Say what the marks are, which depends on how many seeds there are."""
    counted = found.status[found.status["state"].isin((FINISHED, SHORT))]
    most = counted.groupby(["game", "architecture"]).size().max()
    if most >= FEWEST:
        return f"{one}: seeds; {mean}: their mean, with its 95 % t-interval from three seeds on"
    return f"{one}: seeds; {mean}: their mean; no interval is drawn from fewer than three seeds"
