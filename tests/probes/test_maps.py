import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from rlbilinear.envs import Cell, Maze
from rlbilinear.envs.render import observe
from rlbilinear.probes.maps import cell_heatmap, filter_maps, maze_axes, vector_fields


@pytest.fixture(scope="module")
def maze():
    return Maze.from_seed(3)


@pytest.fixture(scope="module")
def observation(maze):
    return observe([maze])[0]


def marks(axes):
    return {
        line.get_label(): line.get_xydata().tolist()
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def values(maze, seed):
    grid = np.full(maze.grid.shape, np.nan)
    for cell in maze.free_cells():
        grid[cell] = np.random.default_rng([seed, *cell]).random()
    return grid


def field(maze, seed):
    return np.stack([values(maze, seed), values(maze, seed + 1)], 2)


def rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_an_observation_lies_on_the_cells(mode):
    maze = Maze.from_seed(3, mode)
    cell = [
        c for c in maze.free_cells() if c != maze.mouse and max(abs(np.subtract(c, maze.mouse))) < 4
    ][-1]
    with_cheese, without = observe([maze.with_cheese(cell), maze.with_cheese()])
    y, x = np.nonzero((with_cheese != without).any(0))
    assert len(y)
    axes = Figure().subplots()
    maze_axes(axes, maze, with_cheese)
    left, right, bottom, top = axes.images[0].get_extent()
    columns = left + (x + 0.5) / 64 * (right - left)
    rows = top - (y + 0.5) / 64 * (top - bottom)
    assert axes.images[0].origin == "upper"
    assert np.abs(rows - cell.row).max() <= 0.6 and np.abs(columns - cell.column).max() <= 0.6


def test_walls_are_drawn_from_the_bottom_row_up(maze):
    axes = Figure().subplots()
    maze_axes(axes, maze)
    assert axes.images[0].origin == "lower"
    np.testing.assert_array_equal(axes.images[0].get_array(), maze.grid != 51)
    low, high = axes.get_ylim()
    assert (
        low < min(c.row for c in maze.free_cells()) < max(c.row for c in maze.free_cells()) < high
    )


def test_vector_fields_draws_both_and_their_difference(maze):
    before, after = field(maze, 0), field(maze, 5)
    figure = vector_fields(maze, before, after, names=("a", "b"))
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["a", "b", "difference"]
    for axes, expected in zip(panels, (before, after, after - before), strict=True):
        (arrows,) = [part for part in axes.collections if isinstance(part, Quiver)]
        cells = [Cell(int(y), int(x)) for x, y in arrows.XY]
        assert sorted(cells) == sorted(maze.free_cells())
        np.testing.assert_allclose(
            np.stack([arrows.V, arrows.U], 1), [expected[cell] for cell in cells]
        )
        assert marks(axes) == {
            "mouse": [[maze.mouse.column, maze.mouse.row]],
            "cheese": [[cell.column, cell.row] for cell in maze.cheese],
        }
    assert rendered(figure).startswith(b"\x89PNG")


def test_cell_heatmap_shares_a_scale_and_centres_the_difference(maze):
    first, second = values(maze, 0), values(maze, 1)
    figure = cell_heatmap(
        maze, {"before": first, "after": second}, label="reach", title="t", difference=True
    )
    drawn = {axes.get_title(): axes.images[-1] for axes in figure.axes if axes.get_title()}
    assert list(drawn) == ["before", "after", "after - before"]
    change = drawn["after - before"]
    np.testing.assert_array_equal(change.get_array().filled(np.nan), second - first)
    low, high = change.get_clim()
    assert low == -high == -np.nanmax(np.abs(second - first))
    np.testing.assert_allclose(change.cmap(change.norm(0.0))[:3], 1, atol=0.05)
    assert drawn["before"].get_clim() == drawn["after"].get_clim() == (0, 1)


def test_filter_maps_lie_over_the_observation(maze, observation):
    maps = {"+1.0": np.zeros((16, 16)), "-2.0": np.full((32, 32), -2.0)}
    maps["+1.0"][0, 0] = 1.0
    figure = filter_maps(maze, observation, maps)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == ["observation", "+1.0", "-2.0"]
    picture = panels["observation"].images[0]
    for name, given in maps.items():
        drawn = panels[name].images[-1]
        np.testing.assert_array_equal(drawn.get_array(), given)
        assert (drawn.get_extent(), drawn.origin) == (picture.get_extent(), picture.origin)
        assert drawn.get_clim() == (-2, 2)


def test_what_does_not_fit_the_maze_is_refused(maze, observation):
    good = field(maze, 0)
    with pytest.raises(ValueError, match=r"expected a field .* got \(3, 3, 2\)"):
        vector_fields(maze, good, np.zeros((3, 3, 2)))
    with pytest.raises(ValueError, match="uint8 observation"):
        vector_fields(maze, good, good, observation=observation.astype(float))
    with pytest.raises(ValueError, match="two panels for a difference"):
        cell_heatmap(maze, {"a": values(maze, 0)}, label="", title="", difference=True)
    with pytest.raises(ValueError, match="at least one panel"):
        cell_heatmap(maze, {}, label="", title="")
    with pytest.raises(ValueError, match="expected a of shape"):
        cell_heatmap(maze, {"a": np.zeros((2, 2))}, label="", title="")
    with pytest.raises(ValueError, match="at least one map"):
        filter_maps(maze, observation, {})
