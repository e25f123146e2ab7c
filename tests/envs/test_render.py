import dataclasses
import math

import numpy as np
import pytest

from rlbilinear.envs.games import GAMES
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.render import (
    agent_view,
    cell_centre,
    cell_to_pixels,
    human_view,
    observe,
    pixel_to_cell,
    top_row_first,
    window,
)
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import SPACE, parse


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_observations_are_those_of_play(mode):
    simulator = Simulator("maze", 16, mode=mode, num_threads=0, seed=2)
    random = np.random.default_rng(0)
    for _ in range(20):
        simulator.act(random.integers(15, size=16))
        images = simulator.observe().images
    seen = observe([Maze.from_bytes(raw) for raw in simulator.get_states()])
    assert seen.shape == (16, 3, 64, 64) and seen.dtype == np.uint8
    np.testing.assert_array_equal(seen, images.transpose(0, 3, 1, 2))
    simulator.close()


def test_a_maze_is_drawn_with_the_switches_it_was_read_with():
    simulator = Simulator("maze", num_threads=0, use_backgrounds=False)
    maze = Maze.from_bytes(simulator.get_states()[0])
    images = simulator.observe().images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(observe([maze]), images)
    assert (observe([Maze.from_seed(maze.level_seed)]) != images).any()
    simulator.close()


def test_sizes_and_modes_may_be_mixed():
    mazes = [Maze.from_seed(4), Maze.from_seed(4, "memory"), Maze.from_seed(4, "hard")]
    together = observe(mazes)
    for one, maze in zip(together, mazes, strict=True):
        np.testing.assert_array_equal(one, observe([maze])[0])
    assert observe([]).shape == (0, 3, 64, 64)


def test_a_maze_put_together_wrongly_never_reaches_the_simulator():
    with pytest.raises(ValueError, match="background 77"):
        observe([dataclasses.replace(Maze.from_seed(4), background=77)])


VIEWS = {64: agent_view, 512: human_view}
WORLDS = [*((mode, size) for mode in ("easy", "hard") for size in (3, 8, 13, 31)), ("memory", 31)]


def hall(mode, size, mouse):
    """Return a world without a wall, drawn without a floor."""
    maze = Maze.from_array(np.full((size, size), SPACE), mouse, mode=mode)
    state = parse(maze.to_bytes())
    options = state.options._replace(use_backgrounds=0)
    return Maze.from_bytes(state._replace(options=options).to_bytes())


def some_cells(size, *others):
    cells = [Cell(0, 0), Cell(0, size - 1), Cell(size - 1, size // 2), Cell(size // 2, 1)]
    return [cell for cell in cells if cell not in others]


def grown(y, x, by):
    return slice(max(y.start - by, 0), y.stop + by), slice(max(x.start - by, 0), x.stop + by)


@pytest.mark.parametrize(("mode", "size"), WORLDS)
@pytest.mark.parametrize("pixels", VIEWS)
def test_what_is_in_a_cell_changes_its_pixels_and_no_others(mode, size, pixels):
    draw = VIEWS[pixels]
    for mouse in (Cell(size // 2, size // 2), Cell(size - 2, 0)):
        maze = hall(mode, size, mouse)
        empty = draw(maze).astype(int)
        around = [(-4, 4), (4, -4), (3, 0), (0, -2), (5, 0), (-1, 1)]
        near = [Cell(mouse.row + up, mouse.column + right) for up, right in around]
        inside = [cell for cell in near if min(cell) >= 0 and max(cell) < size]
        for cell in [*some_cells(size, mouse), *inside]:
            rectangle = cell_to_pixels(cell, maze, pixels)
            cheese = (draw(maze.with_cheese(cell)) != empty).any(-1)
            wall = (draw(maze.with_wall(cell)) != empty).any(-1)
            shown = cheese[rectangle].size * (window(maze).side / pixels) ** 2  # 1: all of it
            if shown > 0.7:
                assert cheese[rectangle].mean() > 0.3  # cheese is round
            cheese[rectangle] = False
            assert not cheese.any()
            assert wall[rectangle].all()  # to the last pixel
            # The simulator draws walls 2 % too large on each side, and smooths the human view.
            more = 0.02 * pixels / window(maze).side + (pixels == 512)
            wall[grown(*rectangle, math.ceil(more))] = False
            assert not wall.any() if shown else not wall[1:-1, 1:-1].any()


@pytest.mark.parametrize(("mode", "size"), WORLDS[:-1])
@pytest.mark.parametrize("pixels", VIEWS)
def test_the_mouse_changes_the_pixels_of_its_cells_and_no_others(mode, size, pixels):
    draw, first = VIEWS[pixels], Cell(size // 2, size // 2)
    maze = hall(mode, size, first)
    before = draw(maze)
    smooth = 1 if pixels == 512 and 512 % size else 0  # edges between pixels, smoothed
    for cell in some_cells(size, first):
        changed = (draw(maze.with_mouse(cell)) != before).any(-1)
        for own in (first, cell):
            rectangle = cell_to_pixels(own, maze, pixels)
            assert changed[rectangle].mean() > 0.1
            changed[grown(*rectangle, smooth)] = False
        assert not changed.any()


@pytest.mark.parametrize("pixels", VIEWS)
def test_memory_mode_keeps_the_mouse_in_the_middle(pixels):
    for mouse in (Cell(0, 0), Cell(30, 17)):
        maze = hall("memory", 31, mouse).with_wall(Cell(15, 15))
        middle = slice(pixels * 7 // 16, pixels * 9 // 16)
        assert cell_to_pixels(mouse, maze, pixels) == (middle, middle)
        turned = VIEWS[pixels](maze) != VIEWS[pixels](maze.with_facing("right"))
        assert turned[middle, middle].any()
        turned[middle, middle] = False
        assert not turned.any()
        hidden, _ = cell_to_pixels(Cell(15, 15), maze)
        assert hidden.start == hidden.stop
    with pytest.raises(ValueError, match="outside of the 31x31 world"):
        pixel_to_cell(0, 0, maze)


@pytest.mark.parametrize("size", range(3, 65))
def test_cells_of_every_world_part_the_picture(size):
    for pixels in VIEWS:
        for index in range(size):
            y, x = cell_to_pixels(Cell(index, size - 1 - index), size, pixels)
            for at in ((y.start, x.start), (y.stop - 1, x.stop - 1)):
                assert pixel_to_cell(*at, size, pixels) == Cell(index, size - 1 - index)
            middle = cell_centre(Cell(index, size - 1 - index), size, pixels)
            for part, centre in zip((y, x), middle, strict=True):
                assert abs((part.start + part.stop) / 2 - centre) <= 0.5


@pytest.mark.parametrize("pixels", VIEWS)
@pytest.mark.parametrize("mouse", [Cell(15, 15), Cell(0, 0), Cell(30, 2)])
def test_the_window_of_memory_mode_is_parted_by_cells(mouse, pixels):
    maze = hall("memory", 31, mouse)
    owner = np.zeros((pixels, pixels), int)
    for cell in maze.free_cells():
        y, x = cell_to_pixels(cell, maze, pixels)
        owner[y, x] += 1
        if owner[y, x].size:
            assert pixel_to_cell(y.start, x.start, maze, pixels) == cell
            assert pixel_to_cell(y.stop - 1, x.stop - 1, maze, pixels) == cell
    in_world = np.zeros((pixels, pixels), int)
    for y in range(pixels // 16, pixels, pixels // 8):
        for x in range(pixels // 16, pixels, pixels // 8):
            try:
                pixel_to_cell(y, x, maze, pixels)
                in_world[y, x] = 1
            except ValueError:
                assert owner[y, x] == 0
    assert owner.max() == 1 and (owner[in_world == 1] == 1).all()


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_a_state_and_its_maze_show_the_same_window(mode):
    simulator = Simulator("maze", 4, mode=mode, num_threads=0, seed=2)
    for _ in range(12):
        simulator.act(np.random.default_rng(0).integers(9, size=4))
        simulator.observe()
    for raw in simulator.get_states():
        assert window(parse(raw)) == window(Maze.from_bytes(raw))
    simulator.close()


@pytest.mark.parametrize(
    ("game", "mode"), [(game, mode) for game, modes in GAMES.items() for mode in modes]
)
def test_the_window_of_every_game_is_what_the_simulator_drew(game, mode):
    simulator = Simulator(game, mode=mode, num_threads=0, seed=3)
    random = np.random.default_rng(0)
    for _ in range(15):
        simulator.act(random.integers(15, size=1))
        simulator.observe()
    (raw,) = simulator.get_states()
    state, part = parse(raw), window(parse(raw))
    drawn = state.world  # where and how large the simulator drew the world last
    assert part.side == pytest.approx(drawn.view_dim, rel=1e-6)
    assert part.left == pytest.approx(drawn.x_off / drawn.unit, abs=1e-4)
    assert part.bottom == pytest.approx(drawn.y_off / drawn.unit, abs=1e-4)
    np.testing.assert_array_equal(agent_view(raw), simulator.observe().images[0])
    simulator.close()


@pytest.mark.parametrize(("game", "mode"), [("coinrun", "easy"), ("heist", "memory")])
def test_both_views_of_any_state(game, mode):
    simulator = Simulator(game, mode=mode, num_threads=0, human_view=True, seed=3)
    simulator.act(np.array([7]))
    frame = simulator.observe()
    (raw,) = simulator.get_states()
    np.testing.assert_array_equal(agent_view(raw), frame.images[0])
    np.testing.assert_array_equal(human_view(raw), simulator.info("rgb")[0])
    for view in VIEWS.values():
        with pytest.raises(ValueError, match="state"):
            view(raw[:-5])
    simulator.close()


def test_views_of_a_maze_and_of_its_bytes_are_the_same():
    maze = Maze.from_seed(9, "memory")
    np.testing.assert_array_equal(agent_view(maze), observe([maze])[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(agent_view(maze), agent_view(maze.to_bytes()))
    np.testing.assert_array_equal(human_view(maze), human_view(maze.to_bytes()))


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
@pytest.mark.parametrize("pixels", VIEWS)
def test_a_gem_changes_the_pixels_of_its_cell(mode, pixels):
    draw = VIEWS[pixels]
    level = Heist.from_seed(4, mode)
    empty = level.with_gem()
    for agent in (level.agent, empty.free_cells()[-1]):
        there = empty.with_agent(agent)
        before, found = draw(there), 0
        for cell in there.free_cells()[::3]:
            rectangle = cell_to_pixels(cell, there, pixels)
            changed = (draw(there.with_gem(cell)) != before).any(-1)
            found += changed[rectangle].mean() > 0.2 if changed[rectangle].size else 0
            changed[grown(*rectangle, 1)] = False  # edges between pixels
            assert not changed.any()
        assert found > 2


@pytest.mark.parametrize(("world", "pixels"), [(15, 64), (25, 64), (9, 64), (15, 512), (64, 64)])
def test_cells_part_the_picture(world, pixels):
    owner = np.zeros((pixels, pixels), int)
    for row in range(world):
        for column in range(world):
            cell = Cell(row, column)
            owner[cell_to_pixels(cell, world, pixels)] += 1
            y, x = cell_to_pixels(cell, world, pixels)
            for corner in ((y.start, x.start), (y.stop - 1, x.stop - 1)):
                assert pixel_to_cell(*corner, world, pixels) == cell
    assert (owner == 1).all()


def test_row_zero_is_at_the_bottom():
    y, x = cell_to_pixels(Cell(0, 0), 16)
    assert (y, x) == (slice(60, 64), slice(0, 4))
    assert pixel_to_cell(0, 63, 16) == Cell(15, 15)
    np.testing.assert_array_equal(top_row_first(np.arange(4).reshape(2, 2)), [[2, 3], [0, 1]])


def test_outside_is_refused():
    with pytest.raises(ValueError, match="outside of the 15x15 world"):
        cell_to_pixels(Cell(15, 0), 15)
    with pytest.raises(ValueError, match="outside of the 64x64 picture"):
        pixel_to_cell(64, 0, 15)
    with pytest.raises(ValueError, match="expected a Maze, Heist, State, Window or"):
        window("easy")
    with pytest.raises(ValueError, match="or the side of a world, got True"):
        window(True)
    assert window(np.int64(15)) == window(15)
