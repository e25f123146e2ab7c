"""Labels, and cells on feature maps against counting pixels."""

import numpy as np
import pytest

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.probes.concepts import CONCEPTS, concept, overlap, to_cells


@pytest.fixture(scope="module")
def maze():
    return Maze.from_seed(3)


def repeat(array, times):
    """Draw each value as a square of times x times pixels."""
    return np.kron(array, np.ones((times, times)))


def count_pixels(cells, size):
    """Fractions by drawing everything on a fine picture, top row first."""
    world = cells.shape[0]
    picture = repeat(cells[::-1], size)
    return picture.reshape(size, world, size, world).mean((1, 3))


@pytest.mark.parametrize(("world", "size"), [(15, 16), (15, 8), (15, 32), (9, 4), (16, 16), (3, 7)])
def test_overlap_counts_pixels(world, size):
    cells = (np.random.default_rng(0).random((world, world)) < 0.1).astype(np.float32)
    np.testing.assert_allclose(overlap(cells, (size, size)), count_pixels(cells, size), atol=1e-6)


@pytest.mark.parametrize(("world", "size"), [(15, 16), (15, 8), (9, 16), (5, 5)])
def test_to_cells_counts_pixels(world, size):
    maps = np.random.default_rng(0).random((size, size))
    picture = repeat(maps, world)
    counted = picture.reshape(world, size, world, size).mean((1, 3))[::-1]
    np.testing.assert_allclose(to_cells(maps, world), counted, atol=1e-6)


def test_a_cell_lies_on_up_to_four_pixels():
    cells = np.zeros((1, 15, 15), np.float32)
    cells[0, 0, 0] = 1  # bottom left
    corner = overlap(cells, (16, 16))[0]
    assert np.argwhere(corner > 0).tolist() == [[14, 0], [14, 1], [15, 0], [15, 1]]
    np.testing.assert_allclose(corner[15, 0], 1, atol=1e-6)
    np.testing.assert_allclose(corner.sum(), (16 / 15) ** 2, rtol=1e-6)


def test_height_and_width_may_differ():
    cells = np.zeros((4, 4), np.float32)
    cells[3] = 1  # the top row
    np.testing.assert_allclose(overlap(cells, (2, 8)), [[0.5] * 8, [0] * 8])


@pytest.mark.parametrize("world", [1, 2, 9, 15, 25])
@pytest.mark.parametrize("size", [1, 4, 9, 26, 32])
def test_both_ways_keep_constants_and_are_adjoint(world, size):
    rng = np.random.default_rng(world * 100 + size)
    cells, maps = rng.standard_normal((world, world)), rng.standard_normal((size, size))
    np.testing.assert_allclose(overlap(np.ones((world, world)), (size, size)), 1, atol=1e-5)
    np.testing.assert_allclose(to_cells(np.ones((size, size)), world), 1, atol=1e-5)
    np.testing.assert_allclose(
        (overlap(cells, (size, size)) * maps).mean(),
        (cells * to_cells(maps, world)).mean(),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["cheese", "mouse"])
def test_presence_and_position_name_the_same_cell(maze, name):
    cell = maze.mouse if name == "mouse" else maze.cheese[0]
    presence = concept(f"{name}_presence").label(maze)
    assert np.argwhere(presence).tolist() == [[cell.row, cell.column]]
    assert presence.shape == maze.grid.shape
    np.testing.assert_array_equal(concept(f"{name}_position").label(maze), [cell.row, cell.column])


def test_several_cheeses_and_none(maze):
    free = [cell for cell in maze.free_cells() if cell != maze.mouse][:2]
    two, none = maze.with_cheese(*free), maze.with_cheese()
    assert {Cell(*rc) for rc in np.argwhere(concept("cheese_presence").label(two))} == set(free)
    assert not concept("cheese_presence").label(none).any()
    assert np.isnan(concept("cheese_position").label(none)).all()
    with pytest.raises(ValueError, match="this maze has 2"):
        concept("cheese_position").label(two)


def test_labels_stack(maze):
    mazes = [maze, maze.with_cheese()]
    for each in CONCEPTS.values():
        labels = each.labels(mazes)
        assert labels.shape == (2, *maze.grid.shape) if each.kind == "presence" else (2, 2)


def test_bad_input_lists_the_choices():
    with pytest.raises(ValueError, match=r"'chese'.*cheese_presence, cheese_position"):
        concept("chese")
    with pytest.raises(ValueError, match="positive"):
        overlap(np.ones((15, 15)), (0, 16))
    with pytest.raises(ValueError, match=r"height, width"):
        to_cells(np.ones(3), 15)
