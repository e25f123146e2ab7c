"""Drawing the report's tables: one function a table, each row a number with its interval.

Every function takes a table whose columns its docstring names, and returns a figure that needs no
screen. Rows are drawn in the order of the table. Sizes suit TensorBoard, at 900 pixels wide.
"""

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 9.0
"""Width of a figure in inches, of 100 pixels each."""

STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
UNSIGNED = "viridis"
"""Colours of probabilities and shares."""
SIGNED = "RdBu_r"
"""Colours of signed values: zero is white, positive red."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
CONTROL = "#808080"
"""Controls are grey in every figure."""


@rc_context(STYLE)
def interchange_grid(
    table: pd.DataFrame,
    *,
    value: str = "share",
    label: str = "share of the policy's change that follows",
    title: str = "Where the concept is causal: swapping a subspace between paired mazes",
) -> Figure:
    """Draw a value by layer and rank, one panel a subspace, with the numbers written in.

    Args:
        table: columns ``layer``, ``subspace`` (probe, difference, random, ...), ``rank`` (missing
            where there is no subspace) and the value, 0 (nothing follows) to 1 (all of it); smaller
            values show the colour of 0, rows without a value are left out.
        value: the column to draw, such as ``share`` or ``follow``.
        label: what the value means.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(table, "layer", "subspace", "rank", value)
    layers = list(dict.fromkeys(table["layer"]))
    table = table[table[value].notna()].fillna({"rank": 0})
    panels = {name: rows for name, rows in table.groupby("subspace", sort=False)}
    ranks = {name: sorted(rows["rank"].unique()) for name, rows in panels.items()}
    widths = [max(len(r), 2) for r in ranks.values()]
    figure = Figure(figsize=(WIDTH, 1.8 + 0.42 * len(layers)), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    image = None
    for axes, (name, rows) in zip(grid, panels.items(), strict=True):
        values = rows.pivot_table(value, "layer", "rank", sort=False)
        values = values.reindex(index=layers, columns=ranks[name]).to_numpy(float)
        image = axes.imshow(values, vmin=0, vmax=1, cmap=UNSIGNED, aspect="auto")
        for (row, column), number in np.ndenumerate(values):
            if np.isfinite(number):
                colour = "black" if number > 0.6 else "white"
                text = f"{number:.2f}".replace("-0.00", "0.00")
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
        axes.set_xticks(
            range(len(ranks[name])), [f"{rank:g}" if rank else "-" for rank in ranks[name]]
        )
        axes.set_yticks(range(len(layers)), layers if axes is grid[0] else [])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(title=name, xlabel="rank")
    grid[0].set_ylabel("layer")
    assert image is not None
    figure.colorbar(image, ax=grid, label=label, extend="min", pad=0.01)
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def dose_response(
    table: pd.DataFrame, *, title: str = "Effect of the edit against its factor"
) -> Figure:
    """Draw each metric against the factor by which the edited weights are scaled.

    Args:
        table: columns ``intervention``, ``kind`` (``control`` is drawn grey and dashed),
            ``factor`` (1 keeps the weights, 0 ablates), ``metric``, ``value``, ``low``, ``high``.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(table, "intervention", "kind", "factor", "metric", "value", "low", "high")
    metrics = list(dict.fromkeys(table["metric"]))
    columns = min(len(metrics), 2)
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(WIDTH, 1.2 + 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = _colours(table, "intervention")
    for axes, metric in zip(panels, metrics, strict=False):
        axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
        part = table[table["metric"] == metric]
        for (name, kind), line in part.groupby(["intervention", "kind"], sort=False):
            line = line.sort_values("factor")
            colour, dashes = colours[name], "--" if kind == "control" else "-"
            axes.plot(
                line["factor"], line["value"], dashes, color=colour, marker="o", ms=4, label=name
            )
            axes.fill_between(line["factor"], line["low"], line["high"], color=colour, alpha=0.2)
        axes.set(xlabel="factor (1: as trained, 0: ablated)", title=metric)
        axes.grid(axis="y", alpha=0.3)
    for axes in panels[len(metrics) :]:
        axes.remove()
    legend_below(figure, panels[: len(metrics)])
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def forest(
    table: pd.DataFrame,
    *,
    effect: str = "effect",
    title: str = "Effects of the interventions and of their controls",
) -> Figure:
    """Draw effects with their intervals, each intervention above its control.

    Args:
        table: columns ``intervention``, ``kind`` (``control`` is drawn grey, below the
            intervention of the same name; other kinds each have a colour), ``effect``, ``low``,
            ``high`` (where the two are equal, no interval is written).
        effect: what the effect measures, with its unit.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(table, "intervention", "kind", "effect", "low", "high")
    names = list(dict.fromkeys(table["intervention"]))
    figure = Figure(figsize=(WIDTH, 1.7 + 0.55 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    colours = _colours(table, "kind")
    for kind, rows in sorted(table.groupby("kind", sort=False), key=lambda g: g[0] == "control"):
        y = np.array([names.index(name) for name in rows["intervention"]])
        y = y + (0.2 if kind == "control" else -0.15)
        marker, face = ("s", "white") if kind == "control" else ("o", colours[kind])
        axes.hlines(y, rows["low"], rows["high"], color=colours[kind])
        axes.plot(rows["effect"], y, marker, color=colours[kind], markerfacecolor=face, label=kind)
        for at, row in zip(y, rows.itertuples(), strict=True):
            text = f"{row.effect:+.3f}"
            if row.low < row.high:
                text += f" [{row.low:+.3f}, {row.high:+.3f}]"
            axes.text(
                1.01, at, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9,
                color=colours[kind],
            )  # fmt: skip
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 32) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"{effect}, 95% interval over levels")
    axes.grid(axis="x", alpha=0.3)
    legend_below(figure, [axes])
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def probe_scores(
    table: pd.DataFrame,
    *,
    base_rate: float,
    score: str = "average precision",
    title: str = "How well the concept can be read, layer by layer, on held-out levels",
) -> Figure:
    """Draw the probe's score by layer, beside its controls and the base rate.

    Args:
        table: columns ``features`` (what the probe reads, such as ``trained network``, ``untrained
            network``, ``permuted labels``), ``layer``, ``value``, ``low``, ``high``. A row without
            a layer (such as ``raw pixels``) is drawn across all of them.
        base_rate: the score of a probe that knows nothing.
        score: its name.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(table, "features", "layer", "value", "low", "high")
    layers = list(dict.fromkeys(table["layer"].dropna()))
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    colours = _colours(table, "features")
    for name, rows in table.groupby("features", sort=False):
        across = rows["layer"].isna()
        for row in rows[across].itertuples():
            axes.axhline(row.value, color=colours[name], linewidth=1.5, label=name)
            axes.axhspan(row.low, row.high, color=colours[name], alpha=0.15, linewidth=0)
        points = rows[~across]
        if len(points):
            x = [layers.index(layer) for layer in points["layer"]]
            axes.vlines(x, points["low"], points["high"], color=colours[name])
            axes.plot(x, points["value"], "o-", color=colours[name], label=name)
    axes.axhline(base_rate, color="black", linestyle=":", label=f"base rate {base_rate:.3f}")
    rotation = 30 if len(layers) > 7 else 0
    axes.set_xticks(
        range(len(layers)), layers, rotation=rotation, ha="right" if rotation else "center"
    )
    axes.set(xlabel="layer", ylabel=f"{score}\n(95% interval over levels)", ylim=(0, 1.03))
    axes.grid(axis="y", alpha=0.3)
    legend_below(figure, [axes])
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def precision_recall(
    table: pd.DataFrame,
    *,
    base_rate: float,
    title: str = "Precision and recall of the probe on held-out levels",
) -> Figure:
    """Draw precision against recall.

    Args:
        table: columns ``features`` (one curve each), ``recall``, ``precision``.
        base_rate: share of positives, the precision of a probe that knows nothing.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(table, "features", "recall", "precision")
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    axes = figure.subplots()
    colours = _colours(table, "features")
    for name, rows in table.groupby("features", sort=False):
        rows = rows.sort_values(["recall", "precision"], ascending=[True, False])
        axes.step(rows["recall"], rows["precision"], where="post", color=colours[name], label=name)
    axes.axhline(base_rate, color="black", linestyle=":", label=f"base rate {base_rate:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.03))
    axes.grid(alpha=0.3)
    legend_below(figure, [axes])
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def writer_shares(
    table: pd.DataFrame, *, title: str = "What writes the direction: shares of the layer's output"
) -> Figure:
    """Draw which parts of the network write a direction, one group of bars a writer.

    Args:
        table: columns ``writer`` (skip path, linear layer, a bilinear layer, an eigenfilter),
            ``quantity`` (what is shared out: variance, counterfactual difference), ``share``.
            Shares of a covariance may be negative.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(table, "writer", "quantity", "share")
    writers = list(dict.fromkeys(table["writer"]))
    quantities = list(dict.fromkeys(table["quantity"]))
    height = 0.8 / len(quantities)
    figure = Figure(figsize=(WIDTH, 1.6 + 0.5 * len(writers)), layout="constrained")
    axes = figure.subplots()
    for index, quantity in enumerate(quantities):
        rows = table[table["quantity"] == quantity]
        y = np.array([writers.index(name) for name in rows["writer"]])
        y = y + (index - (len(quantities) - 1) / 2) * height
        bars = axes.barh(y, rows["share"], height, color=COLOURS[index % len(COLOURS)])
        bars.set_label(quantity)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(writers)), [textwrap.fill(name, 32) for name in writers])
    axes.set_ylim(len(writers) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.set_xlabel("share")
    axes.grid(axis="x", alpha=0.3)
    legend_below(figure, [axes])
    figure.suptitle(title)
    return figure


def check_table(table: pd.DataFrame, *columns: str) -> None:
    """Raise a ValueError that names the columns, unless a table has them and rows."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(
            f"the table lacks {', '.join(missing)}; it has {', '.join(map(str, table))}, "
            f"expected {', '.join(columns)}"
        )
    if table.empty:
        raise ValueError(f"the table of {', '.join(columns)} has no rows")


def _colours(table: pd.DataFrame, column: str) -> dict[str, str]:
    """Give each entry of a column its colour: controls are grey, by their name or kind."""
    kinds = table["kind"] if "kind" in table else table[column]
    controls = set(table.loc[kinds == "control", column])
    others = [name for name in dict.fromkeys(table[column]) if name not in controls]
    coloured = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(others)}
    return coloured | dict.fromkeys(controls, CONTROL)


def legend_below(figure: Figure, panels: Iterable[Axes]) -> None:
    """Put one legend below all panels, each entry once."""
    entries: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    longest = max(map(len, entries))
    columns = max(1, int(9.5 * figure.get_figwidth() / (longest + 6)))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)
