"""Drawings of what chains, few components and low degrees explain of layers in depth."""

import pandas as pd
from matplotlib.figure import Figure

from rlbilinear.figures.axes import NEGATIVE, POSITIVE, headline

FLOOR = -1.0
"""Where R² is cut: how much worse than the mean a prediction is does not matter."""
COLOURS = (POSITIVE, NEGATIVE, "#4d9221", "#762a83", "#b35806")


def depth(
    chains: pd.DataFrame, components: pd.DataFrame, degrees: pd.DataFrame, *, title: str = "Depth"
) -> Figure:
    """Draw R² of chains by depth, of few components, and of terms up to a degree, in three panels.

    Args:
        chains: columns ``filters``, ``down_through`` (from the uppermost layer down), ``r2``,
            ``correlation`` and ``skip_r2``.
        components: columns ``part``, ``kept`` and ``r2``.
        degrees: columns ``part``, ``degree`` and ``r2``.
        title: what is followed.

    Raises:
        ValueError: a table that is empty, or lacks a column.
    """
    for table, needed in (
        (chains, ("filters", "down_through", "r2", "correlation", "skip_r2")),
        (components, ("part", "kept", "r2")),
        (degrees, ("part", "degree", "r2")),
    ):
        if table.empty or not {*needed} <= {*table}:
            raise ValueError(f"expected rows with columns {', '.join(needed)}; got {[*table]}")
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for colour, (count, of) in zip(COLOURS, chains.groupby("filters"), strict=False):
        plural = "s" * (int(count) > 1)
        left.plot(
            range(len(of)),
            of.r2.clip(lower=FLOOR),
            "o-",
            color=colour,
            label=f"{count} filter{plural}: R²",
        )
        left.plot(range(len(of)), of.correlation, "o:", ms=3, color=colour, label="correlation")
    if of.skip_r2.notna().any():
        left.plot(
            range(len(of)), of.skip_r2.clip(lower=FLOOR), "--", color="grey", label="skips only: R²"
        )
    left.set_xticks(range(len(of)), of.down_through, rotation=30, ha="right", fontsize=8)
    left.set(xlabel="the chain goes down through", title="Chains of eigenfilters")
    for axes, table, by, name in (
        (middle, components, "kept", "singular components kept of every layer"),
        (right, degrees, "degree", "terms up to this degree"),
    ):
        for colour, (part, rows) in zip(COLOURS, table.groupby("part", sort=False), strict=False):
            axes.plot(rows[by], rows.r2.clip(lower=FLOOR), "o-", ms=3.5, color=colour, label=part)
        axes.set(xlabel=name)
    middle.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
    kept = sorted(components.kept.unique())
    middle.set_xticks(kept, kept)
    middle.minorticks_off()
    middle.set_title("Few components of each layer")
    right.set_title("Low degrees")
    for axes in (left, middle, right):
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_ylim(1.1 * FLOOR, 1.1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False, loc="best")
        axes.title.set_fontsize(10)
    left.set_ylabel(f"R², cut at {FLOOR:g}")
    headline(figure, title)
    return figure
