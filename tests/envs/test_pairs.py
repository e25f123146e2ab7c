import numpy as np
import pytest

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.pairs import cheese_moved_pair, cheese_pair, top_right_pair
from rlbilinear.envs.render import observe
from rlbilinear.envs.solver import distances, shortest_path
from rlbilinear.envs.state import CHEESE, SPACE, WALL

LEVELS = [Maze.from_seed(seed, mode) for seed in range(5) for mode in ("easy", "hard")]


def changed(pair):
    return {Cell(*at) for at in np.argwhere(pair.positive.grid != pair.negative.grid).tolist()}


def test_cheese_and_no_cheese():
    for maze in LEVELS:
        pair = cheese_pair(maze)
        assert pair.positive == maze and pair.negative.cheese == ()
        assert changed(pair) == {*maze.cheese}
        assert pair.difference == f"cheese on {maze.cheese[0]}"


def test_cheese_moved_to_a_cell_or_at_random():
    maze = LEVELS[1]
    goal = maze.free_cells()[7]
    pair = cheese_moved_pair(maze, goal)
    assert pair.positive.cheese == (goal,) and pair.negative == maze
    assert changed(pair) == {goal, *maze.cheese}
    drawn = [cheese_moved_pair(maze, seed=seed).positive.cheese for seed in range(1000)]
    assert drawn[:5] == [cheese_moved_pair(maze, seed=seed).positive.cheese for seed in range(5)]
    possible = {*maze.free_cells()} - {maze.mouse, *maze.cheese}
    assert {cell for (cell,) in drawn} == possible, "every cell comes up, and no other"


def test_path_to_the_top_right():
    for maze in LEVELS:
        if not maze.margin:
            with pytest.raises(ValueError, match="reaches the world's top right corner"):
                top_right_pair(maze)
            continue
        pair = top_right_pair(maze)
        longer = pair.positive
        assert pair.negative == maze
        last, inner = maze.size - 1, maze.size - 1 - maze.margin
        steps = distances(longer, Cell(inner, inner))
        assert steps[last, last] == 2 * maze.margin
        path = shortest_path(longer, Cell(inner, inner), Cell(last, last))
        new = changed(pair)
        assert new == {*path[1:]} and len(new) == 2 * maze.margin
        assert {longer.grid[cell] for cell in new} == {SPACE}
        assert path[maze.margin] == Cell(last, inner), "up first, then to the right"
        assert (longer.mouse, longer.cheese) == (maze.mouse, maze.cheese)
    images = observe(top_right_pair(LEVELS[0])[:2])
    assert (images[0] != images[1]).any()


def test_pairs_keep_the_rest():
    maze = LEVELS[0].with_facing("right").with_background(3).with_mouse(LEVELS[0].free_cells()[4])
    for pair in (cheese_pair(maze), cheese_moved_pair(maze, seed=0), top_right_pair(maze)):
        one, two, difference = pair
        assert one != two and difference
        for name in ("mouse", "facing", "background", "mode", "level_seed"):
            assert getattr(one, name) == getattr(two, name) == getattr(maze, name)


def test_what_makes_no_pair_is_refused():
    maze = LEVELS[0]
    corner = np.full((3, 3), WALL)
    corner[0, :2] = SPACE, CHEESE
    full = Maze.from_array(corner, Cell(0, 0))
    for call, message in (
        (lambda: cheese_pair(maze.with_cheese()), "no cheese"),
        (lambda: cheese_moved_pair(maze.with_cheese(), seed=0), "no cheese"),
        (lambda: cheese_moved_pair(maze), "either the cell or a seed, got to=None and seed=None"),
        (lambda: cheese_moved_pair(maze, maze.mouse, seed=1), "either the cell or a seed"),
        (lambda: cheese_moved_pair(maze, maze.cheese[0]), "is on .* already"),
        (lambda: cheese_moved_pair(maze, Cell(0, 0)), r"Cell\(row=0, column=0\): it is a wall"),
        (lambda: cheese_moved_pair(full, seed=0), "no free cell for the cheese"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
