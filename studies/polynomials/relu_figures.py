"""Drawings of a ReLU agent's polynomial surrogates beside a bilinear agent."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

COLOURS = {"relu": "tab:blue", "bilinear": "tab:orange"}


def name_of(row: Any) -> str:
    """Return what is replaced in a row, and how, in words."""
    if row.replaced == "nothing":
        return "nothing replaced"
    return f"{row.replaced}: degree {row.degree}, {row.way}"


def units(table: pd.DataFrame) -> Figure:
    """Draw the median R² of each unit, closed form and measured."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    counts = table.groupby("agent", sort=False).layer.nunique()
    drawn = figure.subplots(1, len(counts), width_ratios=counts.tolist(), sharey=True)
    for axes, (kind, own) in zip(
        np.atleast_1d(drawn), table.groupby("agent", sort=False), strict=True
    ):
        names = own.layer.unique()
        places = {name: index for index, name in enumerate(names)}
        closed, refitted = own[own.way == "closed form"], own[own.way == "fitted on inputs"]
        drawings = [
            (what, of[of.degree == degree], colour)
            for what, of, degree, colour in (
                ("linear", closed, 1, "tab:blue"),
                ("quadratic", closed, 2, "tab:orange"),
                ("quadratic fitted on inputs", refitted, 2, "tab:green"),
            )
        ]
        for index, (what, of, colour) in enumerate(drawings):
            if not len(of):
                continue
            x = of.layer.map(places) + (index - 1) * 0.2
            axes.plot(x, of.measured_median, "o", ms=5, color=colour, label=f"{what}, measured")
            if index < 2:
                axes.plot(
                    x, of.gaussian_median, "o", ms=5, mfc="white", color=colour,
                    label=f"{what}, closed form",
                )  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axes.set_title(f"{kind} agent", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    first = np.atleast_1d(drawn)[0]
    first.set(ylabel="R², median over outputs", ylim=(min(0, first.get_ylim()[0]), 1.02))
    first.legend(fontsize=8, loc="lower left")
    return figure


def play(table: pd.DataFrame) -> Figure:
    """Draw how many levels are solved with each unit replaced, and with sets of them."""
    kinds = list(table.agent.unique())
    rows = max((table.agent == kind).sum() for kind in kinds)
    figure = Figure(figsize=(12, 1.2 + 0.24 * rows), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        own = table[table.agent == kind].reset_index(drop=True)
        names = [name_of(row) for row in own.itertuples()]
        errors = np.array([own.solved - own.solved_low, own.solved_high - own.solved])
        y = np.arange(len(own))
        axes.errorbar(
            own.solved, y, xerr=errors.clip(0), fmt="o", ms=5, color=COLOURS[kind], clip_on=False
        )
        axes.axvline(own.solved[0], color="black", lw=0.8, ls=":")
        axes.set_yticks(y, names, fontsize=8)
        axes.set(xlim=(0, 1), ylim=(rows - 0.5, -0.5), xlabel="levels solved, 95 % interval")
        axes.set_title(f"{kind} agent", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def eigenfilters(table: pd.DataFrame) -> Figure:
    """Draw, of both agents, what eigenfilters of the probe's direction find and how few matter."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for index, (kind, own) in enumerate(table.groupby("agent", sort=False)):
        blocks = own.groupby("writer", sort=False)
        first = blocks.first()
        x = np.arange(len(first)) + (index - 0.5) * 0.2
        colour = COLOURS[str(kind)]
        left.plot(x, first.quadratic_r2, "o", color=colour, label=str(kind))
        middle.plot(x, first["filters for 90 %"], "o", color=colour, label=f"{kind}: carry 90 %")
        middle.plot(x, first["rank"], "_", ms=10, color=colour, label=f"{kind}: all there are")
        right.plot(x, blocks.average_precision.max(), "o", color=colour, label=str(kind))
        for axes in (left, middle, right):
            axes.set_xticks(range(len(first)), first.index, fontsize=8)
    right.axhline(table.base_rate.mean(), color="black", lw=0.8, ls=":", label="base rate")
    left.axhline(0, color="grey", lw=0.6)
    left.set(
        ylabel="R² of what the quadratic writes, measured", ylim=(max(-1, left.get_ylim()[0]), 1.02)
    )
    middle.set(ylabel="eigenfilters", ylim=(0, 1.4 * table["rank"].max()))
    right.set(ylabel="average precision, best of 8 filters' maps", ylim=(0, 1.02))
    for axes, place in ((left, "lower left"), (middle, "upper right"), (right, "upper right")):
        axes.legend(fontsize=7, loc=place)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("The cheese probe's direction, block by block", fontsize=11)
    return figure


def ablations(table: pd.DataFrame) -> Figure:
    """Draw what ablating a direction's eigenfilters does to the policy, beside the controls."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    kinds = list(table.agent.unique())
    for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True), kinds, strict=True):
        own = table[table.agent == kind]
        blocks = own.block.unique()
        for index, (label, group) in enumerate(own.groupby("filters", sort=False)):
            x = np.arange(len(blocks)) + (index - 1) * 0.22
            colour = ("tab:green", "tab:blue", "tab:red")[index]
            axes.plot(x, group.kl, "o", color=colour, label=str(label))
            spread = np.array([0 * group.control, group.control_max - group.control])
            axes.errorbar(
                x + 0.08, group.control, spread, fmt="_", color=colour, alpha=0.6,
                label=f"{label}: random directions, mean and largest",
            )  # fmt: skip
        axes.set_xticks(range(len(blocks)), blocks, fontsize=8)
        axes.set(title=f"{kind} agent", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("KL of the ablated policy (nats)")
    figure.axes[-1].legend(fontsize=7, loc="lower left")
    figure.suptitle("Eigenfilters of the cheese probe's direction ablated, block by block")
    return figure
