import dataclasses

import numpy as np
import pytest

from envs.maze import Cell, Maze
from envs.render import cell_to_pixels, human_view, observe, pixel_to_cell, top_row_first
from envs.simulator import Simulator


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


@pytest.mark.parametrize(("mode", "world"), [("easy", 15), ("hard", 25)])
@pytest.mark.parametrize("pixels", [64, 512])
def test_cheese_is_drawn_in_its_cells_pixels(mode, world, pixels):
    def draw(maze):
        return observe([maze])[0].transpose(1, 2, 0) if pixels == 64 else human_view(maze)

    maze = Maze.from_seed(21, mode).with_cheese()
    empty = draw(maze).astype(int)
    for cell in maze.free_cells()[1::9]:
        changed = (draw(maze.with_cheese(cell)) != empty).any(-1)
        y, x = cell_to_pixels(cell, world, pixels)
        inside = changed[y, x].sum()
        assert inside >= 0.3 * changed[y, x].size  # cheese is round
        # The simulator draws cells 2 % too large, which may touch one pixel more on each side.
        assert inside >= 0.7 * changed.sum()
        changed[max(y.start - 1, 0) : y.stop + 1, max(x.start - 1, 0) : x.stop + 1] = False
        assert not changed.any()


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
