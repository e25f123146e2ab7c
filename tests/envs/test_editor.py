import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlbilinear.envs.editor import TOOLS, Editing, picture
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.render import cell_to_pixels, human_view

START = Maze.from_seed(3)
CELLS = st.builds(Cell, st.integers(0, START.size - 1), st.integers(0, START.size - 1))


def test_each_tool_does_what_it_says_and_takes_it_back():
    start = Editing(START)
    wall = Cell(0, 0)
    opened = start.use("wall", wall)
    assert opened.maze == START.with_wall(wall, False)
    assert opened.use("wall", wall).maze == START
    free = START.free_cells()[5]
    assert start.use("mouse", free).maze == START.with_mouse(free)
    both = start.use("cheese", free)
    assert both.maze == START.with_cheese(free, *START.cheese)
    assert both.use("cheese", START.cheese[0]).maze == START.with_cheese(free)
    assert both.use("cheese", free).use("cheese", START.cheese[0]).maze == START.with_cheese()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*TOOLS, "undo", "redo"]), CELLS), max_size=25))
def test_undo_and_redo_walk_through_all_that_was(clicks):
    """Against a list of mazes and a place in it."""
    editing, mazes, place = Editing(START), [START], 0
    for what, cell in clicks:
        if what == "undo":
            editing, place = editing.undo(), max(place - 1, 0)
        elif what == "redo":
            editing, place = editing.redo(), min(place + 1, len(mazes) - 1)
        else:
            try:
                after = editing.use(what, cell)
            except ValueError:
                continue
            if after.maze != mazes[place]:
                mazes, place = [*mazes[: place + 1], after.maze], place + 1
            editing = after
        assert editing.maze == mazes[place]
        assert list(editing.past) == mazes[:place]
        assert list(editing.future[::-1]) == mazes[place + 1 :]
    assert Maze.from_bytes(editing.maze.to_bytes()) == editing.maze


def test_what_the_maze_does_not_allow_is_said():
    editing = Editing(START)
    for tool, cell, message in (
        ("wall", START.mouse, "mouse is there"),
        ("wall", START.cheese[0], "cheese is there"),
        ("mouse", Cell(0, 0), "it is a wall"),
        ("cheese", Cell(0, 0), "it is a wall"),
        ("wall", Cell(0, START.size), "outside"),
        ("key", Cell(0, 0), "wall, mouse, cheese, got 'key'"),
    ):
        with pytest.raises(ValueError, match=message):
            editing.use(tool, cell)


def test_the_picture_has_an_arrow_where_the_policy_goes():
    plain = picture(START)
    np.testing.assert_array_equal(plain, human_view(START))
    arrowed = picture(START, lambda observations: np.eye(5)[np.full(len(observations), 2)])
    changed = (arrowed != plain).any(-1)
    for cell in START.free_cells():
        assert changed[cell_to_pixels(cell, START, 512)].any() == (cell not in START.cheese)
    walls = [Cell(*at) for at in np.argwhere(START.grid == 51).tolist()]
    assert not any(changed[cell_to_pixels(cell, START, 512)].any() for cell in walls)
