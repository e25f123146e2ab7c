"""Figures of language models: curves of training and conversion, correlations against rank."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter


def draw_training(curves: pd.DataFrame) -> Figure:
    """Draw held-out losses against steps, a line for each run, a colour for each kind of MLP."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, (mlp, runs) in enumerate(curves.groupby("mlp", sort=False)):
        for place, (_, run) in enumerate(runs.groupby("seed")):
            scored = run.dropna(subset=["held_out_loss"])
            axes.plot(
                scored["step"],
                scored["held_out_loss"],
                color=f"C{number}",
                label=mlp if place == 0 else None,
            )
    axes.set(xlabel="step", ylabel="held-out loss, nats a token", yscale="log")
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(ScalarFormatter())  # 3.5 instead of 3.5 x 10^0
    axes.legend()
    return figure


def draw_replaced(together: pd.DataFrame) -> Figure:
    """Draw perplexity against the number of layers replaced, a line for each method."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    original = together.loc[together["layers"] == 0, "perplexity"]
    for method, rows in together[together["layers"] > 0].groupby("method", sort=False):
        rows = rows.sort_values("layers")
        axes.plot(rows["layers"], rows["perplexity"], marker="o", label=method)
    if len(original):
        axes.axhline(original.iloc[0], color="grey", linestyle=":", label="original")
    axes.set(xlabel="layers replaced", ylabel="perplexity", yscale="log")
    axes.legend()
    return figure


def draw_correlations(table: pd.DataFrame) -> Figure:
    """Draw the correlation of features with their low-rank forms, against the eigenvectors kept."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    by_rank = table.dropna(subset="correlation_active").groupby("rank")["correlation_active"]
    groups = {rank: values.to_numpy() for rank, values in by_rank}
    labels = [str(rank) if rank else "none,\nlinear part" for rank in groups]
    axes.boxplot(list(groups.values()), tick_labels=labels, showfliers=False)
    axes.set(
        xlabel="eigenvectors",
        ylabel="correlation where the feature is active",
        title=f"{table['feature'].nunique()} output features",
    )
    return figure


def draw_truncation(table: pd.DataFrame) -> Figure:
    """Draw the loss against the singular components, or eigenvectors of each, that are kept."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for kept, label in (
        ("components", "singular components"),
        ("eigenvectors", "eigenvectors of each component"),
    ):
        rows = table[table["kept"] == kept]
        axes.plot(rows["count"], rows["loss"], marker="o", label=label)
    for kept, style, label in (("all", ":", "whole layer"), ("none", "--", "no quadratic part")):
        loss = table.loc[table["kept"] == kept, "loss"].iloc[0]
        axes.axhline(loss, color="grey", linestyle=style, label=label)
    axes.set(xlabel="kept", ylabel="held-out loss, nats a token", xscale="log")
    counts = sorted(table.loc[table["kept"].isin(("components", "eigenvectors")), "count"].unique())
    axes.set_xticks(counts, [str(count) for count in counts], minor=False)
    axes.set_xticks([], minor=True)
    axes.legend()
    return figure
