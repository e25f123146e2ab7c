"""Activations over a maze, live in a notebook.

    from rlbilinear.probes.notebook import ActivationViewer
    ActivationViewer(agents.load("maze-bimpala-compact"), Maze.from_seed(3))

Needs ipywidgets, which the extra `notebook` installs.
"""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rlbilinear.envs import Maze, observe, window
from rlbilinear.probes.figures import COLOURS, SIGNED
from rlbilinear.probes.looking import ChannelPatch, channel_maps, map_layers, pale, patched_field
from rlbilinear.probes.maps import maze_axes
from rlbilinear.probes.named import AgentLike, as_agent

try:
    import ipywidgets
except ImportError as error:
    raise ImportError(
        f"the activation viewer needs ipywidgets ({error}): pip install 'rlbilinear[notebook]'"
    ) from error

OWN = COLOURS[1]
"""Of the agent's own arrows beside those under a patch."""


class ActivationViewer(ipywidgets.VBox):
    """Choose a layer and a channel; drag a patch's place and strength; the field is drawn anew.

    Left the channel over the maze, the patch's place marked; right where the policy sends the mouse
    from each cell, red without the patch, black with it.

    Args:
        agent: whose activations.
        maze: the state.

    Attributes:
        maze: the state.
        layer: the choice of a layer that gives maps.
        channel: slider.
        row: slider of the patch's row, 0 at the top.
        column: slider of its column.
        strength: slider: times the layer's largest |activation|; 0 adds nothing.
        image: what is drawn.
    """

    def __init__(self, agent: AgentLike, maze: Maze) -> None:
        self._agent, self.maze = as_agent(agent), maze
        layers = map_layers(self._agent, maze)
        if not layers:
            raise ValueError("this agent has no layer that gives maps")
        self.layer = ipywidgets.Dropdown(options=layers, description="layer")
        self.channel, self.row, self.column = (
            ipywidgets.IntSlider(description=name, max=0) for name in ("channel", "row", "column")
        )
        self.strength = ipywidgets.FloatSlider(
            description="strength", min=-10, max=10, step=0.5, value=0
        )
        self.image = ipywidgets.Image(format="png", width=900)
        self._own = patched_field(self._agent, maze, ChannelPatch(layers[0], 0, (0, 0), 0.0))
        self._choose()
        self.layer.observe(lambda _: self._choose(), "value")
        for slider in (self.channel, self.row, self.column, self.strength):
            slider.observe(lambda _: self._show(), "value")
        controls = [self.layer, self.channel, self.row, self.column, self.strength]
        super().__init__([ipywidgets.HBox(controls[:2]), ipywidgets.HBox(controls[2:]), self.image])

    @property
    def patch(self) -> ChannelPatch:
        """The patch that is added now."""
        strength = self.strength.value * float(np.abs(self._maps).max())
        place = (self.row.value, self.column.value)
        return ChannelPatch(self.layer.value, self.channel.value, place, strength)

    def _choose(self) -> None:
        self._maps = channel_maps(self._agent, self.maze, self.layer.value)
        self._choosing = True
        sliders = (self.channel, self.row, self.column)
        for slider, size in zip(sliders, self._maps.shape, strict=True):
            slider.max = size - 1
        self._choosing = False
        self._show()

    def _show(self) -> None:
        if self._choosing:  # sliders that a new layer moves would each draw
            return
        patch = self.patch
        observation = observe([self.maze])[0]
        figure = Figure(figsize=(11, 5.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        values = self._maps[patch.channel]
        bound = max(float(np.abs(values).max()), 1e-12)
        left.imshow(pale(observation), extent=(0, 1, 1, 0), cmap="gray", vmin=0, vmax=255)
        image = left.imshow(
            values, extent=(0, 1, 1, 0), cmap=SIGNED, vmin=-bound, vmax=bound, alpha=0.6
        )
        left.set(xticks=[], yticks=[], title=f"channel {patch.channel} of {patch.layer}")
        figure.colorbar(image, ax=left, location="bottom", shrink=0.8, label="activation")
        maze_axes(right, self.maze, observation)
        west, bottom, side, *_ = window(self.maze)  # all of the picture, as on the left
        right.set(
            xlim=(west - 0.5, west + side - 0.5), ylim=(bottom - 0.5, bottom + side - 0.5),
            xticks=[], yticks=[], ylabel="", xlabel="arrow: mean step; short where undecided",
        )  # fmt: skip
        title = "where the policy sends the mouse"
        (height, width), (row, column) = values.shape, patch.place
        place = (column / width, row / height), 1 / width, 1 / height
        line = "solid" if patch.strength else "dotted"
        left.add_patch(Rectangle(*place, fill=False, ec="black", lw=2, ls=line))
        _arrows(right, self._own, OWN if patch.strength else "black")
        if patch.strength:
            _arrows(right, patched_field(self._agent, self.maze, patch), "black")
            title = f"red: as it is; black: {patch.strength:+.3g} added in the black square"
        right.set_title(title)
        encoded = io.BytesIO()
        figure.savefig(encoded, format="png", dpi=80)
        self.image.value = encoded.getvalue()


def _arrows(axes: Axes, field: np.ndarray, colour: str) -> None:
    rows, columns = np.nonzero(np.isfinite(field).all(2))
    up, right = field[rows, columns].T
    axes.quiver(
        columns, rows, right, up, color=colour, angles="xy", scale_units="xy", scale=1.1,
        pivot="middle", units="xy", width=0.1, zorder=3,
    )  # fmt: skip
