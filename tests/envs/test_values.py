"""Mazes and heists stay what they are, wherever they come from and go to."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from rlbilinear.envs.heist import Heist
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.state import SPACE

READ = Maze.from_bytes(Maze.from_seed(3).to_bytes())
VALUES = {
    "maze of a seed": Maze.from_seed(3),
    "maze of bytes": READ,
    "maze edited": READ.with_cheese(Cell(7, 7), allow_wall=True),
    "maze of an array": Maze.from_array(np.full((4, 4), SPACE), Cell(0, 0)),
    "heist": Heist.from_seed(2),
    "heist edited": Heist.from_seed(2).with_gem(),
}
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": dataclasses.replace,
    **{
        f"pickle {protocol}": lambda value, protocol=protocol: pickle.loads(
            pickle.dumps(value, protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("name", VALUES)
def test_copies_are_equal_and_read_only(name, copied):
    value = VALUES[name]
    other = COPIES[copied](value)
    assert other == value and hash(other) == hash(value) and other.level_seed == value.level_seed
    assert other.to_bytes() == value.to_bytes()
    for each in dataclasses.fields(other):
        array = getattr(other, each.name)
        if isinstance(array, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = array


def test_what_a_value_is_made_from_may_change_later():
    grid = np.full((4, 4), SPACE, "<i4")
    for maze in (
        Maze.from_array(grid, Cell(0, 0)),
        dataclasses.replace(Maze.from_seed(3), grid=grid, mouse=Cell(0, 0)),
    ):
        grid[1, 1] = 51
        assert maze.grid[1, 1] == SPACE
        grid[1, 1] = SPACE
    heist = VALUES["heist"]
    entities = heist.entities.copy()
    other = dataclasses.replace(heist, entities=entities)
    entities["x"] += 1
    assert other == heist
