import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rlbilinear.envs.editor import picture
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.state import CHEESE, SPACE, WALL

ipywidgets = pytest.importorskip(
    "ipywidgets", reason="the maze editor for notebooks needs the extra `notebook`"
)

from rlbilinear.envs.notebook import MazeEditor  # noqa: E402

START = Maze.from_seed(3)


def upwards(observations):
    return np.eye(5)[np.full(len(observations), 2)]


def shown(editor):
    return np.asarray(Image.open(io.BytesIO(editor.image.value)))


def texts(editor):
    return {cell: button.description for cell, button in editor.cells.items() if button.description}


def test_clicks_edit_and_the_picture_follows():
    editor = MazeEditor(START, upwards)
    free = START.free_cells()[7]
    expected = START
    for tool, cell, change in (
        ("wall", Cell(0, 0), lambda maze: maze.with_wall(Cell(0, 0), False)),
        ("mouse", free, lambda maze: maze.with_mouse(free)),
        ("cheese", START.mouse, lambda maze: maze.with_cheese(START.mouse, *maze.cheese)),
        ("cheese", START.cheese[0], lambda maze: maze.with_cheese(START.mouse)),
    ):
        editor.tool.value = tool
        editor.cells[cell].click()
        expected = change(expected)
        assert editor.maze == expected and editor.message.value == ""
        np.testing.assert_array_equal(shown(editor), picture(expected, upwards))
        assert texts(editor) == {expected.mouse: "🐭", **{at: "🧀" for at in expected.cheese}}
    mazes = [editor.maze]
    while not editor.undo.disabled:
        editor.undo.click()
        mazes.append(editor.maze)
        np.testing.assert_array_equal(shown(editor), picture(editor.maze, upwards))
    assert len(mazes) == 5 and mazes[-1] == START
    editor.redo.click()
    assert editor.maze == mazes[-2]


def test_walls_floor_and_cheese_have_their_colours():
    editor = MazeEditor(START.with_mouse(START.cheese[0]))  # which hides the cheese's sign
    np.testing.assert_array_equal(shown(editor), picture(editor.maze))
    colours = {code: set() for code in (WALL, SPACE, CHEESE)}
    for cell, button in editor.cells.items():
        colours[int(START.grid[cell])].add(button.style.button_color)
    assert list(map(len, colours.values())) == [1, 1, 1] and len(set.union(*colours.values())) == 3
    cell = Cell(0, 0)
    editor.cells[cell].click()  # the first tool is the wall
    assert {editor.cells[cell].style.button_color} == colours[SPACE]


def test_buttons_lie_as_the_picture_does():
    """The first is the top left one."""
    editor = MazeEditor(Maze.from_seed(3, "hard"))
    (_, middle, _) = editor.children
    grid, image = middle.children
    assert image is editor.image
    order = [next(c for c, b in editor.cells.items() if b is child) for child in grid.children[:30]]
    assert order[0] == Cell(24, 0) and order[24] == Cell(24, 24) and order[25] == Cell(23, 0)
    assert grid.layout.grid_template_columns == "repeat(25, 20.480px)"


def test_what_the_maze_does_not_allow_is_said_and_changes_nothing():
    editor = MazeEditor(START)
    editor.cells[START.mouse].click()
    assert "mouse is there" in editor.message.value and editor.maze == START
    assert editor.undo.disabled and editor.redo.disabled
    editor.tool.value = "mouse"
    editor.cells[START.free_cells()[3]].click()
    assert editor.message.value == ""


def test_a_maze_can_be_put_in_and_undone():
    editor = MazeEditor(START)
    editor.maze = Maze.from_seed(4)
    assert editor.maze == Maze.from_seed(4)
    np.testing.assert_array_equal(shown(editor), picture(Maze.from_seed(4)))
    editor.undo.click()
    assert editor.maze == START
    with pytest.raises(ValueError, match="15 cells a side, got 25"):
        editor.maze = Maze.from_seed(4, "hard")


def test_a_policy_that_fails_is_not_hidden():
    def broken(observations):
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        MazeEditor(START, broken)


def test_without_ipywidgets_the_package_works_and_the_editor_says_what_to_install():
    absent = "import sys; sys.modules['ipywidgets'] = None"
    code = f"{absent}; import rlbilinear.envs.editor; import rlbilinear.envs.notebook"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = done.stderr.splitlines()
    assert done.returncode == 1 and "pip install 'rlbilinear[notebook]'" in said[-1]
    assert not any("envs/__init__" in line or "envs/editor" in line for line in said)
