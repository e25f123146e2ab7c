"""Where in the picture a position of a layer's maps lies."""

from dataclasses import dataclass

from torch import nn

from rlbilinear import BilinearConv2d
from rlbilinear.agents import Agent
from rlbilinear.agents.architectures import BilinearBlock, GatedBlock, ProductBlock, ReluBlock
from rlbilinear.edits.functional import PositionBias
from rlbilinear.receptive import Window, window


@dataclass(frozen=True)
class Grid:
    """Maps over a picture: position p is centred at ``start + step * p`` pixels.

    Pixels are counted from the top and left edge of the picture, to their centres: ``0.5`` is the
    first one's.
    """

    start: tuple[float, float] = (0.5, 0.5)
    step: tuple[float, float] = (1.0, 1.0)

    def through(self, window: Window) -> "Grid":
        """Return the grid of what windows over these maps give, each at its window's centre."""
        kernel, stride, padding, dilation = window
        first = [d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
        start = tuple(s + f * d for s, f, d in zip(self.start, first, self.step, strict=True))
        step = tuple(d * s for d, s in zip(self.step, stride, strict=True))
        return Grid((start[0], start[1]), (step[0], step[1]))

    def box(
        self, position: tuple[int, int], kernel: tuple[int, int] = (1, 1)
    ) -> tuple[float, float, float, float]:
        """Return top, left, bottom, right of a window of positions around one, in pixels."""
        centre = [s + d * p for s, d, p in zip(self.start, self.step, position, strict=True)]
        half = [d * k / 2 for d, k in zip(self.step, kernel, strict=True)]
        return centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]


def grid_before(agent: Agent, layer: str) -> Grid:
    """Return where the positions of the maps that a layer of the body reads lie in the picture.

    A position is where its window's centre is; what it depends on is more, layer by layer.

    Raises:
        ValueError: no such layer, or it does not read maps.
    """
    steps = [name for name in agent.layer_names if "." not in name]
    if layer not in steps:
        raise ValueError(f"{layer} is not a step of the body; choose from {', '.join(steps)}")
    grid = Grid()
    for name in steps[: steps.index(layer)]:
        grid = _through(grid, agent.layer(name))
    return grid


def _through(grid: Grid, module: nn.Module) -> Grid:
    if isinstance(module, PositionBias):
        return _through(grid, module.layer)
    if isinstance(module, nn.Sequential):
        for part in module:
            grid = _through(grid, part)
        return grid
    if isinstance(module, BilinearConv2d | nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return grid.through(window(module))
    blocks = BilinearBlock | GatedBlock | ProductBlock | ReluBlock
    if isinstance(module, blocks | nn.ReLU | nn.Identity):
        return grid  # residual blocks keep positions
    raise ValueError(f"a {type(module).__name__} gives no maps")
