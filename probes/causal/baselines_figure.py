"""Drawing the table of published methods beside ours."""

from __future__ import annotations

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlbilinear.probes.figures import COLOURS, CONTROL, STYLE, WIDTH, check_table

OURS = "(ours)"
TITLES = {
    "moves": "moved: share of pairs that follow",
    "removes": "removed: probability lost",
}


@rc_context(STYLE)
def baselines_figure(found: pd.DataFrame) -> Figure:
    """Draw reach and specificity of each method: a row of panels for each agent and concept.

    Args:
        found: tables of `baselines` below each other, with columns ``agent`` and ``concept``.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    check_table(found, "agent", "concept", "method", "family", "reach", "specificity")
    about = [*found.groupby(["agent", "concept"], sort=False)]
    figure = Figure(figsize=(WIDTH * 1.4, 3.4 * len(about)), layout="constrained")
    panels = figure.subplots(len(about), 2, squeeze=False)
    for row, ((agent, concept), own) in zip(panels, about, strict=True):
        for axes, (family, title) in zip(row, TITLES.items(), strict=True):
            _panel(axes, own[own["family"] == family].dropna(subset="reach"))
            axes.set_title(f"{agent}, {concept} {title}", fontsize=10)
    panels[0, 0].legend(fontsize=8, loc="lower right")
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw a line for each method: reach with its interval, and specificity."""
    at = range(len(rows))[::-1]
    colours = [COLOURS[0] if name.endswith(OURS) else CONTROL for name in rows["method"]]
    axes.hlines(at, rows["low"], rows["high"], colors=colours, lw=2)
    axes.scatter(rows["reach"], at, c=colours, s=45, zorder=3, label="reach")
    axes.scatter(
        rows["specificity"], at, facecolors="none", edgecolors=COLOURS[1], s=45, label="specificity"
    )
    axes.set_yticks(at, rows["method"], fontsize=9)
    axes.set_xlim(-0.05, 1.05)
    axes.grid(axis="x", alpha=0.3)
