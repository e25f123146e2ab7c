"""Retargeting: sending the agent to any cell by adding a bias map to a layer."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from rlbilinear.agents import Agent
from rlbilinear.envs import Cell, Maze, observe
from rlbilinear.probes.behaviour import mouse_cells, walk, way
from rlbilinear.probes.interventions import logits_after
from rlbilinear.probes.moves import has_policy, log_move_distribution
from rlbilinear.probes.named import AgentLike, LayerLike, as_agent, as_layer
from rlbilinear.probes.subspaces import Basis, component

BiasMap = Callable[[Maze, Cell], Float[Tensor, "channels height width"]]
"""The bias that should send the agent to a cell of a maze."""


def cheese_maps(
    agent: AgentLike,
    layer: LayerLike,
    mazes: Sequence[Maze],
    basis: Basis | None = None,
    *,
    per_cell: int = 8,
    seed: int = 0,
) -> dict[Cell, Float[Tensor, "channels height width"]]:
    """Measure what a cheese on a cell adds to a layer's output, on average over mazes.

    The mean of the output with the cheese there minus that without a cheese, the component in a
    subspace if one is given. Measure it on other levels than those that are steered.

    Args:
        agent: whose layer.
        layer: with maps as output.
        mazes: all of one size; mouse and walls stay as they are.
        basis: of the subspace the maps lie in; None for everything.
        per_cell: over at most so many mazes for each cell.
        seed: seed of which ones.

    Returns:
        A map for each cell that is free, and not the mouse's, in any of the mazes.
    """
    agent = as_agent(agent)
    layer = as_layer(agent, layer)
    rng = np.random.default_rng(seed)
    hosts: dict[Cell, list[int]] = {}
    for index in rng.permutation(len(mazes)).tolist():
        for cell in mazes[index].free_cells():
            if cell != mazes[index].mouse:
                hosts.setdefault(cell, []).append(index)
    chosen = [(cell, index) for cell in sorted(hosts) for index in hosts[cell][:per_cell]]
    without = _outputs(agent, layer, [maze.with_cheese() for maze in mazes])
    sums: dict[Cell, Tensor] = {}
    for start in range(0, len(chosen), 256):
        part = chosen[start : start + 256]
        planted = _outputs(agent, layer, [mazes[index].with_cheese(cell) for cell, index in part])
        added = planted - without[[index for _, index in part]]
        for (cell, _), one in zip(part, added, strict=True):
            sums[cell] = sums.get(cell, 0) + one / min(per_cell, len(hosts[cell]))
    if basis is None:
        return sums
    return {cell: component(one[None], basis)[0] for cell, one in sums.items()}


def move_cheese(
    maps: Mapping[Cell, Float[Tensor, "channels height width"]], gain: float = 1.0
) -> BiasMap:
    """Return the biases that erase a maze's own cheese and plant one on the target.

    Args:
        maps: from `cheese_maps`.
        gain: of both; 1 is sized like a real cheese.
    """

    def bias(maze: Maze, target: Cell) -> Float[Tensor, "channels height width"]:
        missing = [cell for cell in (target, *maze.cheese) if cell not in maps]
        if missing:
            raise ValueError(f"no map was measured for {missing}; measure on more mazes")
        return gain * (maps[target] - sum(maps[cell] for cell in maze.cheese))

    return bias


def retarget(
    agent: AgentLike,
    layer: LayerLike,
    mazes: Sequence[Maze],
    bias: BiasMap | None,
    *,
    batch: int = 256,
    progress: bool = False,
) -> pd.DataFrame:
    """Try to send the agent from the mouse's cell to every other free cell of each maze.

    Every target has its own bias map, all of a maze in one sweep; each is the same as editing the
    agent by `agents.edits.directions.steer`. Retargeting success is the mean of ``sent`` over
    targets.

    Args:
        agent: whom to send.
        layer: whose output gets the bias.
        mazes: the mouse is put along the shortest way to each target.
        bias: makes the bias for a target; None measures the unedited agent.
        batch: observations run at a time.
        progress: show a bar.

    Returns:
        A row a target: ``maze`` (its index), ``level`` (its seed), ``row``, ``column``,
        ``distance``, ``first_step``, ``reach``, ``sent``, as in `probes.behaviour.Way`, and
        ``ends``: the way leads over a cheese, which ends the episode: reach 0, not sent;
        ``finite``, 0 where outputs on the way are not finite: reach and sent are NaN.

    Raises:
        ValueError: a bias of another shape than the layer's output.
    """
    agent = as_agent(agent)
    layer = as_layer(agent, layer)
    tables = [
        _retarget(agent, layer, maze, bias, batch).assign(maze=index, level=maze.level_seed)
        for index, maze in enumerate(tqdm(mazes, desc="retargeting mazes", disable=not progress))
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[["maze", "level", *(c for c in table if c not in ("maze", "level"))]]


def _retarget(
    agent: Agent, layer: str, maze: Maze, bias: BiasMap | None, batch: int
) -> pd.DataFrame:
    cells = mouse_cells(maze)
    where = {cell: index for index, cell in enumerate(cells)}
    targets = [cell for cell in maze.free_cells() if cell != maze.mouse]
    walks = [walk(maze, maze.mouse, target) for target in targets]
    lengths = [len(walked) for _, walked in walks]
    states = np.array([where[cell] for _, walked in walks for cell in walked])
    wanted = np.repeat(np.arange(len(targets)), lengths)
    outputs = _outputs(agent, layer, [maze.with_mouse(cell) for cell in cells])
    if bias is None:
        moves = log_move_distribution(logits_after(agent, layer, outputs))[states]
    else:
        biases = _biases(maze, targets, bias, outputs)
        moves = np.concatenate(
            [
                log_move_distribution(logits_after(agent, layer, outputs[s] + biases[w]))
                for s, w in _batches(states, wanted, batch)
            ]
        )
    steps = np.split(moves, np.cumsum(lengths)[:-1])
    return pd.DataFrame(
        {
            **target._asdict(),
            **way(own, path)._asdict(),
            "ends": len(walked) < len(path) - 1,
            "finite": float(has_policy(own).all()),
        }
        for target, (path, walked), own in zip(targets, walks, steps, strict=True)
    )


def _batches(
    states: np.ndarray, wanted: np.ndarray, size: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(states[i : i + size], wanted[i : i + size]) for i in range(0, len(states), size)]


def _biases(
    maze: Maze, targets: Sequence[Cell], bias: BiasMap, outputs: Float[Tensor, "n *output"]
) -> Float[Tensor, "targets *output"]:
    biases = torch.stack([bias(maze, target) for target in targets]).to(outputs)
    if biases.shape[1:] != outputs.shape[1:]:
        raise ValueError(
            f"a bias of shape {tuple(biases.shape[1:])} does not fit the layer's output "
            f"{tuple(outputs.shape[1:])}"
        )
    return biases


def _outputs(agent: Agent, layer: str, mazes: Sequence[Maze]) -> Tensor:
    return agent.activations(observe(mazes), [layer])[layer]
