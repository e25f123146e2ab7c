"""What a steered agent does in a maze, computed for every target, for the page that shows it."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rlbilinear.envs import EVALUATION, STEP_OF_MOVE, Cell, Maze, Move, observe
from rlbilinear.envs.fields import mouse_cells
from rlbilinear.envs.observation import placements
from rlbilinear.probes.interventions import logits_after
from rlbilinear.probes.moves import Moves, move_distribution
from rlbilinear.probes.planting import along
from rlbilinear.probes.retargeting import cheese_maps
from rlbilinear.probes.study import Study

GAINS = (0.5, 1.0, 1.5, 2.0)
"""Strengths of the planted cheese, in those of a real one."""


LARGE = 30
"""Free cells that the maze has more of, when none is chosen."""


def large_maze() -> Maze:
    """Return the first held-out maze with more than `LARGE` free cells."""
    mazes = (Maze.from_seed(level) for level in range(EVALUATION.start, EVALUATION.stop))
    return next(maze for maze in mazes if len(maze.free_cells()) > LARGE)


def steered_maze(study: Study, maze: Maze, gains: Sequence[float] = GAINS) -> dict[str, Any]:
    """Plant a cheese in each cell, along each direction, and ask the agent in every cell.

    As in the report's steering: what a cheese in a cell adds to the layer's output is measured on
    the fitting levels, and its component along the direction is added. The maze's own cheese is
    taken out first.

    Args:
        study: agent, layer, directions and fitting levels.
        maze: where to steer.
        gains: strengths of the planted cheese, with 1 among them.

    Returns:
        What `rlbilinear.probes.page.page` shows, for JSON. ``probabilities`` are bytes (255 is 1)
        in base64: of every move, in every cell, first without steering, then by direction, gain and
        target.

    Raises:
        ValueError: no cell of the maze is one where cheese was seen in the fitting levels.
    """
    maze = maze.with_cheese()
    cells = mouse_cells(maze)
    fitted = [Maze.from_seed(level) for level in np.unique(study.fit.levels).tolist()]
    maps = cheese_maps(study.agent, study.layer, fitted, seed=study.seed)
    targets = [cell for cell in cells if cell in maps and cell != maze.mouse]
    if not targets:
        raise ValueError("no cell of this maze had cheese in the fitting levels; take another")
    outputs = study.agent.activations(observe(placements(maze, cells)), [study.layer])[study.layer]
    fields = [_moves(study, outputs)]
    for direction in study.directions.values():
        for gain in gains:
            for target in targets:
                bias = gain * along(maps[target].double(), direction)
                fields.append(_moves(study, outputs + bias.to(outputs)))
    return {
        "grid": maze.grid.tolist(),
        "cells": [_pair(cell) for cell in cells],
        "start": _pair(maze.mouse),
        "targets": [_pair(cell) for cell in targets],
        "first": targets.index(max(targets, key=lambda cell: _distance(cell, maze.mouse))),
        "directions": [*study.directions],
        "gains": [*gains],
        "names": [move.name.lower() for move in Move],
        "moves": [STEP_OF_MOVE[move] for move in Move],
        "probabilities": base64.b64encode(_bytes(np.stack(fields))).decode(),
    }


def _moves(study: Study, outputs: torch.Tensor) -> Moves:
    return move_distribution(logits_after(study.agent, study.layer, outputs))


def _bytes(probabilities: np.ndarray) -> bytes:
    return np.nan_to_num(probabilities * 255).round().astype(np.uint8).tobytes()


def _pair(cell: Cell) -> list[int]:
    return [int(cell.row), int(cell.column)]


def _distance(a: Cell, b: Cell) -> int:
    return abs(a.row - b.row) + abs(a.column - b.column)
