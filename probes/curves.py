"""Drawing tables of scores: against the number of channels, by condition, channel and measure.

As in `rlbilinear.probes.figures`, every function takes a table whose columns its docstring names.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlbilinear.probes.figures import COLOURS, CONTROL, STYLE, WIDTH, check_table, legend_below

SCORES = {
    "average_precision": "average precision",
    "f1": "F1",
    "brier": "Brier score",
    "top1": "share of right cells",
    "r2": "R²",
    "distance": "error in cells",
}
"""What the scores of `rlbilinear.probes.reading.probe_report` are called."""

METHODS = {"f_test": "F-test", "mutual_information": "mutual information", "l1": "L1"}
"""What the rankings of `rlbilinear.probes.sparse` are called."""


@rc_context(STYLE)
def sparsity_curve(
    table: pd.DataFrame,
    *,
    score: str = "average_precision",
    title: str = "How well few channels read the concept, on held-out levels",
) -> Figure:
    """Draw a score against the number of channels read, for each way to choose them.

    Args:
        table: from `rlbilinear.probes.sparse.sparsity_table`: columns ``features``, ``method``,
            ``draw``, ``k`` and the score with its ``_low`` and ``_high``; ``base_rate``, if it is
            there, is drawn across.
        score: the column to draw.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(table, "features", "method", "draw", "k", score, f"{score}_low", f"{score}_high")
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    controls = iter(("--", ":", "-."))
    colours = iter(COLOURS)
    trained = table["features"].iloc[0]
    for (features, method), group in table.groupby(["features", "method"], sort=False):
        control = features != trained
        if method == "random":
            for draw, rows in group.groupby("draw"):
                label = "random channels" if draw == group["draw"].min() else None
                axes.plot(rows["k"], rows[score], color=CONTROL, linewidth=0.7, label=label)
            continue
        by = METHODS.get(method, method)
        colour = CONTROL if control else next(colours)
        axes.plot(
            group["k"], group[score], next(controls) if control else "-", marker="o", ms=4,
            color=colour, label=f"{features}, by {by}" if control else by,
        )  # fmt: skip
        axes.fill_between(
            group["k"], group[f"{score}_low"], group[f"{score}_high"], color=colour, alpha=0.15,
            linewidth=0,
        )  # fmt: skip
    if "base_rate" in table and score == "average_precision":
        base = table["base_rate"].iloc[0]
        axes.axhline(base, color="black", linestyle=":", label=f"base rate {base:.3f}")
    counts = sorted(table["k"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{count:g}" for count in counts])
    axes.set(
        xlabel="channels read", ylabel=f"{SCORES.get(score, score)}\n(95% interval over levels)"
    )
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.3)
    legend_below(figure, [axes])
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def decision_points(
    table: pd.DataFrame,
    *,
    title: str = "What the agent does where the ways to the cheese and to the corner part",
) -> Figure:
    """Draw the probability of either way under each condition, with its interval.

    Args:
        table: from `rlbilinear.probes.vectors.decision_summary`: columns ``condition``, ``way``,
            ``probability``, ``low``, ``high``.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(table, "condition", "way", "probability", "low", "high")
    names = list(dict.fromkeys(table["condition"]))
    figure = Figure(figsize=(WIDTH, 1.8 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    for index, (way, rows) in enumerate(table.groupby("way", sort=False)):
        y = [names.index(name) + 0.24 * index - 0.12 for name in rows["condition"]]
        axes.hlines(y, rows["low"], rows["high"], color=COLOURS[index])
        axes.plot(
            rows["probability"], y, "o", color=COLOURS[index], label=str(way).replace("_", " ")
        )
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 32) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(xlabel="probability of the first move, 95% interval over levels", xlim=(-0.02, 1.02))
    axes.grid(axis="x", alpha=0.3)
    legend_below(figure, [axes])
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def attribution_points(
    table: pd.DataFrame,
    *,
    most: int = 8,
    unit: str = "log odds of the most likely move",
    title: str = "What each channel adds to what the agent does",
) -> Figure:
    """Draw the channels of each layer to which most is attributed, one panel a layer.

    Args:
        table: from `rlbilinear.probes.attribution.attribution_table`: columns ``layer``,
            ``channel``, ``attribution``, ``low``, ``high``, ``size``, ``change``.
        most: channels drawn of each layer, those of the largest size.
        unit: unit of what is attributed.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(table, "layer", "channel", "attribution", "low", "high", "size", "change")
    layers = dict(list(table.groupby("layer", sort=False)))
    columns = min(len(layers), 3)
    rows = -(-len(layers) // columns)
    figure = Figure(figsize=(WIDTH, 1.0 + rows * (1.0 + 0.25 * most)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, (layer, group) in zip(panels, layers.items(), strict=False):
        shown = group.sort_values("size", ascending=False, kind="stable").head(most)
        y = range(len(shown))
        axes.axvline(0, color="black", linewidth=0.8)
        axes.hlines(y, shown["low"], shown["high"], color=COLOURS[0])
        axes.plot(shown["attribution"], y, "o", color=COLOURS[0])
        axes.set_yticks(y, [f"{channel}" for channel in shown["channel"]])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        part = shown["attribution"].sum()
        axes.set_title(
            f"{layer}: these add {part:.2f} of {group['change'].iloc[0]:.2f}", fontsize=11
        )
        axes.grid(axis="x", alpha=0.3)
    for axes in panels[len(layers) :]:
        axes.remove()
    panels[0].set_ylabel("channel")
    figure.supxlabel(f"{unit}, mean over states, 95% interval over levels", fontsize=11)
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def coefficient_points(
    table: pd.DataFrame,
    *,
    title: str = "What predicts the choice: alone, and beside the other measures",
) -> Figure:
    """Draw the coefficients of measures, alone and together, with how firm they are.

    Args:
        table: of a `rlbilinear.probes.regression.Regression`: columns ``measure``, ``alone`` and
            ``coefficient`` with their intervals, ``vif``, ``same_sign``.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(
        table, "measure", "alone", "alone_low", "alone_high", "coefficient", "low", "high", "vif",
        "same_sign",
    )  # fmt: skip
    figure = Figure(figsize=(WIDTH, 1.9 + 0.42 * len(table)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    y = np.arange(len(table))
    for offset, colour, label, (value, low, high) in (
        (-0.15, COLOURS[0], "alone", ("alone", "alone_low", "alone_high")),
        (0.15, COLOURS[1], "beside the others", ("coefficient", "low", "high")),
    ):
        axes.hlines(y + offset, table[low], table[high], color=colour)
        axes.plot(table[value], y + offset, "o", ms=5, color=colour, label=label)
    for at, row in zip(y, table.itertuples(), strict=True):
        text = f"VIF {row.vif:.3g}, sign kept {row.same_sign:.0%}"
        axes.text(
            1.01, at, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9,
            color="#404040",
        )  # fmt: skip
    axes.set_yticks(y, [name.replace("_", " ") for name in table["measure"]])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("coefficient of the standardised measure, 95% interval over levels")
    axes.grid(axis="x", alpha=0.3)
    legend_below(figure, [axes])
    figure.suptitle(title)
    return figure
