import io
import math
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.overlays import arrows, dots, heatmap, path
from rlbilinear.envs.render import (
    Window,
    agent_view,
    cell_centre,
    cell_to_pixels,
    human_view,
    window,
)
from rlbilinear.envs.solver import distances, shortest_path
from rlbilinear.envs.state import SPACE, WALL

VIEWS = {64: agent_view, 512: human_view}


def hall(mode, size, mouse):
    return Maze.from_array(np.full((size, size), SPACE), mouse, mode=mode)


def one(maze, cell, value, *rest):
    field = np.full((*maze.grid.shape, *rest), np.nan)
    field[cell] = value
    return field


def plain(pixels, shade=128):
    return np.full((pixels, pixels, 3), shade, np.uint8)


def weights(before, after):
    """How much each pixel changed."""
    return np.abs(after.astype(float) - before).sum(-1)


def centre_of_mass(weight):
    rows, columns = np.indices(weight.shape) + 0.5
    return (rows * weight).sum() / weight.sum(), (columns * weight).sum() / weight.sum()


@pytest.mark.parametrize("pixels", VIEWS)
@pytest.mark.parametrize(
    ("mode", "size"), [("easy", 3), ("hard", 8), ("easy", 13), ("hard", 31), ("memory", 31)]
)
def test_an_overlay_of_a_cell_lies_where_the_simulator_draws_the_cell(mode, size, pixels):
    """The rectangle that a wall fills in the simulator's picture is what the heatmap fills."""
    mouse = Cell(size // 2, size // 2)
    maze = hall(mode, size, mouse)
    before = VIEWS[pixels](maze)
    for cell in (Cell(size // 2 - 1, size // 2), Cell(mouse.row, mouse.column + 1)):
        wall = (VIEWS[pixels](maze.with_wall(cell)) != before).any(-1)
        drawn = (heatmap(before, maze, one(maze, cell, 1.0), opacity=1.0) != before).any(-1)
        rectangle = cell_to_pixels(cell, maze, pixels)
        assert drawn[rectangle].all() and drawn.sum() == drawn[rectangle].size
        assert (wall & drawn).sum() >= 0.95 * drawn.sum()  # floor and wall may share a colour
        rows, columns = np.nonzero(wall)
        more = math.ceil(1 + 0.02 * pixels / window(maze).side)
        for found, part in zip((rows, columns), rectangle, strict=True):
            assert part.start - more <= found.min() <= part.start
            assert part.stop <= found.max() + 1 <= part.stop + more


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_dots_lie_in_the_middle_of_their_cell(data):
    pixels = data.draw(st.sampled_from([64, 200, 512]))
    size = data.draw(st.integers(3, 31))
    cell = Cell(data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1)))
    shown = size
    if data.draw(st.booleans()):  # a window around the cell
        shift = data.draw(st.sampled_from([-1.5, 0.0, 2.25]))
        shown = Window(cell.column - 3 + shift, cell.row - 4, 8, size, size)
    before = plain(pixels)
    rectangle = cell_to_pixels(cell, shown, pixels)
    dot = weights(before, dots(before, shown, [cell], colour="white", size=0.5))
    assert dot[rectangle].sum() == dot.sum() > 0
    np.testing.assert_allclose(centre_of_mass(dot), cell_centre(cell, shown, pixels), atol=0.15)
    scale = pixels / window(shown).side
    area = dot.sum() / (3 * (255 - 128))
    assert area == pytest.approx(np.pi * (0.25 * scale) ** 2, rel=0.05, abs=0.1)


def test_an_arrow_of_no_length_is_a_small_dot():
    maze, cell, before = hall("easy", 5, Cell(0, 0)), Cell(3, 1), plain(500)
    drawn = weights(before, arrows(before, maze, one(maze, cell, 0.0, 2))) > 0
    assert drawn.sum() == pytest.approx(np.pi * (15.4 / 2) ** 2, rel=0.2)  # shaft and rim
    np.testing.assert_allclose(centre_of_mass(drawn), cell_centre(cell, maze, 500), atol=0.15)


@pytest.mark.parametrize(
    ("step", "move"), [((1, 0), (-1, 0)), ((-1, 0), (1, 0)), ((0, 1), (0, 1)), ((0, -1), (0, -1))]
)
def test_arrows_point_where_the_step_leads(step, move):
    maze, cell, before = hall("easy", 5, Cell(0, 0)), Cell(3, 1), plain(500)
    drawn = weights(before, arrows(before, maze, one(maze, cell, step, 2), colour="#000000")) > 0
    y, x = cell_to_pixels(cell, maze, 500)
    assert drawn[y, x].sum() == drawn.sum()
    rows, columns = np.nonzero(drawn)
    spans = np.ptp(rows), np.ptp(columns)
    along, across = (0, 1) if move[0] else (1, 0)
    assert 85 <= spans[along] <= 95  # 0.85 of a cell, and the rim
    assert 30 <= spans[across] <= 45
    widest = drawn.sum(across).argmax() - cell_centre(cell, maze, 500)[along]
    assert widest * move[along] > 5  # where the head begins, beyond the middle
    shift = np.subtract(centre_of_mass(drawn), cell_centre(cell, maze, 500))
    assert abs(shift[across]) < 0.2


def test_the_simulator_goes_where_the_arrow_points():
    """Up in a field is up in the picture: the mouse itself is found there."""
    maze = hall("easy", 9, Cell(4, 4))
    for step in ((1, 0), (0, 1)):
        before = human_view(maze)
        there = Cell(maze.mouse.row + step[0], maze.mouse.column + step[1])
        moved = weights(before, human_view(maze.with_mouse(there)))
        arrow = weights(
            before, arrows(before, maze, one(maze, maze.mouse, step, 2), length=2.0, opacity=0.5)
        )
        own = cell_to_pixels(there, maze, 512)
        assert moved[own].sum() > 0 and arrow[own].sum() > 0
        opposite = Cell(maze.mouse.row - step[0], maze.mouse.column - step[1])
        assert arrow[own].sum() > arrow[cell_to_pixels(opposite, maze, 512)].sum()


def test_a_path_joins_the_middles_of_its_cells():
    maze = Maze.from_seed(3)
    before = plain(300)
    cells = shortest_path(maze, maze.mouse, maze.cheese[0])
    drawn = weights(before, path(before, maze, cells)) > 0
    floor = np.zeros((300, 300), bool)
    for cell in cells:
        rectangle = cell_to_pixels(cell, maze, 300)
        floor[rectangle] = True
        y, x = (int(at) for at in cell_centre(cell, maze, 300))
        assert drawn[y, x]
    assert not drawn[~floor].any()
    for ends in pairwise(cells):
        y, x = np.mean([cell_centre(cell, maze, 300) for cell in ends], 0).astype(int)
        assert drawn[y, x]


def test_heatmaps_take_colours_from_the_map():
    maze = Maze.from_seed(3)
    steps = distances(maze, maze.cheese[0]).astype(float)
    steps[steps < 0] = np.nan
    drawn = heatmap(plain(150), maze, steps, colours="magma", opacity=1.0)
    top = np.nanmax(steps)
    for cell in maze.free_cells():
        expected = np.array(matplotlib.colormaps["magma"](steps[cell] / top)[:3]) * 255
        y, x = cell_to_pixels(cell, maze, 150)
        np.testing.assert_allclose(drawn[y.start, x.start], expected, atol=0.51)
    walls = maze.grid == 51
    for row, column in np.argwhere(walls)[::7].tolist():
        assert (drawn[cell_to_pixels(Cell(row, column), maze, 150)] == 128).all()
    fixed = heatmap(plain(150), maze, steps, colours="magma", limits=(0, 2 * top), opacity=0.5)
    y, x = cell_to_pixels(maze.mouse, maze, 150)
    half = np.array(matplotlib.colormaps["magma"](steps[maze.mouse] / top / 2)[:3]) * 255
    np.testing.assert_allclose(fixed[y.start, x.start], (half + 128) / 2, atol=0.51)


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_pictures_are_not_changed_and_nothing_drawn_changes_nothing(mode):
    maze = Maze.from_seed(5, mode)
    before = agent_view(maze)
    kept = before.copy()
    nan = np.full((*maze.grid.shape, 2), np.nan)
    for after in (
        heatmap(before, maze, nan[..., 0]),
        arrows(before, maze, nan),
        dots(before, maze, []),
        path(before, maze, []),
        dots(before, maze, maze.free_cells(), opacity=0.0),
    ):
        np.testing.assert_array_equal(after, kept)
        assert after is not before
    assert (dots(before, maze, [maze.mouse]) != kept).any()
    np.testing.assert_array_equal(before, kept)


def test_cells_that_are_not_shown_are_left_out():
    maze = hall("memory", 31, Cell(30, 0))
    before, far = plain(512), Cell(0, 30)
    for after in (
        dots(before, maze, [far]),
        heatmap(before, maze, one(maze, far, 1.0)),
        arrows(before, maze, one(maze, far, 1.0, 2)),
        path(before, maze, [far, Cell(0, 29)]),
    ):
        np.testing.assert_array_equal(after, before)


def test_what_is_not_accepted_is_named():
    maze, picture = Maze.from_seed(3), plain(64)
    field = np.zeros((15, 15))
    for call, message in (
        (lambda: heatmap(picture[:32], maze, field), "square uint8 picture"),
        (lambda: dots(picture.astype(float), maze, []), "square uint8 picture"),
        (lambda: heatmap(picture, maze, field[:5]), r"\(15, 15\) over the cells of a 15x15 world"),
        (lambda: arrows(picture, maze, field), r"\(15, 15, 2\) over the cells"),
        (lambda: heatmap(picture, maze, field, colours="vriidis"), "no colour map 'vriidis'.*mag"),
        (lambda: heatmap(picture, maze, field, limits=(1, 0)), "ascending"),
        (lambda: dots(picture, maze, [Cell(15, 0)]), "outside of the 15x15 world"),
        (lambda: path(picture, maze, [Cell(0, 0)], opacity=2), "opacity is 0 to 1"),
        (lambda: dots(picture, maze, [Cell(0, 0)], colour="reddish"), "reddish"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_pillow_writes_what_was_drawn(tmp_path):
    maze = Maze.from_seed(3)
    drawn = dots(human_view(maze), maze, maze.cheese)
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(buffer)), drawn)


def test_masks_and_lists_are_values_too():
    maze = Maze.from_seed(3)
    view, walls = agent_view(maze), maze.grid == WALL
    expected = heatmap(view, maze, walls.astype(float))
    for values in (walls, walls.tolist(), walls.astype(np.int8)):
        np.testing.assert_array_equal(heatmap(view, maze, values), expected)
