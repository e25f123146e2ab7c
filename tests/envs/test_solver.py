import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path as scipy_shortest_path

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.moves import STEP_OF_MOVE, Move
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.solver import (
    decision_square,
    distances,
    expert_moves,
    path_divergence,
    shortest_path,
    top_right,
)
from rlbilinear.envs.state import CHEESE, SPACE, WALL


def from_text(*rows, allow_disconnected=False):
    """A maze from rows, top first: # wall, . space, M mouse, C cheese."""
    symbols = np.array([list(row) for row in reversed(rows)])
    ((row, column),) = np.argwhere(symbols == "M")
    grid = np.full(symbols.shape, SPACE)
    grid[symbols == "#"] = WALL
    grid[symbols == "C"] = CHEESE
    mouse = Cell(int(row), int(column))
    return Maze.from_array(grid, mouse, allow_disconnected=allow_disconnected)


def reference_distances(grid, goal):
    """By scipy, on the graph of free cells."""
    rows, columns = grid.shape
    index = np.arange(grid.size).reshape(grid.shape)
    free = grid != WALL
    sideways, upward = free[:, 1:] & free[:, :-1], free[1:] & free[:-1]
    one = np.concatenate([index[:, :-1][sideways], index[:-1][upward]])
    two = np.concatenate([index[:, 1:][sideways], index[1:][upward]])
    graph = coo_array((np.ones(len(one)), (one, two)), (grid.size, grid.size)).tocsr()
    steps = scipy_shortest_path(graph, directed=False, indices=index[goal])
    return np.where(np.isinf(steps), -1, steps).reshape(rows, columns)


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.int32,
        st.tuples(st.integers(3, 9), st.integers(3, 9)),
        elements=st.sampled_from((WALL, SPACE)),
    ),
    st.data(),
)
def test_distances_and_moves_on_any_grid(grid, data):
    free = np.argwhere(grid != WALL)
    if not len(free):
        return
    goal = Cell(*data.draw(st.sampled_from(free.tolist())))
    steps = distances(grid, goal)
    np.testing.assert_array_equal(steps, reference_distances(grid, goal))
    moves = expert_moves(grid, goal)
    assert ((moves == -1) == (steps == -1)).all()
    assert ((moves == Move.STAY) == (steps == 0)).all()
    for row, column in np.argwhere(steps > 0).tolist():
        row_step, column_step = STEP_OF_MOVE[Move(moves[row, column])]
        assert steps[row + row_step, column + column_step] == steps[row, column] - 1


@pytest.mark.parametrize("mode", ["easy", "hard"])
def test_the_expert_solves_levels_in_the_simulator(mode):
    simulator = Simulator("maze", 10, mode=mode, num_threads=0)
    mazes = [Maze.from_bytes(raw) for raw in simulator.get_states()]
    paths = [shortest_path(maze, maze.mouse, maze.cheese[0]) for maze in mazes]
    experts = [expert_moves(maze, maze.cheese[0]) for maze in mazes]
    action_of_move = {Move.LEFT: 1, Move.DOWN: 3, Move.UP: 5, Move.RIGHT: 7}
    solved = np.zeros(10, bool)
    for step in range(max(map(len, paths)) - 1):
        here = [path[min(step, len(path) - 2)] for path in paths]
        moves = [Move(expert[cell]) for expert, cell in zip(experts, here, strict=True)]
        simulator.act(np.array([action_of_move[move] for move in moves]))
        rewards = simulator.observe().rewards
        last = np.array([step == len(path) - 2 for path in paths])
        np.testing.assert_array_equal(rewards[~solved] == 10, last[~solved])
        solved |= last
    assert solved.all()
    simulator.close()


def test_shortest_path_has_both_ends_and_unit_steps():
    maze = from_text(
        "..C",
        ".##",
        "M..",
    )
    assert shortest_path(maze, maze.mouse, maze.cheese[0]) == [
        Cell(0, 0),
        Cell(1, 0),
        Cell(2, 0),
        Cell(2, 1),
        Cell(2, 2),
    ]
    assert shortest_path(maze, maze.mouse, maze.mouse) == [maze.mouse]


def test_decision_square_is_where_the_ways_part():
    maze = from_text(
        ".####",
        ".....",
        ".###.",
        "...#.",
        "M###C",
    )
    assert top_right(maze) == Cell(3, 4)
    assert decision_square(maze) is None  # the cheese lies beyond the corner
    assert decision_square(maze.with_cheese(Cell(3, 2))) is None  # and on the way to it
    assert decision_square(maze.with_cheese(Cell(1, 2))) == Cell(1, 0)
    assert decision_square(maze.with_cheese(Cell(4, 0))) == Cell(3, 0)
    assert decision_square(maze.with_cheese(Cell(1, 2)).with_mouse(Cell(3, 0))) == Cell(3, 0)


def test_decision_square_between_any_two_goals():
    maze = from_text(
        ".####",
        ".....",
        ".###.",
        "...#.",
        "M###C",
    )
    assert decision_square(maze, Cell(1, 2)) == Cell(1, 0)
    assert decision_square(maze.with_cheese(), Cell(1, 2), Cell(4, 0)) == Cell(1, 0)
    assert decision_square(maze, Cell(4, 0), Cell(0, 4)) == Cell(3, 0)
    assert decision_square(maze, other_goal=Cell(4, 0)) == Cell(3, 0)
    assert decision_square(maze, Cell(2, 0), Cell(4, 0)) is None
    assert decision_square(maze, Cell(4, 0), Cell(4, 0)) is None
    with pytest.raises(ValueError, match=r"Cell\(row=4, column=4\) is a wall"):
        decision_square(maze, Cell(4, 4))


def test_paths_part_where_they_part():
    maze = Maze.from_seed(4, "hard")
    start, corner = maze.mouse, top_right(maze)
    to_corner = shortest_path(maze, start, corner)
    for cell in maze.free_cells():
        path = shortest_path(maze, start, cell)
        shared, one, two = path_divergence(path, to_corner)
        assert shared + one == path and shared + two == to_corner
        assert set(path) & set(to_corner) == set(shared), "in a tree they never meet again"
        assert not (one and two) or one[0] != two[0]
        square = path_divergence(path, to_corner).square
        assert square == decision_square(maze, cell)
        assert (square is None) == (cell in to_corner or corner in path)
    walked = [start, to_corner[1], start]
    assert path_divergence(walked, to_corner).shared == to_corner[:2]
    for one, two in (([], [start]), ([start], [corner])):
        with pytest.raises(ValueError, match="the paths start on one cell, got"):
            path_divergence(one, two)


def test_no_way_and_wrong_cells_are_named():
    maze = from_text("C#.", "###", "..M", allow_disconnected=True)
    with pytest.raises(ValueError, match=r"no way from Cell\(row=0, column=2\) to .*row=2"):
        shortest_path(maze, maze.mouse, maze.cheese[0])
    assert distances(maze, maze.mouse)[2, 0] == -1
    with pytest.raises(ValueError, match=r"Cell\(row=1, column=1\) is a wall"):
        expert_moves(maze, Cell(1, 1))
    with pytest.raises(ValueError, match=r"column=3\) is outside of the 3x3 world"):
        distances(maze, Cell(0, 3))
    with pytest.raises(ValueError, match=r"a position is a Cell\(row, column\), got \(0, 0\)"):
        shortest_path(maze, (0, 0), maze.mouse)
    walls = maze.with_cheese().with_wall(Cell(2, 0))
    with pytest.raises(ValueError, match="is a wall"):
        shortest_path(walls, maze.mouse, Cell(2, 0))
    with pytest.raises(ValueError, match="one cheese, the maze has 0"):
        decision_square(maze.with_cheese())
