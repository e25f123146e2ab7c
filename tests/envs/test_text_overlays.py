import numpy as np
import pytest

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.solver import shortest_path
from rlbilinear.envs.text_overlays import arrows_text, path_text

ROOM = """
########
##..C ##
##M ..##
########
"""


@pytest.mark.parametrize(
    ("step", "arrow"),
    [
        ((1, 0), "↑"), ((-1, 0), "↓"), ((0, 1), "→"), ((0, -1), "←"), ((0.5, 0.5), "↗"),
        ((0.4, -0.5), "↖"), ((-0.5, -0.5), "↙"), ((-0.2, 0.2), "↘"), ((0.02, 0.05), "·"),
    ],
)  # fmt: skip
def test_every_cell_shows_where_its_step_leads(step, arrow):
    maze = Maze.from_text(ROOM)
    field = np.full((4, 4, 2), np.nan)
    field[1, 1] = field[1, 2] = field[2, 1] = step
    lines = arrows_text(maze, field).splitlines()
    assert lines == ["████████", f"██{arrow} C ██", f"██M{arrow}{arrow} ██", "████████"]


def test_a_path_is_drawn_from_the_mouse_to_the_cheese():
    maze = Maze.from_text(ROOM)
    way = shortest_path(maze, maze.mouse, maze.cheese[0])
    drawn = path_text(maze, [Cell(1, 1), Cell(1, 2), Cell(2, 2)])
    assert len(way) == 3
    assert drawn.splitlines() == ["████████", "██  C ██", "██M→↑ ██", "████████"]


@pytest.mark.parametrize("seed", [3, 8])
def test_without_a_mark_it_is_what_print_shows(seed):
    maze = Maze.from_seed(seed, "hard")
    assert path_text(maze, []) == str(maze)
    assert arrows_text(maze, np.full((25, 25, 2), np.nan)) == str(maze)


def test_what_does_not_fit_is_refused():
    maze = Maze.from_text(ROOM)
    with pytest.raises(ValueError, match=r"expected a field \(4, 4, 2\), got \(4, 4\)"):
        arrows_text(maze, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="outside of the 4x4 world"):
        path_text(maze, [Cell(4, 0)])
