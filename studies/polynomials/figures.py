"""Drawings of classifiers and their approximants. Bands are 95 % t-intervals over networks."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rlbilinear.studies.images.data import Images
from rlbilinear.studies.images.drawing import either_sign, finish, picture
from rlbilinear.studies.images.study import with_intervals
from rlbilinear.studies.polynomials.study import NAMES, Approximated

COLOURS = ("black", "tab:blue", "tab:orange", "tab:green", "tab:red")
"""of the network, and of approximants by degree from 1 on"""
PREDICTORS = {"network": COLOURS[0], "linear": COLOURS[1], "quadratic": COLOURS[2]}


def through_training(table: pd.DataFrame) -> Figure:
    """Draw what approximants leave unexplained, KL, and accuracy, against steps of training."""
    figure = Figure(figsize=(13, 4.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for degree, group in table.groupby("degree"):
        colour, name = COLOURS[int(degree)], NAMES[int(degree)]
        for column, style in (("measured_r2", "-"), ("gaussian_r2", ":")):
            rest = group.assign(rest=1 - group[column])
            label = name if style == "-" else None
            band(left, with_intervals(rest, ["step"], "rest"), "step", colour, label, style)
        band(middle, with_intervals(group, ["step"], "kl"), "step", colour, name)
        if degree <= 2:
            band(right, with_intervals(group, ["step"], "accuracy"), "step", colour, name)
    own = table[table.degree == 1]
    for column, style, label in (
        ("network_accuracy", "-", "network"),
        ("network_train_accuracy", ":", "network, training images"),
    ):
        bands = with_intervals(own, ["step"], column)
        band(right, bands, "step", COLOURS[0], label, style)
    left.set(yscale="log", ylabel="1 - R², mean over classes")
    left.set_title("Unexplained share of the logits\n(dotted: closed form under the Gaussian)")
    middle.set(yscale="log", ylabel="nats", title="KL of the approximant from the network")
    right.set(ylabel="accuracy on test images", title="Accuracy")
    for axes in (left, middle, right):
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(0, None)
        axes.set_xlabel("steps of training (0: untrained)")
        axes.legend(fontsize=8)
    figure.suptitle(f"Through training: {table.seed.nunique()} networks", fontsize=11)
    return finish(figure)


def r2(table: pd.DataFrame) -> Figure:
    """Draw R² in closed form against R² measured, for each class and network."""
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for degree, group in table.groupby("degree"):
        axes.scatter(
            1 - group.gaussian_r2,
            1 - group.measured_r2,
            s=9,
            alpha=0.6,
            color=COLOURS[int(degree)],
            label=NAMES[int(degree)],
        )
    numbers = 1 - table[["gaussian_r2", "measured_r2"]].to_numpy()
    ends = [numbers.min(), numbers.max()]
    axes.plot(ends, ends, color="grey", lw=0.8, ls="--")
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="1 - R² in closed form, under the Gaussian", ylabel="1 - R² on test images")
    axes.set_title("A point for each class of each trained network", fontsize=10)
    axes.legend(fontsize=8)
    return finish(figure)


def eigenvectors(images: Images, each: Approximated, shown: int = 3) -> Figure:
    """Draw what the quadratic approximant reads for each class: linear part and eigenvectors."""
    quadratic = each.polynomial.truncate(2)
    linear = quadratic.coefficients(1)
    figure = Figure(figsize=(1.05 * (2 * shown + 1) + 1, 1.08 * len(linear) + 0.6))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(linear), 2 * shown + 1, squeeze=False)
    for c, row in enumerate(grid):
        picture(row[0], linear[c], images)
        row[0].set_ylabel(f"class {c}", fontsize=9)
        form = quadratic.quadratic_form(torch.eye(len(linear))[c])
        either_sign(row[1:], *form.eigh(), images)
    grid[0][0].set_title("linear", fontsize=7)
    figure.suptitle(
        "The best quadratic of a trained network, class by class: its slope at the mean image,\n"
        f"{shown} most positive and {shown} most negative eigenvectors",
        fontsize=10,
    )
    return figure


def layers(table: pd.DataFrame) -> Figure:
    """Draw KL and accuracy for every subset of layers replaced, by degree."""
    subsets = [name for name in table.layers.unique() if name]
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = {name: i for i, name in enumerate(subsets)}
    for axes, value in ((left, "kl"), (right, "accuracy")):
        found = with_intervals(
            table[table.replaced > 0], ["layers", "degree", "reestimated"], value
        )
        for (degree, again), group in found.groupby(["degree", "reestimated"]):
            shift = 0.12 * (degree - 1.5) * 2 + (0.05 if again else -0.05)
            x = np.array([places[name] for name in group.layers]) + shift
            how = "re-estimated" if again else "of the original"
            _bars(
                axes,
                x,
                group,
                COLOURS[int(degree)],
                f"{NAMES[int(degree)]}, statistics {how}",
                filled=bool(again),
            )
        axes.set_xticks(range(len(subsets)), [name.replace("layer", "") for name in subsets])
        axes.set_xlabel("layers replaced")
    own = table[table.replaced == 0].accuracy.mean()
    right.axhline(own, color="black", lw=0.8, ls=":", label="nothing replaced")
    left.set(yscale="log", ylabel="KL from the network (nats)")
    right.set(ylabel="test accuracy")
    for axes in (left, right):
        axes.legend(fontsize=7)
    figure.suptitle(f"Every subset of layers replaced, {table.seed.nunique()} networks")
    return finish(figure)


def removals(table: pd.DataFrame) -> Figure:
    """Draw accuracy as directions are taken out of the inputs, and under noise of equal norm."""
    figure = Figure(figsize=(13, 4.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    of = table[table.directions == "linear approximant"]
    for name, colour in PREDICTORS.items():
        own = of[of.predictor == name]
        band(left, with_intervals(own, ["k"], "accuracy"), "k", colour, f"{name}, removed")
        band(left, with_intervals(own, ["k"], "noise"), "k", colour, f"{name}, noise", ":")
    left.set_title("Singular directions of the linear approximant", fontsize=10)
    kinds = zip(table.directions.unique(), ("tab:blue", "grey", "tab:purple"), strict=True)
    for kind, colour in kinds:
        own = table[(table.directions == kind) & (table.predictor == "network")]
        band(middle, with_intervals(own, ["k"], "accuracy"), "k", colour, kind)
        means = own.groupby("k")[["norm", "accuracy"]].mean()
        right.plot(means.norm, means.accuracy, ".-", lw=1.2, color=colour, label=kind)
    noise = table[table.predictor == "network"].groupby(["directions", "k"])[["norm", "noise"]]
    points = noise.mean().sort_values("norm")
    right.plot(points.norm, points.noise, ":", color="black", label="Gaussian noise")
    middle.set_title("The network, by kind of directions removed", fontsize=10)
    right.set_title("The same by what is removed of an image's norm", fontsize=10)
    for axes in (left, middle):
        axes.set(xlabel="directions removed", ylabel="test accuracy", ylim=(0, 1.02))
    right.set(xlabel="norm removed / norm of the image", ylabel="test accuracy", ylim=(0, 1.02))
    for axes in (left, middle, right):
        axes.legend(fontsize=7)
    return finish(figure)


def masks(images: Images, found: Mapping[str, Sequence[Tensor]], table: pd.DataFrame) -> Figure:
    """Draw the masks, and accuracy under them beside noise of equal norm."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=[1, 1.5]))
    columns = max(map(len, found.values()))
    grid = upper.subplots(len(found), columns, squeeze=False)
    for row, (kind, pictures) in zip(grid, found.items(), strict=True):
        for axes, mask in zip(row, pictures, strict=False):
            picture(axes, mask, images)
        for axes in row[len(pictures) :]:
            axes.set_axis_off()
        row[0].set_ylabel(kind.replace(" part", "\npart"), fontsize=8)
    upper.suptitle("Masks read off the best quadratic's eigenvectors", fontsize=11)
    drawn = lower.subplots(1, 3)
    for axes, kind in zip(drawn[:2], found, strict=True):
        own = table[table.masks == kind]
        for name, colour in PREDICTORS.items():
            each = own[own.predictor == name]
            band(axes, with_intervals(each, ["size"], "masked"), "size", colour, f"{name}, mask")
            bands = with_intervals(each, ["size"], "noise")
            band(axes, bands, "size", colour, f"{name}, noise", ":")
        axes.set(xlabel="norm added / mean norm of an image", ylabel="test accuracy")
        axes.set_title(f"Masks of the {kind}" if "quad" in kind else f"Masks {kind}", fontsize=10)
    for kind, style in zip(found, ("-", "--"), strict=True):
        own = table[table.masks == kind]
        for name, colour in PREDICTORS.items():
            bands = with_intervals(own[own.predictor == name], ["size"], "towards")
            band(drawn[2], bands, "size", colour, f"{name}, {kind}", style)
    drawn[2].set(xlabel="norm added / mean norm of an image")
    drawn[2].set_ylabel("other classes' images taken\nfor the mask's class")
    for axes in drawn:
        axes.set_ylim(0, 1.02)
        axes.legend(fontsize=6.5)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def band(
    axes: Axes, group: pd.DataFrame, x: str, colour: str, label: str | None, style: str = "-"
) -> None:
    """Draw a line of means and the interval around it."""
    axes.plot(group[x], group["mean"], style, lw=1.2, color=colour, label=label)
    axes.fill_between(group[x], group["low"], group["high"], color=colour, alpha=0.15, lw=0)


def _bars(
    axes: Axes,
    x: np.ndarray,
    group: pd.DataFrame,
    colour: str,
    label: str,
    *,
    filled: bool,
) -> None:
    errors = (group["mean"] - group["low"], group["high"] - group["mean"])
    axes.errorbar(
        x,
        group["mean"],
        np.array(errors).clip(0, group["mean"] * 0.999),
        fmt="o",
        ms=4,
        lw=1,
        color=colour,
        mfc=colour if filled else "white",
        label=label,
    )
