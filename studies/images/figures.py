"""Drawings of the image study. Bands are 95 % t-intervals over networks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rlbilinear.cp import CPDecomposition
from rlbilinear.hosvd import HigherOrderSVD
from rlbilinear.sparsity import cumulative_energy
from rlbilinear.studies.images.data import Images
from rlbilinear.studies.images.drawing import SIGNED, either_sign, finish, picture
from rlbilinear.studies.images.study import Trained, with_intervals
from rlbilinear.studies.images.toys import GATES, known_matrices


def spectra(trained: Trained) -> Figure:
    """Draw every class's eigenvalues, and how fast their energy adds up; ranks are marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for c, values in enumerate(trained.values):
        ordered = values.sort(descending=True).values.numpy()
        left.plot(np.arange(1, len(ordered) + 1), ordered, ".-", lw=0.8, ms=3, label=str(c))
        energy = cumulative_energy(values).numpy()
        right.plot(np.arange(1, len(energy) + 1), energy, lw=0.9)
    ranks = sorted({len(values) for values in trained.values})
    right.axvline(ranks[-1], color="black", lw=0.8, ls=":")
    named = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    right.annotate(f"numerical rank {named} ", (ranks[-1], 0.55), ha="right", fontsize=8)
    right.axhline(0.9, color="grey", lw=0.6, ls="--")
    left.axhline(0, color="black", lw=0.6)
    left.set(xlabel="eigenvector, by value", ylabel="eigenvalue", title="Spectrum of each class")
    right.set(
        xlabel="eigenvectors kept, by |value|",
        ylabel="share of squared eigenvalues",
        ylim=(0, 1.02),
        title="Cumulative energy (dashed: 90 %)",
    )
    left.legend(title="class", fontsize=7, ncol=2)
    return finish(figure)


def eigenvectors(images: Images, trained: Trained, each: int = 3) -> Figure:
    """Draw every class's first positive and negative eigenvectors as images."""
    classes = len(trained.forms)
    figure = Figure(figsize=(1.05 * 2 * each + 1, 1.08 * classes + 0.6), layout="constrained")
    grid = figure.subplots(classes, 2 * each, squeeze=False)
    for c, row in enumerate(grid):
        either_sign(row, trained.values[c], trained.vectors[c], images)
        row[0].set_ylabel(f"class {c}", fontsize=9)
    figure.suptitle(
        f"Eigenvectors of each class: {each} most positive (left), {each} most negative (right)",
        fontsize=10,
    )
    return figure


def truncation(table: pd.DataFrame, full: pd.DataFrame) -> Figure:
    """Draw accuracy against eigenvectors kept in every class, up to the numerical rank."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for kept, group in with_intervals(table, ["kept", "k"], "accuracy").groupby("kept", sort=False):
        _band(axes, group, "k", f"{kept} {'|eigenvalue|' if kept == 'largest' else 'order'}")
    axes.axhline(full.test.mean(), color="black", lw=0.8, ls=":", label="whole network")
    axes.set(
        xscale="log",
        xlabel="eigenvectors kept in every class (ends at the numerical rank)",
        ylabel="test accuracy",
        title=f"Truncation against accuracy, {table.seed.nunique()} networks",
    )
    axes.legend(fontsize=8)
    return finish(figure)


def decompositions(table: pd.DataFrame, full: pd.DataFrame) -> Figure:
    """Draw accuracy and energy of each decomposition as it grows."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, value in zip(figure.subplots(1, 2), ("accuracy", "energy"), strict=True):
        means = with_intervals(table, ["decomposition", "size"], value)
        for name, group in means.groupby("decomposition", sort=False):
            _band(axes, group, "size", str(name))
        axes.set(xscale="log", xlabel="size (components, vectors, directions, terms)")
        axes.set(ylabel="test accuracy" if value == "accuracy" else "share of squared norm")
    mean = full.test.mean()
    figure.axes[0].axhline(mean, color="black", lw=0.8, ls=":", label="whole network")
    figure.axes[0].legend(fontsize=8)
    networks = table.seed.nunique()
    figure.suptitle(f"Tensors of {networks} networks by four decompositions", fontsize=11)
    return finish(figure)


def similarity(table: pd.DataFrame) -> Figure:
    """Draw how alike eigenvectors are across seeds, by rank, and class forms across widths."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for what, group in table.groupby("what", sort=False):
        means = group.groupby("rank").eigenvectors.agg(["mean", "std"])
        left.plot(means.index + 1, means["mean"], ".-", label=what)
        low, high = means["mean"] - means["std"], means["mean"] + means["std"]
        left.fill_between(means.index + 1, low, high, alpha=0.15)
    left.set(xlabel="eigenvector, by |value|", ylabel="|cosine| with the most similar", ylim=(0, 1))
    left.set_title("Eigenvectors of two networks (band: ± one sd over pairs)", fontsize=10)
    left.legend(fontsize=8)
    across = table[table.what.str.startswith("trained") & (table["rank"] == 0)]
    widths = sorted({*across.width, *across.other_width})
    matrix = np.full((len(widths), len(widths)), np.nan)
    for (a, b), value in across.groupby(["width", "other_width"]).forms.mean().items():
        i, j = widths.index(a), widths.index(b)
        matrix[i, j] = matrix[j, i] = value
    shown = right.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    for i, j in np.argwhere(np.isfinite(matrix)):
        right.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", color="white")
    right.set(xticks=range(len(widths)), yticks=range(len(widths)), xlabel="width", ylabel="width")
    right.set_xticklabels(widths)
    right.set_yticklabels(widths)
    right.set_title("Cosine of class forms, different seeds", fontsize=10)
    figure.colorbar(shown, ax=right, fraction=0.05)
    return finish(figure, [left])


def overfitting(images: Images, trained: Sequence[Trained], table: pd.DataFrame) -> Figure:
    """Draw first eigenvectors and spectra of networks trained with more and more input noise."""
    classes = list(range(0, len(trained[0].forms), 2))
    figure = Figure(
        figsize=(2.6 + 1.15 * len(classes) + 2.6, 1.3 * len(trained) + 0.9), layout="constrained"
    )
    ratios = [1.0] * len(classes) + [2.2]
    grid = figure.subplots(
        len(trained), len(classes) + 1, squeeze=False, gridspec_kw={"width_ratios": ratios}
    )
    for t, row in zip(trained, grid, strict=True):
        of = table[table.noise == t.recipe.noise]
        for axes, c in zip(row, classes, strict=False):
            picture(axes, t.vectors[c][t.values[c] > 0][0], images)
            if t is trained[0]:
                axes.set_title(f"class {c}", fontsize=8)
        row[0].set_ylabel(
            f"noise {t.recipe.noise:g}\ntrain {of.train.mean():.3f}\ntest {of.test.mean():.3f}\n"
            f"dark {of.energy_where_dark.mean():.1%}",
            rotation=0,
            ha="right",
            va="center",
            fontsize=8,
        )
        for values in t.values:
            ordered = values.abs().sort(descending=True).values
            row[-1].plot((ordered / ordered[0]).numpy(), lw=0.7, color="black", alpha=0.5)
        row[-1].set(yscale="log", ylim=(1e-4, 1.3))
        row[-1].tick_params(labelsize=6)
        row[-1].spines[["top", "right"]].set_visible(False)
    grid[0][-1].set_title("|eigenvalues| / largest", fontsize=8)
    figure.suptitle(
        "First positive eigenvectors with and without input noise\n"
        "(dark: the energy of first eigenvectors where under 5 % of the training images are lit)",
        fontsize=10,
    )
    return figure


def adversarial(images: Images, masks: Sequence[Tensor], table: pd.DataFrame) -> Figure:
    """Draw the masks, and accuracy under them beside noise of equal norm."""
    noises = sorted(table.trained_noise.unique())
    figure = Figure(figsize=(3.8 * len(noises) + 3.8, 5.4), layout="constrained")
    (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 2.6])
    for c, (axes, mask) in enumerate(zip(upper.subplots(1, len(masks)), masks, strict=True)):
        picture(axes, mask, images)
        axes.set_title(f"class {c}", fontsize=8)
    *curves, last = lower.subplots(1, len(noises) + 1)
    for axes, noise in zip(curves, noises, strict=True):
        of = table[table.trained_noise == noise]
        for where, value, label in (
            ("whole", "masked", "mask"),
            ("dark", "masked", "mask in the dark only"),
            ("whole", "noise", "Gaussian noise"),
        ):
            part = of[of["where"] == where]
            if len(part):
                _band(axes, with_intervals(part, ["size"], value), "size", label)
        axes.set(xlabel="norm added / mean norm of an image", ylabel="test accuracy")
        axes.set(ylim=(0, 1.02), title=f"trained with input noise {noise:g}")
        axes.legend(fontsize=7)
    for c, group in table[table["where"] == "whole"].groupby("class"):
        mean = group.groupby("size").towards.mean()
        last.plot(mean.index, mean.values, lw=1, label=str(c))
    last.set(xlabel="norm of the mask / mean norm of an image", ylim=(0, 1.02))
    last.set(title="other classes taken for the mask's", ylabel="share, all networks")
    last.legend(title="class", fontsize=6, ncol=2)
    upper.suptitle("Masks read off the weights of the first network", fontsize=11)
    return finish(figure, [*curves, last])


def completeness(table: pd.DataFrame) -> Figure:
    """Draw the share of a class's form in its own and in other classes' eigenvectors."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, group in with_intervals(table, ["eigenvectors", "k"], "share").groupby(
        "eigenvectors", sort=False
    ):
        _band(axes, group, "k", "in its own" if name == "own" else "in another class's")
    axes.axhline(0.9, color="grey", lw=0.6, ls="--")
    axes.set(xlabel="eigenvectors", ylabel="share of a class's squared form", ylim=(0, 1.02))
    axes.set_title("Completeness: what a few eigenvectors hold of a class", fontsize=10)
    axes.legend(fontsize=8)
    return finish(figure)


def components(images: Images, svd: HigherOrderSVD, shown: int = 4, each: int = 3) -> Figure:
    """Draw singular components: what they write, and their first eigenvectors of either sign."""
    shown = min(shown, len(svd.outputs))
    figure = Figure(figsize=(2.6 + 1.1 * 2 * each, 1.3 * shown + 0.6), layout="constrained")
    grid = figure.subplots(
        shown, 1 + 2 * each, squeeze=False, gridspec_kw={"width_ratios": [2.2, *[1] * 2 * each]}
    )
    for s, (bars, *places) in enumerate(grid):
        outputs = svd.outputs[s].numpy()
        colours = np.where(outputs > 0, "#b2182b", "#2166ac").tolist()
        bars.bar(np.arange(len(outputs)), outputs, color=colours)
        bars.set_title(f"component {s}: {svd.share[s]:.0%}", fontsize=8, loc="left")
        bars.set(xticks=range(len(outputs)))
        bars.tick_params(labelsize=6)
        bars.spines[["top", "right"]].set_visible(False)
        either_sign(places, *svd.component(s).eigh(), images)
    figure.suptitle("HOSVD: which classes a component moves, and its eigenvectors", fontsize=10)
    return figure


def products(images: Images, cp: CPDecomposition, shown: int = 10) -> Figure:
    """Draw CP terms as the two patterns whose squares they are the difference of."""
    shown = min(shown, len(cp.importance))
    plus, minus = cp.squares()
    figure = Figure(figsize=(1.15 * shown + 0.8, 3.6), layout="constrained")
    grid = figure.subplots(3, shown, squeeze=False, gridspec_kw={"height_ratios": [1, 1, 0.8]})
    for r in range(shown):
        picture(grid[0][r], plus[r], images)
        picture(grid[1][r], minus[r], images)
        outputs = cp.outputs[r].numpy()
        colours = np.where(outputs > 0, "#b2182b", "#2166ac").tolist()
        grid[2][r].bar(np.arange(len(outputs)), outputs, color=colours)
        grid[2][r].set(yticks=[], ylim=(-1, 1), xticks=range(len(outputs)))
        grid[2][r].tick_params(labelsize=5)
        grid[0][r].set_title(f"{cp.importance[r]:.2f}", fontsize=8)
    for row, label in zip(grid, ("(a+b)/2", "(a-b)/2", "classes"), strict=True):
        row[0].set_ylabel(label, fontsize=8)
    figure.suptitle(
        f"CP terms a·b, by importance: {len(cp.importance)} of them, cosine {cp.cosine:.3f}",
        fontsize=10,
    )
    return figure


def depth(table: pd.DataFrame, accuracy: float) -> Figure:
    """Draw what deep HOSVD and eigenvector chains explain of a deep network, as more is kept."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, group in table.groupby("by", sort=False):
        left.plot(group.kept, group.r2.clip(lower=-1), ".-", label=name)
        right.plot(group.kept, group.accuracy, ".-", label=name)
    left.axhline(0, color="black", lw=0.6)
    left.set(xscale="log", ylabel="R² of the logits (cut at -1)", ylim=(-1.05, 1.05))
    right.axhline(accuracy, color="black", lw=0.8, ls=":", label="whole network")
    right.set(xscale="log", ylabel="test accuracy", ylim=(0, 1.02))
    for axes in (left, right):
        axes.set_xlabel("components, or eigenvectors, kept of each layer")
        axes.legend(fontsize=8)
    figure.suptitle("A network of two bilinear layers, from its weights", fontsize=11)
    return finish(figure)


def gates(matrices: dict[float, Tensor]) -> Figure:
    """Draw learned interaction matrices of boolean gates beside the known ones."""
    rows = {"known": known_matrices()} | {f"decay {d:g}": m for d, m in matrices.items()}
    figure = Figure(figsize=(1.9 * len(GATES) + 1.6, 1.75 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), len(GATES), squeeze=False)
    for (name, found), row in zip(rows.items(), grid, strict=True):
        for axes, gate, matrix in zip(row, GATES, found, strict=True):
            axes.imshow(matrix.numpy(), cmap=SIGNED, vmin=-1, vmax=1)
            axes.set(xticks=[], yticks=[])
            low, high = torch.linalg.eigvalsh(matrix)[[0, -1]].tolist()
            axes.set_xlabel(f"λ {low:+.2f} … {high:+.2f}", fontsize=7)
            if name == "known":
                axes.set_title(gate.upper(), fontsize=9)
        row[0].set_ylabel(name, fontsize=9)
    return figure


def _band(axes: Axes, group: pd.DataFrame, x: str, label: str) -> None:
    (line,) = axes.plot(group[x], group["mean"], ".-", lw=1.2, ms=4, label=label)
    axes.fill_between(group[x], group["low"], group["high"], color=line.get_color(), alpha=0.2)
