import numpy as np
import pytest

from rlbilinear.envs.grid import Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.observation import placements
from rlbilinear.envs.overlays import dots, path
from rlbilinear.envs.pairs import cheese_moved_pair
from rlbilinear.envs.places import Region
from rlbilinear.envs.render import cell_centre, cell_to_pixels, human_view
from rlbilinear.envs.routes import key_route
from rlbilinear.envs.solver import decision_square, distances


def test_a_bare_pair_is_no_cell():
    maze = Maze.from_seed(1)
    for ask in (
        lambda pair: cell_to_pixels(pair, maze),
        lambda pair: cell_centre(pair, maze),
        lambda pair: dots(human_view(maze), maze, [pair]),
        lambda pair: path(human_view(maze), maze, [pair]),
        lambda pair: Region(5).holds(maze, pair),
        lambda pair: distances(maze, pair),
        lambda pair: key_route(Heist.from_seed(2), pair),
        lambda pair: placements(maze, [pair]),
        lambda pair: Maze.from_array(maze.grid, pair),
        lambda pair: maze.with_cheese(pair),
        lambda pair: cheese_moved_pair(maze, pair),
        lambda pair: decision_square(maze, pair),
    ):
        for pair in ((5, 5), [5, 5], np.array([5, 5]), Cell(5.0, 5), Cell(True, 5)):
            with pytest.raises(ValueError, match=r"a position is a Cell\(row, column\), got"):
                ask(pair)
    for given in ((5, 5), [(5, 5)]):  # as one cell, as a list of them
        with pytest.raises(ValueError, match=r"a position is a Cell\(row, column\), got"):
            Maze.from_array(maze.grid, maze.mouse, given)
        with pytest.raises(ValueError, match=r"a position is a Cell\(row, column\), got"):
            Heist.from_array(Heist.from_seed(2).grid, Heist.from_seed(2).agent, given)
