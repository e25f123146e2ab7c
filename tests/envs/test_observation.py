"""Batches of observations against the simulator set to each state, one by one."""

import dataclasses

import numpy as np
import pytest

from rlbilinear.envs.grid import Cell, cells_of
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_things import Colour
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.observation import observe, placements
from rlbilinear.envs.render import human_view
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import WALL, parse


def one_by_one(game, levels):
    simulator = Simulator(game, num_threads=0)
    images = []
    for level in levels:
        simulator.set_unchecked(0, level.to_bytes())
        images.append(simulator.observe().images[0].transpose(2, 0, 1).copy())
    simulator.close()
    return np.stack(images)


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_all_cells_of_a_maze(mode):
    maze = Maze.from_seed(6, mode)
    everywhere = placements(maze)
    assert [m.mouse for m in everywhere] == list(maze.free_cells())
    np.testing.assert_array_equal(observe(everywhere), one_by_one("maze", everywhere))


@pytest.mark.parametrize("mode", ["easy", "memory"])
def test_all_cells_of_a_heist(mode):
    heist = Heist.from_seed(2, mode).with_held_key(Colour.RED)
    everywhere = placements(heist)
    assert [h.agent for h in everywhere] == list(heist.free_cells())
    np.testing.assert_array_equal(observe(everywhere), one_by_one("heist", everywhere))


def test_every_difference_between_neighbours_is_seen():
    """What is written once for mazes that share all but the mouse must not be kept for others."""
    maze = Maze.from_seed(6)
    cells = maze.free_cells()
    row = [
        maze,
        maze.with_mouse(cells[3]),
        maze.with_mouse(cells[3]).with_facing("right"),
        maze.with_mouse(cells[3]).with_background(5),
        maze.with_cheese(cells[9]).with_mouse(cells[5]),
        maze.with_cheese().with_mouse(cells[5]),
        maze.with_wall(cells[8]).with_mouse(cells[6]),
        Maze.from_seed(7).with_mouse(Maze.from_seed(7).free_cells()[1]),
        Maze.from_seed(6, "memory"),
        maze.with_mouse(cells[4]),
    ]
    simulator = Simulator("maze", num_threads=0, use_backgrounds=False)
    row.append(Maze.from_bytes(simulator.get_states()[0]))
    simulator.close()
    row.append(row[-1].with_mouse(row[-1].free_cells()[2]))
    np.testing.assert_array_equal(observe(row), one_by_one("maze", row))


def test_games_may_be_mixed_and_the_moving_agent_is_where_it_is():
    simulator = Simulator("heist", 6, num_threads=0, seed=4)
    random = np.random.default_rng(1)
    for _ in range(25):
        simulator.act(random.integers(9, size=6))
        images = simulator.observe().images.transpose(0, 3, 1, 2)
    heists = [Heist.from_bytes(raw) for raw in simulator.get_states()]
    mixed = [value for heist in heists for value in (heist, Maze.from_seed(1))]
    seen = observe(mixed)
    np.testing.assert_array_equal(seen[::2], images)
    np.testing.assert_array_equal(seen[1::2], np.repeat(observe([Maze.from_seed(1)]), 6, 0))
    simulator.close()


def test_what_is_refused():
    maze = Maze.from_seed(6)
    with pytest.raises(ValueError, match="is a wall"):
        placements(maze, [cells_of(maze.grid == WALL)[0]])
    outside = dataclasses.replace(maze, mouse=Cell(3, 99))
    for row in ([outside], [maze, outside]):
        with pytest.raises(ValueError, match=r"a mouse .*outside"):
            observe(row)
    with pytest.raises(ValueError, match="expected a Maze or a Heist, got bytes"):
        observe([maze.to_bytes()])
    with pytest.raises(ValueError, match="expected a Maze or a Heist, got int"):
        observe(range(3))
    for wrong in (maze, 3):
        with pytest.raises(ValueError, match="states are several mazes or heists, got"):
            observe(wrong)
    for wrong in (3, maze.to_bytes(), [maze]):
        with pytest.raises(ValueError, match="expected a Maze or a Heist, got"):
            placements(wrong)
    heist = Heist.from_seed(2)
    with pytest.raises(ValueError, match="the level has 0 colours"):
        observe([dataclasses.replace(heist, has_keys=())])


def test_bytes_that_the_simulator_would_die_of_are_not_drawn():
    """Reading a maze or heist checks less than `set_states` does; drawing must be as safe."""
    state = parse(Maze.from_seed(6).to_bytes())
    options = state.options._replace(use_generated_assets=1)
    maze = Maze.from_bytes(state._replace(options=options).to_bytes())
    for draw in (lambda: observe([maze]), lambda: human_view(maze)):
        with pytest.raises(ValueError, match="no generated assets"):
            draw()
    state = parse(Heist.from_seed(2).to_bytes())
    view = state.view._replace(background_index=10**6)
    with pytest.raises(ValueError, match="background 1000000"):
        Heist.from_bytes(state._replace(view=view).to_bytes())
    for index in range(len(state.entities)):
        for name, value in (("image_type", 99), ("image_type", -5), ("image_theme", 99)):
            entities = state.entities.copy()
            entities[name][index] = value
            with pytest.raises(ValueError, match=r"of picture|of colour 99"):
                Heist.from_bytes(state._replace(entities=entities).to_bytes())


def test_an_iterator_will_do():
    mazes = [Maze.from_seed(seed) for seed in (1, 2)]
    np.testing.assert_array_equal(observe(iter(mazes)), observe(mazes))
    assert observe([]).shape == (0, 3, 64, 64)
