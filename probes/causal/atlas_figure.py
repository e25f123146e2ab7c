"""The picture of an atlas: concepts by layers, coloured by what was found."""

from __future__ import annotations

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from rlbilinear.probes.figures import COLOURS, STYLE

STATUS = {
    "used": (COLOURS[0], "white", "used"),
    "readable": (COLOURS[4], "black", "readable, not shown to be used"),
    "neither": ("#dddddd", "black", "neither"),
}
"""Of each status the colour of its field, of its text, and its name."""


@rc_context(STYLE)
def atlas_figure(cells: pd.DataFrame, agent: str) -> Figure:
    """Draw a field for each concept and layer of one agent.

    Args:
        cells: columns ``concept``, ``layer``, ``status``, ``score``, ``sufficient``.
        agent: its name.
    """
    concepts, layers = (list(dict.fromkeys(cells[name])) for name in ("concept", "layer"))
    order = cells.groupby("concept", sort=False)["layer"].apply(list)
    layers = max(order, key=len) + [each for each in layers if each not in max(order, key=len)]
    width = max(9.0, 1.6 + 0.75 * len(layers))
    figure = Figure(figsize=(width, 1.8 + 0.6 * len(concepts)), layout="constrained")
    axes = figure.subplots()
    for cell in cells.itertuples():
        x, y = layers.index(cell.layer), concepts.index(cell.concept)
        colour, ink, _ = STATUS[cell.status]
        axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour))
        text = f"{cell.score:.2f}\n{cell.sufficient:.2f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color=ink)
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_ylim(len(concepts) - 0.5, -0.5)
    axes.set_xticks(range(len(layers)), layers, rotation=30, ha="right")
    axes.set_yticks(range(len(concepts)), concepts)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(f"{agent}\nabove: score of the reading; below: share that follows an exchange")
    handles = [Patch(color=colour, label=name) for colour, _, name in STATUS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
