"""Drawings of spectra, and of how play depends on how much of them is kept."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from rlbilinear.figures.axes import NEGATIVE, POSITIVE, as_numpy, headline


def spectrum(
    values: Float[Tensor, "k"],
    *,
    title: str = "Spectrum",
    unit: str = "eigenvector",
    shown: int = 64,
) -> Figure:
    """Draw eigenvalues as bars, and how many carry at least 50, 90 and 99 % of the energy.

    Args:
        values: eigenvalues by |value| descending, all of them: energy is the sum of their squares.
        title: what they are the spectrum of.
        unit: what one eigenvalue belongs to ("eigenfilter"), for the labels.
        shown: bars drawn at most.

    Raises:
        ValueError: there are no values, or they are all zero.
    """
    numbers = as_numpy(values)
    if numbers.ndim != 1 or not numbers.any():
        raise ValueError(f"expected eigenvalues (k,), not all zero; got shape {numbers.shape}")
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    bars, energy = figure.subplots(1, 2, width_ratios=[3, 2])

    drawn = numbers[:shown]
    colours = np.where(drawn > 0, POSITIVE, NEGATIVE)
    bars.bar(np.arange(len(drawn)), drawn, color=colours.tolist(), width=0.85)
    bars.axhline(0, color="black", linewidth=0.6)
    counted = f"first {len(drawn)} of {len(numbers)}" if len(drawn) < len(numbers) else "all"
    bars.set(xlabel=f"{unit} index ({counted})", ylabel="eigenvalue")
    bars.xaxis.set_major_locator(MaxNLocator(integer=True))

    cumulative = np.cumsum(numbers**2) / np.sum(numbers**2)
    counts = np.arange(len(numbers) + 1)
    energy.plot(counts, np.r_[0, cumulative], color="black", linewidth=1.2)
    for needed in sorted({int(np.searchsorted(cumulative, level)) for level in (0.5, 0.9, 0.99)}):
        point = (needed + 1, cumulative[needed])
        energy.plot(*point, "o", color="black", markersize=4)
        energy.annotate(
            f"{needed + 1}: {cumulative[needed]:.0%}",
            point,
            xytext=(5, -12),
            textcoords="offset points",
            fontsize=8,
        )
    energy.set(xlabel=f"{unit}s kept", ylabel="share of squared eigenvalues", ylim=(0, 1.05))
    energy.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in (bars, energy):
        axes.spines[["top", "right"]].set_visible(False)
    headline(figure, f"{title}: rank {len(numbers)}")
    return figure


def sweep(
    table: pd.DataFrame,
    metrics: tuple[str, ...] = ("return", "success"),
    *,
    rank: int | None = None,
    title: str = "Play against eigenvectors kept",
) -> Figure:
    """Draw metrics against the number of eigenvectors kept, with their intervals.

    Args:
        table: a row for each ``k``; each metric with its ``_low`` and ``_high``. A row whose k is
            "all" is what nothing is taken from: a line across.
        metrics: columns, a panel each.
        rank: rank of the form, named below: no larger k exists.
        title: what is swept.

    Raises:
        ValueError: a metric that is not in the table, or no row with a number.
    """
    needed = [f"{metric}{end}" for metric in metrics for end in ("", "_low", "_high")]
    if missing := [name for name in ("k", *needed) if name not in table]:
        raise ValueError(f"the table lacks {', '.join(missing)}; it has {', '.join(table)}")
    kept = table[table["k"] != "all"]
    if kept.empty:
        raise ValueError("expected at least one row with a number of eigenvectors")
    whole = table[table["k"] == "all"]
    figure = Figure(figsize=(4.4 * len(metrics), 3.3), layout="constrained")
    for axes, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        ks = kept["k"].astype(int).to_numpy()
        middle, low, high = (
            kept[f"{metric}{end}"].to_numpy(float) for end in ("", "_low", "_high")
        )
        bars = np.stack([middle - low, high - middle])
        axes.errorbar(ks, middle, bars, fmt="o-", color=POSITIVE, capsize=3)
        for _, row in whole.iterrows():
            axes.axhspan(row[f"{metric}_low"], row[f"{metric}_high"], color="#888888", alpha=0.25)
            axes.axhline(
                row[metric], color="#444444", linewidth=1, label="whole agent, 95 % interval"
            )
        if ks.min() > 0:
            axes.set_xscale("log", base=2)
        else:
            axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
            axes.set_xlim(-0.3, 1.3 * ks.max())
        axes.set_xticks(ks, ks, fontsize=8)
        axes.minorticks_off()
        axes.set(xlabel="eigenvectors kept" + ("" if rank is None else f" (rank {rank})"))
        axes.set_ylabel(metric)
        axes.spines[["top", "right"]].set_visible(False)
        if len(whole):
            axes.legend(fontsize=8, frameon=False, loc="lower right")
    headline(figure, title)
    return figure
