"""Looking at activations: a layer's channels over a maze, and the field when a patch is added."""

import base64
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from rlbilinear.envs import Maze, observe, window
from rlbilinear.envs.fields import mean_steps, mouse_cells, on_grid
from rlbilinear.envs.observation import placements
from rlbilinear.probes.interventions import Add, Intervention, logits_under
from rlbilinear.probes.moves import move_distribution
from rlbilinear.probes.named import AgentLike, as_agent

TEMPLATE = Path(__file__).parent / "looking.html"


@dataclass(frozen=True)
class ChannelPatch:
    """A number that is added to one channel of a layer at one place of its map.

    Attributes:
        layer: one that gives maps.
        channel: its number.
        place: row and column on the map, row 0 at the top.
        strength: what is added.
    """

    layer: str
    channel: int
    place: tuple[int, int]
    strength: float


def channel_maps(
    agent: AgentLike, maze: Maze, layer: str
) -> Float[np.ndarray, "channels height width"]:
    """Return what a layer's channels are over a maze, row 0 at the top.

    Raises:
        ValueError: unknown layer, or one that gives no maps; the message lists those that do.
    """
    agent = as_agent(agent)
    output = agent.activations(observe([maze]), [layer])[layer][0]
    if output.ndim != 3:
        raise ValueError(f"{layer} gives no maps; choose from {', '.join(map_layers(agent, maze))}")
    return output.cpu().numpy()


def map_layers(agent: AgentLike, maze: Maze) -> list[str]:
    """Return the steps of an agent's forward pass that give maps."""
    agent = as_agent(agent)
    steps = [name for name in agent.layer_names if "." not in name]
    outputs = agent.activations(observe([maze]), steps)
    return [name for name, output in outputs.items() if output.ndim == 4]


def patched_field(
    agent: AgentLike, maze: Maze, patch: ChannelPatch
) -> Float[np.ndarray, "rows columns 2"]:
    """Return the vector field of a maze when a patch is added with the mouse in each cell.

    As `rlbilinear.envs.fields.vector_field`; a strength of 0 gives the agent's own.

    Raises:
        ValueError: a layer without maps, or a channel or place that it has not.
    """
    agent = as_agent(agent)
    shape = channel_maps(agent, maze, patch.layer).shape
    index = (patch.channel, *patch.place)
    if len(index) != 3 or not all(0 <= at < size for at, size in zip(index, shape, strict=True)):
        raise ValueError(
            f"{patch.layer} has {shape[0]} channels of {shape[1]} x {shape[2]}; "
            f"got channel {patch.channel} at {patch.place}"
        )
    added = torch.zeros(shape)
    added[index] = patch.strength
    cells = mouse_cells(maze)
    seen = observe(placements(maze, cells))
    logits = logits_under(agent, seen, [Intervention(patch.layer, Add(added))])
    return on_grid(maze, cells, mean_steps(move_distribution(logits)))


def write_page(
    path: str | Path,
    agent: AgentLike,
    maze: Maze,
    layer: str,
    channels: Sequence[int],
    *,
    places: Iterable[tuple[int, int]] | None = None,
    strengths: Sequence[float] | None = None,
    title: str = "Activations over a maze",
) -> Path:
    """Write one HTML file that shows a layer's channels over a maze, and fields under patches.

    All channels' maps can be looked at. For the chosen channels a patch can be dragged over the
    places and its strength chosen: the fields are computed now, so the page needs nothing else.

    Args:
        path: the file, which must not exist.
        agent: whose layer.
        maze: the state; its field is asked with the mouse in every cell.
        layer: one that gives maps.
        channels: those that patches are added to.
        places: on the map; every third row and column when None.
        strengths: what is added; -4, -2, 2 and 4 times the largest |activation| when None. The
            field without a patch is always there.
        title: of the page.

    Raises:
        FileExistsError: the file exists.
        ValueError: a layer without maps, a channel or place that it has not, or no place or
            strength.
    """
    path, agent = Path(path), as_agent(agent)
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    maps = channel_maps(agent, maze, layer)
    count, height, width = maps.shape
    if not channels or not all(0 <= channel < count for channel in channels):
        raise ValueError(f"expected channels from 0 to {count - 1} of {layer}, got {[*channels]}")
    if places is None:
        places = [(y, x) for y in range(1, height, 3) for x in range(1, width, 3)]
    places = [(int(y), int(x)) for y, x in places]
    if strengths is None:
        largest = float(np.abs(maps[list(channels)]).max()) or 1.0
        strengths = [float(f"{factor * largest:.3g}") for factor in (-4, -2, 2, 4)]
    if not places or not strengths:
        raise ValueError("expected a place and a strength of the patch at least")
    fields = {
        f"{channel},{y},{x},{strength:g}": _rounded(
            patched_field(agent, maze, ChannelPatch(layer, channel, (y, x), strength))
        )
        for channel in channels
        for y, x in places
        for strength in strengths
    }
    own = patched_field(agent, maze, ChannelPatch(layer, 0, (0, 0), 0.0))
    left, bottom, side, *_ = window(maze)
    (observation,) = observe([maze])
    data: dict[str, Any] = {
        "layer": layer,
        "maps": np.round(maps.astype(float), 4).tolist(),
        "channels": list(channels),
        "places": places,
        "strengths": [f"{strength:g}" for strength in strengths],
        "own": _rounded(own),
        "fields": fields,
        "pictures": {
            "map": _as_url(pale(observation)),
            "field": _as_url(observation.transpose(1, 2, 0)),
        },
        "window": [left, bottom, side],
    }
    text = json.dumps(data).replace("<", "\\u003c")
    template = Template(TEMPLATE.read_text("utf-8"))
    path.write_text(template.substitute(title=escape(title), data=text), "utf-8")
    return path


def _rounded(field: Float[np.ndarray, "rows columns 2"]) -> list[list[float]]:
    """Return row, column, up and right of each cell that has a policy."""
    rows, columns = np.nonzero(np.isfinite(field).all(2))
    return [
        [int(r), int(c), *np.round(field[r, c], 3).tolist()]
        for r, c in zip(rows, columns, strict=True)
    ]


def pale(observation: UInt8[np.ndarray, "3 height width"]) -> UInt8[np.ndarray, "height width"]:
    """Return a picture in pale grey, on which colours can be laid."""
    return (255 - 0.6 * (255 - observation.mean(0))).astype(np.uint8)


def _as_url(picture: UInt8[np.ndarray, "height width *colours"]) -> str:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG")
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()
