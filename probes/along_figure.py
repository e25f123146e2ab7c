"""Drawing what happens along training, over the runs of one or several architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlbilinear.probes.figures import COLOURS, CONTROL, STYLE, WIDTH
from rlbilinear.statistics.runs import t_interval

PANELS = (
    ("What can be read, and what is used", ("readable", "used", "random"), "share or score"),
    ("The direction's form: how many eigenvalues", ("rank",), "participation ratio"),
    ("The form's eigenfilters: how like the final ones", ("alike",), "squared cosine"),
    ("ReLU layers: variance explained", ("linear_r2", "quadratic_r2"), "R²"),
)
NAMES = {
    "readable": "readable: average precision",
    "used": "used: exchange followed",
    "random": "random directions exchanged",
    "rank": "eigenvalues",
    "alike": "leading eigenfilters",
    "linear_r2": "linear",
    "quadratic_r2": "quadratic",
}
LINES = ("-", "--", ":")


@rc_context(STYLE)
def along_figure(tables: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Draw the mean over runs with Student's interval, against frames.

    Args:
        tables: by architecture, of each run what `along_training` returns; the runs of one
            architecture were kept at the same frames.

    Raises:
        ValueError: no tables, or runs of one architecture at other frames.
    """
    if not tables or not all(tables.values()):
        raise ValueError("tables: expected at least one run of each architecture")
    for kind, runs in tables.items():
        if any([*run["frames"]] != [*runs[0]["frames"]] for run in runs):
            raise ValueError(f"{kind}: the runs were kept at other frames than each other")
    shown = [panel for panel in PANELS if any(panel[1][0] in runs[0] for runs in tables.values())]
    figure = Figure(figsize=(WIDTH, 2.6 * ((len(shown) + 1) // 2) + 0.6), layout="constrained")
    grid = figure.subplots((len(shown) + 1) // 2, 2, squeeze=False).ravel()
    for axes, (title, columns, label) in zip(grid, shown, strict=False):
        _panel(axes, tables, columns)
        axes.set(title=title, xlabel="frames", ylabel=label)
        axes.set_xscale("symlog", linthresh=_first(tables))
        axes.legend(fontsize=7)
    for axes in grid[len(shown) :]:
        axes.remove()
    return figure


def _panel(
    axes: Axes, tables: Mapping[str, Sequence[pd.DataFrame]], columns: Sequence[str]
) -> None:
    for colour, (kind, runs) in zip(COLOURS, tables.items(), strict=False):
        for line, column in zip(LINES, columns, strict=False):
            if column not in runs[0]:
                continue
            values = np.stack([run[column] for run in runs], 1)
            intervals = [t_interval(each) for each in values]
            shade = CONTROL if column == "random" else colour
            frames = runs[0]["frames"]
            axes.plot(
                frames,
                [each.estimate for each in intervals],
                line,
                color=shade,
                marker="o",
                markersize=2.5,
                label=f"{kind}, {NAMES[column]}",
            )
            low, high = ([getattr(i, end) for i in intervals] for end in ("low", "high"))
            axes.fill_between(frames, low, high, color=shade, alpha=0.15, linewidth=0)


def _first(tables: Mapping[str, Sequence[pd.DataFrame]]) -> float:
    """Return the first number of frames after 0: the scale is linear up to it."""
    frames = np.concatenate([run["frames"] for runs in tables.values() for run in runs])
    return float(min(frames[frames > 0], default=1))
