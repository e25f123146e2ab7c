"""Drawing over a maze: policies, values and filter maps, cell by cell.

All axes count cells as the simulator does: columns from the left, rows from the *bottom*.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlbilinear.envs import Maze, window
from rlbilinear.probes.figures import SIGNED, STYLE, UNSIGNED, WIDTH

Observation = UInt8[np.ndarray, "3 64 64"]
CellField = Float[np.ndarray, "rows columns 2"]
WALL, FLOOR = "#5c5650", "#f4f1ec"


def maze_axes(axes: Axes, maze: Maze, observation: Observation | None = None) -> None:
    """Draw a maze as background, cropped to its free cells and the walls around them.

    Args:
        axes: where to draw; cell (row, column) is then at x = column, y = row.
        maze: the maze.
        observation: drawn pale instead of plain walls, aligned to the cells.

    Raises:
        ValueError: an observation of another shape or type.
    """
    free = _free(maze)
    if observation is None:
        axes.set_facecolor(WALL)
        axes.imshow(free, cmap=ListedColormap([WALL, FLOOR]), vmin=0, vmax=1, origin="lower")
    else:
        axes.imshow(_pixels(observation), extent=_extent(maze), alpha=0.45)
    rows, columns = np.nonzero(free)
    axes.set_xlim(columns.min() - 1, columns.max() + 1)
    axes.set_ylim(rows.min() - 1, rows.max() + 1)
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set(xlabel="column", ylabel="row")


@rc_context(STYLE)
def vector_fields(
    maze: Maze,
    before: CellField,
    after: CellField,
    *,
    names: tuple[str, str] = ("original", "edited"),
    observation: Observation | None = None,
    title: str = "Where the policy sends the mouse from each cell",
) -> Figure:
    """Draw the policy in every cell before an edit, after it, and the difference.

    Args:
        maze: the maze; its mouse and cheese are marked.
        before: mean step (rows up, columns right) by the mouse's cell: P(up) - P(down) and
            P(right) - P(left); NaN in cells where the mouse cannot be.
        after: the same for the edited agent.
        names: of the two agents.
        observation: drawn as background.
        title: what is seen.

    Raises:
        ValueError: fields of another shape than (rows, columns, 2).
    """
    for field in (before, after):
        if field.shape != (*maze.grid.shape, 2):
            raise ValueError(f"expected a field {(*maze.grid.shape, 2)}, got {field.shape}")
    difference = after - before
    sizes = np.linalg.norm(difference, axis=2)
    norm = Normalize(0, max(float(np.nanmax(sizes)), 1e-6))
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, name, field in zip(
        panels, (*names, "difference"), (before, after, difference), strict=True
    ):
        maze_axes(axes, maze, observation)
        rows, columns = np.nonzero(np.isfinite(field).all(2))
        up, right = field[rows, columns].T
        changed = axes is panels[2]
        colour = (sizes[rows, columns],) if changed else ()
        axes.quiver(
            columns, rows, right, up, *colour, angles="xy", scale_units="xy", scale=1.1,
            pivot="middle", units="xy", width=0.13, headwidth=3.5, headlength=3.5,
            headaxislength=3.5, zorder=3, **({"cmap": "YlOrRd", "norm": norm} if changed else {}),
        )  # fmt: skip
        _mark(axes, maze)
        axes.set_title(name)
        if axes is not panels[0]:
            axes.set(ylabel="", yticklabels=[])
    bar = ScalarMappable(norm, "YlOrRd")
    label = "arrows: mean step, 1 cell at most; difference: its length"
    figure.colorbar(bar, ax=panels, label=label, location="bottom", shrink=0.6, aspect=40)
    _marker_legend(figure, panels[0])
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def cell_heatmap(
    maze: Maze,
    panels: Mapping[str, Float[np.ndarray, "rows columns"]],
    *,
    label: str,
    title: str,
    difference: bool = False,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """Draw a value of every cell, such as reach or retargeting success, for one or more agents.

    Args:
        maze: the maze; its mouse and cheese are marked.
        panels: by name, the value of each cell; NaN (walls, no value) is left blank. All share
            one colour scale.
        label: what the value is.
        title: what is seen.
        difference: of exactly two panels, draw second minus first too, zero white.
        limits: of the colour scale.

    Raises:
        ValueError: no panel, one of another shape than the maze, or a difference of other than two.
    """
    values = dict(panels)
    if not values or (difference and len(values) != 2):
        expected = "two panels for a difference" if difference else "at least one panel"
        raise ValueError(f"expected {expected}, got {list(values)}")
    for name, value in values.items():
        if value.shape != maze.grid.shape:
            raise ValueError(f"expected {name} of shape {maze.grid.shape}, got {value.shape}")
    count = len(values) + difference
    figure = Figure(
        figsize=(WIDTH if count > 1 else 6.0, 5 if count > 2 else 6.8), layout="constrained"
    )
    axes_row = figure.subplots(1, count, squeeze=False)[0]
    image: Any = None
    for axes, (name, value) in zip(axes_row, values.items(), strict=False):
        maze_axes(axes, maze)
        image = axes.imshow(value, origin="lower", vmin=limits[0], vmax=limits[1], cmap=UNSIGNED)
        axes.set_title(name)
    shown = list(axes_row[: len(values)])
    bar: dict[str, Any] = {"location": "bottom", "shrink": 0.8, "aspect": 30}
    figure.colorbar(image, ax=shown, label=label, **bar)
    if difference:
        first, second = values.values()
        change, axes = second - first, axes_row[-1]
        bound = max(float(np.nanmax(np.abs(change))), 1e-6)
        maze_axes(axes, maze)
        drawn = axes.imshow(change, origin="lower", vmin=-bound, vmax=bound, cmap=SIGNED)
        figure.colorbar(drawn, ax=axes, label="difference", **bar)
        axes.set_title("{1} - {0}".format(*values))
    for axes in axes_row:
        _mark(axes, maze)
        if axes is not axes_row[0]:
            axes.set(ylabel="", yticklabels=[])
    _marker_legend(figure, axes_row[0])
    figure.suptitle(title)
    return figure


@rc_context(STYLE)
def filter_maps(
    maze: Maze,
    observation: Observation,
    maps: Mapping[str, Float[np.ndarray, "height width"]],
    *,
    label: str = "contribution",
    title: str = "What each eigenfilter adds along the direction, over one observation",
) -> Figure:
    """Draw maps over the same observation: one panel each, beside the observation itself.

    Args:
        maze: what the observation shows; its walls are outlined over the maps.
        observation: as the agent sees it.
        maps: by name (such as the eigenvalue), a map of any resolution over the whole
            observation, row 0 at the *top*. All share one colour scale, zero is white.
        label: what the maps' values are.
        title: what is seen.

    Raises:
        ValueError: no map, or an observation of another shape or type.
    """
    if not maps:
        raise ValueError("expected at least one map")
    columns = min(len(maps) + 1, 4)
    rows = -(-(len(maps) + 1) // columns)
    figure = Figure(figsize=(WIDTH, 1.0 + 2.25 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    bound = max(1e-12, *(float(np.abs(values).max()) for values in maps.values()))
    for axes in panels[: len(maps) + 1]:
        maze_axes(axes, maze, observation)
    panels[0].images[0].set_alpha(1)
    panels[0].set_title("observation", fontsize=11)
    image: Any = None
    for axes, (name, values) in zip(panels[1:], maps.items(), strict=False):
        image = axes.imshow(
            values, extent=_extent(maze), vmin=-bound, vmax=bound, cmap=SIGNED, origin="upper"
        )
        axes.add_collection(LineCollection(_outline(_free(maze)), colors="#404040", linewidths=0.6))
        _mark(axes, maze, hollow=True)
        axes.set_title(name, fontsize=11)
    for axes in panels[: len(maps) + 1]:
        axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    for axes in panels[len(maps) + 1 :]:
        axes.remove()
    figure.colorbar(image, ax=panels[: len(maps) + 1], label=label, shrink=0.8, pad=0.01)
    _marker_legend(figure, panels[1])
    figure.suptitle(title)
    return figure


def _free(maze: Maze) -> Bool[np.ndarray, "rows columns"]:
    free = np.zeros(maze.grid.shape, bool)
    for cell in maze.free_cells():
        free[cell.row, cell.column] = True
    return free


def _pixels(observation: Observation) -> UInt8[np.ndarray, "64 64 3"]:
    if observation.shape != (3, 64, 64) or observation.dtype != np.uint8:
        raise ValueError(
            f"expected a uint8 observation (3, 64, 64), got {observation.dtype} of shape "
            f"{observation.shape}"
        )
    return observation.transpose(1, 2, 0)


def _extent(maze: Maze) -> tuple[float, float, float, float]:
    """Return where an observation lies: on the whole world, in memory mode around the mouse."""
    left, bottom, side, *_ = window(maze)
    return left - 0.5, left + side - 0.5, bottom - 0.5, bottom + side - 0.5


def _outline(free: Bool[np.ndarray, "rows columns"]) -> list[list[tuple[float, float]]]:
    """Return the edges between free cells and walls as segments of (x, y)."""
    upper, right = free[1:] != free[:-1], free[:, 1:] != free[:, :-1]
    flat = [[(c - 0.5, r + 0.5), (c + 0.5, r + 0.5)] for r, c in np.argwhere(upper)]
    steep = [[(c + 0.5, r - 0.5), (c + 0.5, r + 0.5)] for r, c in np.argwhere(right)]
    return flat + steep


def _mark(axes: Axes, maze: Maze, *, hollow: bool = False) -> None:
    """Mark mouse and cheese; hollow, so that a map stays visible under them."""
    size = 14 if hollow else 9
    style: dict[str, Any] = {
        "linestyle": "none",
        "markersize": size,
        "markeredgewidth": 1.4,
        "zorder": 4,
    }
    for name, marker, colour, cells in (
        ("mouse", "o", "#ffffff", (maze.mouse,)),
        ("cheese", "^", "#ffd320", maze.cheese),
    ):
        axes.plot(
            [cell.column for cell in cells], [cell.row for cell in cells], marker=marker,
            markerfacecolor="none" if hollow else colour, markeredgecolor="black", label=name,
            **style,
        )  # fmt: skip


def _marker_legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
