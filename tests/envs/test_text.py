from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.state import CHEESE, SPACE, WALL


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_maze_comes_back_from_its_text(data):
    size = data.draw(st.integers(3, 9))
    codes = st.sampled_from((WALL, SPACE, CHEESE))
    grid = data.draw(arrays(np.int32, (size, size), elements=codes))
    at = st.integers(0, size - 1)
    grid[data.draw(at), data.draw(at)] = SPACE  # one at least is free
    original = Maze.from_array(
        grid,
        Cell(data.draw(at), data.draw(at)),
        facing=data.draw(st.sampled_from(("left", "right"))),
        background=data.draw(st.integers(0, 8)),
        mode=data.draw(st.sampled_from(("easy", "hard", "memory"))),
        allow_wall=True,
        allow_disconnected=True,
    )
    back = Maze.from_text(original.to_text(), allow_disconnected=True)
    assert back == original and back.maze_dim == original.maze_dim
    assert back.to_text() == original.to_text()
    shown = Maze.from_text(str(original), allow_disconnected=True)
    assert shown == replace(original, facing="left", background=0, mode="easy")


def test_levels_come_back_from_files_with_their_bytes(tmp_path):
    for seed, mode in ((3, "easy"), (5, "hard"), (7, "memory")):
        level = Maze.from_seed(seed, mode).with_facing("right").with_wall(Cell(0, 0), False)
        level.save(tmp_path / "maze.txt")
        back = Maze.load(tmp_path / "maze.txt", allow_disconnected=True)
        assert back == level and (back.level_seed, back.maze_dim) == (seed, level.maze_dim)
        assert back.to_bytes() == level.to_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["maze.txt"], "nothing is left behind"


def test_a_drawing_as_one_types_it():
    maze = Maze.from_text(
        """

maze facing=right background=4
██##  C
    ..██

M ██  ##

"""
    )
    grid = [
        [SPACE, WALL, SPACE, WALL, SPACE],
        [SPACE] * 5,
        [SPACE, SPACE, SPACE, WALL, SPACE],
        [WALL, WALL, SPACE, CHEESE, SPACE],
    ]
    assert (maze.facing, maze.background, maze.mode) == ("right", 4, "easy")
    assert maze.grid.tolist() == [row[:4] for row in grid]
    assert maze.mouse == Cell(0, 0) and maze.cheese == (Cell(3, 3),)


def test_what_stands_on_what():
    maze = Maze.from_text("M█  ..\n.\nC", allow_disconnected=True)
    assert maze.mouse == Cell(2, 0) and maze.grid[2, 0] == WALL
    assert str(maze) == "M█\n.\nC"
    on_cheese = Maze.from_text("MC\n.\n.")
    assert on_cheese.cheese == (on_cheese.mouse,) == (Cell(2, 0),)


@pytest.mark.parametrize(
    ("drawing", "message"),
    [
        ("", "no drawing"),
        ("maze mode=easy\n\n", "no drawing"),
        ("M ..\n....", r"3 to 64.*\(2, 2\)"),
        ("M ....\n........\n.", "line 2 has 4 cells of two characters each; a maze of 3 lines"),
        ("M ..\nXX\n.", r"line 2, characters 1 and 2: 'XX' is not a cell; accepted are '██'"),
        ("M \n" + 99_999 * ".\n", "drawing of 100000 lines; a maze has at most 64"),
        ("....\n.\nC", "one mouse .M., got 0"),
        ("M M \n.\nC", r"got 2: \[Cell\(row=2, column=0\), Cell\(row=2, column=1\)\]"),
        (
            "maze colour=red\nM ..\n.\n.",
            "says .colour=red.; accepted are, once each, mode=..., facing=",
        ),
        ("maze mode\nM ..\n.\n.", "the first line says 'mode'; accepted are"),
        ("maze mode=easy mode=hard\nM ..\n.\n.", "the first line says 'mode=hard'"),
        ("maze mode=extreme\nM ..\n.\n.", "easy, hard, memory"),
        ("maze facing=up\nM ..\n.\n.", "'left' or 'right', not 'up'"),
        ("maze background=9\nM ..\n.\n.", r"0\.\.8, got 9"),
        ("maze background=red\nM ..\n.\n.", "background is a whole number, got 'red'"),
        ("maze maze_dim=4\nM ..\n.\n.", "maze of 4 in a world of 3"),
        ("maze level_seed=2147483648\nM ..\n.\n.", "level seed 2147483648"),
        ("M ██C\n  ████\n.", r"no way leads .*column=0\) to Cell\(row=2, column=2\);"),
    ],
)
def test_what_is_no_maze_is_refused_with_the_place(drawing, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Maze.from_text(drawing)
    path = tmp_path / "wrong.txt"
    path.write_text(drawing, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"wrong\.txt: .*{message}"):
        Maze.load(path)


def test_a_files_byte_order_mark_is_no_part_of_the_drawing(tmp_path):
    """Some editors write one."""
    maze, path = Maze.from_seed(3), tmp_path / "maze.txt"
    path.write_text(maze.to_text(), encoding="utf-8-sig")
    assert path.read_bytes()[:3] == b"\xef\xbb\xbf" and Maze.load(path) == maze
