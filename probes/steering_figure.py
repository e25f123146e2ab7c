"""Drawing how often an agent obeys a planted cheese: a panel for each way of planting."""

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from rlbilinear.probes.figures import COLOURS, CONTROL, STYLE, WIDTH, check_table, legend_below

PANELS = {
    "planted": ("Planted in mazes\nwithout a cheese", "no cheese"),
    "moved": ("The own cheese\nmoved", "own cheese"),
    "beside": ("Planted beside\nthe own cheese", "own cheese"),
}
"""How the cheese is planted: a title, and the same states unedited."""
REAL = "real cheese"


@rc_context(STYLE)
def steering_panels(
    table: pd.DataFrame,
    *,
    controls: tuple[str, ...] = (),
    gain: float = 1.0,
    title: str = "Sent to a planted cheese: share of states with the right move",
) -> Figure:
    """Draw each direction of each way of planting, the best first; real and unedited as lines.

    Args:
        table: columns ``condition`` (as `planting.steering_table` has them), ``gain``, ``right``,
            ``low``, ``high``.
        controls: directions that are drawn grey.
        gain: whose rows are drawn.
        title: what is seen.

    Raises:
        ValueError: a column is missing, or no row is of this gain.
    """
    check_table(table, "condition", "gain", "right", "low", "high")
    at_gain = table[table["gain"] == gain].set_index("condition")
    at_gain = at_gain[at_gain.index.str.contains(": ")]
    lines = table.drop_duplicates("condition").set_index("condition")["right"]
    rows = at_gain.assign(
        way=[name.partition(": ")[0] for name in at_gain.index],
        direction=[name.partition(": ")[2] for name in at_gain.index],
    )
    rows = rows[rows["way"].isin([*PANELS])]
    if rows.empty:
        raise ValueError(f"the table of planted conditions has no rows of gain {gain:g}")
    order = rows.groupby("direction")["right"].max().sort_values(na_position="first").index
    figure = Figure(figsize=(WIDTH * 1.1, 2.2 + 0.36 * len(order)), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (way, (name, unedited)) in zip(panels, PANELS.items(), strict=True):
        own = rows[rows["way"] == way].set_index("direction")
        at = np.array([order.get_loc(each) for each in own.index])
        colours = [CONTROL if each in controls else COLOURS[0] for each in own.index]
        axes.hlines(at, own["low"], own["high"], colors=colours, lw=2)
        axes.scatter(own["right"], at, c=colours, s=40, zorder=3)
        axes.axvline(lines[REAL], color=COLOURS[2], lw=1.5, label="a real cheese there")
        axes.axvline(lines[unedited], color="black", ls=":", lw=1.5, label="unedited")
        axes.set_title(name, fontsize=11)
        axes.set_xlim(-0.03, 1.03)
        axes.set_yticks(range(len(order)), order)
        axes.grid(axis="x", alpha=0.3)
    figure.supxlabel("share of states, 95% interval over levels; controls are grey", fontsize=11)
    legend_below(figure, panels)
    figure.suptitle(title)
    return figure
