import numpy as np
import pytest

from rlbilinear.envs.fields import mean_steps, mouse_cells, on_grid, vector_field
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.moves import STEP_OF_MOVE, Move
from rlbilinear.envs.render import observe
from rlbilinear.envs.solver import expert_moves


def always(move):
    return lambda observations: np.eye(5)[np.full(len(observations), move)]


@pytest.mark.parametrize("move", Move)
def test_a_policy_of_one_move_steps_that_way_everywhere(move):
    maze = Maze.from_seed(3)
    field = vector_field(maze, always(move))
    for cell in mouse_cells(maze):
        assert tuple(field[cell]) == STEP_OF_MOVE[move]
    blank = np.isnan(field).all(2)
    assert blank.sum() == (maze.grid == 51).sum() + 1 and blank[maze.cheese[0]]


def test_each_cell_is_asked_with_the_mouse_there():
    maze = Maze.from_seed(6, "hard")
    expert = expert_moves(maze, maze.cheese[0])
    place = {observe([maze.with_mouse(cell)]).tobytes(): cell for cell in mouse_cells(maze)}
    asked = []

    def policy(observations):
        cells = [place[observation.tobytes()] for observation in observations]
        asked.append(cells)
        return np.eye(5)[[expert[cell] for cell in cells]]

    field = vector_field(maze, policy)
    assert len(asked) == 1
    for cell in mouse_cells(maze):
        assert tuple(field[cell]) == STEP_OF_MOVE[Move(expert[cell])]


def test_mean_steps_are_means():
    moves = np.random.default_rng(0).dirichlet(np.ones(5), size=20)
    expected = sum(moves[:, [move]] * np.array([STEP_OF_MOVE[move]], float) for move in Move)
    np.testing.assert_allclose(mean_steps(moves), expected, atol=1e-15)


def test_a_maze_without_room_has_an_empty_field():
    grid = np.full((3, 3), 51)
    grid[1, 1] = 2
    maze = Maze.from_array(grid, Cell(1, 1))
    assert np.isnan(vector_field(maze, always(0))).all()


@pytest.mark.parametrize(
    "policy",
    [
        lambda observations: np.zeros((len(observations), 15)),
        lambda observations: np.zeros((len(observations), 5)),
        lambda observations: np.ones((1, 5)) / 5,
        lambda observations: np.full((len(observations), 5), np.nan),
    ],
)
def test_other_than_probabilities_are_refused(policy):
    with pytest.raises(ValueError, match="probabilities of LEFT, DOWN, UP, RIGHT, STAY"):
        vector_field(Maze.from_seed(3), policy)


def test_one_value_a_cell():
    with pytest.raises(ValueError, match="2 values for 1 cells"):
        on_grid(Maze.from_seed(3), [Cell(0, 0)], np.zeros(2))
