"""Where a maze agent can be sent: one agent, and a bias map for every cell.

maps = fit_maps(load("maze-bimpala-compact"), "pool1")
save_maps("destinations.safetensors", maps, "pool1")
steer(agent, "pool1", maps[Cell(3, 7)])   # an agent that walks there, in any maze

What a cheese on a cell adds to a layer's output is measured on fitting levels, and averaged: the
map knows the cell, and neither the maze nor the mouse. One agent and its maps are kept rather than
an agent for each cell, which would repeat all weights 225 times for the bias that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlbilinear.agents import Agent
from rlbilinear.agents.folder import new_file
from rlbilinear.envs import FITTING, Cell, Maze, expert_moves, observe
from rlbilinear.probes.concepts import cheese_presence, overlap
from rlbilinear.probes.interventions import logits_after
from rlbilinear.probes.moves import log_move_distribution
from rlbilinear.probes.retargeting import cheese_maps
from rlbilinear.probes.sending import Edit, Errand, Logits, Sender, by_cheese, by_edit, errands
from rlbilinear.probes.subspaces import component, difference_subspace

Maps = Mapping[Cell, Float[Tensor, "channels height width"]]
"""What a cheese on each cell adds to a layer's output."""

LAYER, FIT_LEVELS, PER_CELL = "pool1", 1500, 64
"""Of the zoo's maze agents, the layer at which maps send them furthest; levels that maps are fitted
to, and over how many of them each cell's map is the mean."""
FEW = 4
"""Directions of a map of low rank, and of its controls."""
CHANNELS = 11
"""Channels that are patched together, as in the published work."""
TUNED = 200
"""Fitting levels on which gains are chosen, by the first move."""
MAP_GAINS = (0.75, 1.0, 1.25, 1.5)
PATCH_GAINS = (1.0, 2.0, 4.0, 8.0, 16.0)


def fit_maps(
    agent: Agent,
    layer: str = LAYER,
    *,
    levels: int = FIT_LEVELS,
    per_cell: int = PER_CELL,
    seed: int = 0,
) -> dict[Cell, Float[Tensor, "channels height width"]]:
    """Fit a map for each cell on the first fitting levels, the mouse anywhere.

    Raises:
        ValueError: unknown layer, or one that is not a map.
    """
    mazes = anywhere(FITTING.first(levels), seed)
    found = cheese_maps(agent, layer, mazes, per_cell=per_cell, seed=seed)
    if next(iter(found.values())).ndim != 3:
        raise ValueError(f"{layer} has no feature maps: a cell has no place there")
    return {cell: each.cpu() for cell, each in found.items()}


def save_maps(path: str | Path, maps: Maps, layer: str) -> None:
    """Write maps to a file, which `load_maps` reads.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {f"{cell.row},{cell.column}": each.contiguous() for cell, each in maps.items()}
    with new_file(Path(path)) as file:
        save_file(tensors, file, {"format": "rlbilinear-maps", "layer": layer})


def load_maps(path: str | Path) -> tuple[dict[Cell, Float[Tensor, "channels height width"]], str]:
    """Read maps, and the layer that they are of.

    Raises:
        ValueError: a file of something else.
        OSError: no such file.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "rlbilinear-maps":
                raise ValueError(f"{path} has no maps of cells; save_maps writes them")
            names = sorted((tuple(map(int, name.split(","))), name) for name in file.keys())  # noqa: SIM118
            return {Cell(*cell): file.get_tensor(name) for cell, name in names}, metadata["layer"]
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def along_map(maps: Maps, gain: float = 1.0) -> Edit:
    """Return the edit that plants a cheese on the target and erases those of the maze, by maps.

    A cell without a map gets none.
    """
    zero = torch.zeros_like(next(iter(maps.values())))

    def edit(outputs: Tensor, wanted: Sequence[Errand]) -> Tensor:
        biases = [
            maps.get(errand.target, zero) - sum(maps.get(own, zero) for own in errand.maze.cheese)
            for errand in wanted
        ]
        return outputs + gain * torch.stack(biases).to(outputs)

    return edit


def in_channels(
    maps: Maps,
    channels: Sequence[int],
    mean: Float[Tensor, "channels height width"],
    gain: float = 1.0,
) -> Edit:
    """Return the edit of the published maze work: some channels say the target, and nothing else.

    Their output is their mean without a cheese, and at the target what a cheese adds, times the
    gain; whatever they computed of the maze is overwritten (Turner et al. 2023).
    """
    zero, chosen = torch.zeros_like(mean), [*channels]

    def edit(outputs: Tensor, wanted: Sequence[Errand]) -> Tensor:
        said = torch.stack([mean + gain * maps.get(errand.target, zero) for errand in wanted])
        edited = outputs.clone()
        edited[:, chosen] = said[:, chosen].to(outputs)
        return edited

    return edit


def by_own_difference(agent: Agent, layer: str, basis: Float[Tensor, "k channels"]) -> Sender:
    """Send an agent by what a real cheese would add in each single state, in a subspace.

    It knows the maze and the mouse: the most that maps in the subspace could do.
    """

    def sender(states: Sequence[Maze], wanted: Sequence[Errand]) -> Logits:
        outputs = agent.activations(observe(states), [layer])[layer]

        def logits(at: np.ndarray, on: np.ndarray) -> Float[Tensor, "n actions"]:
            shown = [
                states[state].with_cheese(wanted[index].target)
                for state, index in zip(at, on, strict=True)
            ]
            own = outputs[torch.from_numpy(at)]
            real = agent.activations(observe(shown), [layer])[layer]
            return logits_after(agent, layer, own + component(real - own, basis))

        return logits

    return sender


def first_moves(sender: Sender, mazes: Sequence[Maze], *, seed: int = 0) -> float:
    """Return how often the most likely move is the expert's, to a cell drawn in each maze."""
    rng = np.random.default_rng(seed)
    choices = [errands(maze) for maze in mazes]
    wanted = [each[rng.integers(len(each))] for each in choices]
    states = [errand.maze for errand in wanted]
    order = np.arange(len(wanted))
    moves = log_move_distribution(sender(states, wanted)(order, order))
    expert = [expert_moves(each.maze, each.target)[each.maze.mouse] for each in wanted]
    return float((moves.argmax(1) == expert).mean())


@dataclass(frozen=True, eq=False)
class Way:
    """A way to send an agent.

    Attributes:
        sender: does it.
        cheese: whether it can be told apart from the maze's own cheese; a real cheese replaces it.
        gain: chosen on the fitting levels, where there is one.
    """

    sender: Sender
    cheese: bool = True
    gain: float | None = None


def ways_to_send(
    agent: Agent, layer: str, maps: Maps, *, tuned: int = TUNED, seed: int = 0
) -> dict[str, Way]:
    """Return the ways that are compared: by maps, by a real cheese, not at all, and controls.

    Gains are chosen on fitting levels. Controls change the layer's output as much as the maps:
    their channels are turned by a random rotation, or the amounts along the leading difference
    directions are written along the directions in which the layer varies most.

    Args:
        agent: whom to send.
        layer: to whose output the maps are added.
        maps: of its cells, from `fit_maps`.
        tuned: fitting levels on which the gains are chosen, by the first move.
        seed: seed of all that is drawn.

    Returns:
        By name.
    """
    tuning = [maze.with_cheese() for maze in anywhere(FITTING.first(tuned), seed + 1)]
    outputs = agent.activations(observe(tuning), [layer])[layer].cpu()
    mean = outputs.mean(0)
    difference = difference_subspace(torch.stack([*maps.values()]), FEW).float()
    rows = (outputs - mean).movedim(1, 3).flatten(0, 2)
    rest = rows - rows @ difference.T @ difference
    principal = torch.linalg.eigh(rest.T @ rest).eigenvectors.flip(1)[:, :FEW].T
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(len(mean), len(mean), generator=generator)).Q
    ranked = _most_correlated(agent, layer, tuning, seed)

    def with_gain(make: Callable[[float], Edit], gains: Sequence[float]) -> Way:
        followed = {
            gain: first_moves(by_edit(agent, layer, make(gain)), tuning, seed=seed)
            for gain in gains
        }
        gain = max(followed, key=lambda each: followed[each])
        return Way(by_edit(agent, layer, make(gain)), gain=gain)

    def by_maps(change: Callable[[Tensor], Tensor]) -> Way:
        edited = {cell: change(each) for cell, each in maps.items()}
        return with_gain(partial(along_map, edited), MAP_GAINS)

    def low_rank(basis: Tensor) -> Way:
        return by_maps(lambda each: component(each[None], basis)[0])

    return {
        "a real cheese": Way(by_cheese(agent), cheese=False),
        "maps": by_maps(lambda each: each),
        "not sent": Way(by_edit(agent, layer, None)),
        f"maps, {FEW} directions": low_rank(difference),
        "maps, 1 direction": low_rank(difference[:1]),
        "random directions": by_maps(partial(turned, rotation)),
        "principal directions": by_maps(partial(written_along, principal, difference)),
        "1 channel patched": with_gain(partial(in_channels, maps, ranked[:1], mean), PATCH_GAINS),
        f"{CHANNELS} channels patched": with_gain(
            partial(in_channels, maps, ranked[:CHANNELS], mean), PATCH_GAINS
        ),
        "own difference, 1 direction": Way(
            by_own_difference(agent, layer, difference[:1]), cheese=False
        ),
    }


def turned(
    rotation: Float[Tensor, "channels channels"], change: Float[Tensor, "channels height width"]
) -> Float[Tensor, "channels height width"]:
    """Turn the channels of a map: it is as large at every position."""
    return torch.einsum("dc,chw->dhw", rotation, change)


def written_along(
    others: Float[Tensor, "k channels"],
    directions: Float[Tensor, "k channels"],
    change: Float[Tensor, "channels height width"],
) -> Float[Tensor, "channels height width"]:
    """Write along other directions what a map has along some, and scale it to be as large."""
    amounts = torch.einsum("kc,chw->khw", directions, change)
    written = torch.einsum("kc,khw->chw", others, amounts)
    return written * (change.norm() / written.norm().clamp(min=1e-12))


def anywhere(levels: Sequence[int], seed: int) -> list[Maze]:
    """Return levels with the mouse on any free cell but the cheese's."""
    rng = np.random.default_rng(seed)
    mazes = []
    for maze in map(Maze.from_seed, levels):
        cells = [cell for cell in maze.free_cells() if cell not in maze.cheese]
        mazes.append(maze.with_mouse(cells[rng.integers(len(cells))]))
    return mazes


def _most_correlated(agent: Agent, layer: str, mazes: Sequence[Maze], seed: int) -> list[int]:
    """Return the channels by how much of their variance goes with where a cheese is."""
    rng = np.random.default_rng(seed)
    choices = [errands(maze) for maze in mazes]
    shown = [each[rng.integers(len(each))] for each in choices]
    placed = [errand.maze.with_cheese(errand.target) for errand in shown]
    outputs = agent.activations(observe(placed), [layer])[layer].cpu().double()
    labels = overlap(cheese_presence.labels(placed), (outputs.shape[2], outputs.shape[3]))
    covered = torch.from_numpy(labels).double()
    rows, there = outputs.movedim(1, 3).flatten(0, 2), covered.flatten()
    both = torch.corrcoef(torch.cat([rows, there[:, None]], 1).T)[-1, :-1]
    return both.abs().nan_to_num().argsort(descending=True).tolist()
