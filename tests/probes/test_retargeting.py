import numpy as np
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import steer
from rlbilinear.envs import (
    ACTIONS_OF_MOVE,
    Maze,
    Move,
    distances,
    observe,
    shortest_path,
    top_right,
)
from rlbilinear.probes.behaviour import field, follow
from rlbilinear.probes.retargeting import cheese_maps, move_cheese, retarget
from rlbilinear.probes.subspaces import component, random_subspace


@pytest.fixture(scope="module")
def agent():
    small = Agent.new("bimpala-compact", seed=1, channels=4, blocks=(1, 1), features=8)
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 15)
    torch.nn.init.normal_(head.weight, std=3.0)
    with torch.no_grad():  # so that every move but staying is the most likely somewhere
        head.bias[list(ACTIONS_OF_MOVE[Move.STAY])] = -100.0
    return small.with_layer("action_net", head)


def bias(maze, target):
    generator = torch.Generator().manual_seed(100 * target.row + target.column)
    return torch.randn(4, 16, 16, generator=generator)


def exits(maze):
    return (distances(maze, maze.mouse) == 1).sum()


def test_a_sweep_equals_an_edited_agent_for_every_target(agent):
    maze = Maze.from_seed(5)  # a small one
    maze = max((maze.with_mouse(cell) for cell in maze.free_cells()), key=exits)
    table = retarget(agent, "pool1", [maze], bias, batch=64)
    targets = [cell for cell in maze.free_cells() if cell != maze.mouse]
    assert len(table) == len(targets) < 60
    for row, target in zip(table.itertuples(), targets, strict=True):
        edited = field(steer(agent, "pool1", bias(maze, target)), maze)
        way = follow(edited, maze.mouse, target)
        assert (row.row, row.column, row.distance) == (*target, way.distance)
        assert row.first_step == pytest.approx(way.first_step, abs=1e-5)
        assert row.reach == pytest.approx(way.reach, abs=1e-5)
        assert row.sent == way.sent
    assert table["sent"].any() and not table["sent"].all()
    assert table["reach"].nunique() > 5


def test_mazes_are_told_apart_and_cheese_ends_the_way(agent):
    small, large = (Maze.from_seed(seed) for seed in (5, 3))
    on_the_way = shortest_path(large, large.mouse, top_right(large))[2]
    mazes = [small, large.with_cheese(on_the_way)]
    table = retarget(agent, "pool1", mazes, None)
    zero = retarget(agent, "pool1", mazes, lambda maze, target: torch.zeros(4, 16, 16))
    assert table["sent"].equals(zero["sent"])
    assert np.allclose(table["reach"], zero["reach"], atol=1e-5)
    assert table.groupby("maze")["level"].unique().map(list).tolist() == [[5], [3]]
    counts = [len(maze.free_cells()) - 1 for maze in mazes]
    assert table.groupby("maze").size().tolist() == counts
    assert table["ends"].sum() > 5
    assert not table.loc[table["ends"], "reach"].any()
    plain = field(agent, mazes[1])
    expected = [follow(plain, mazes[1].mouse, c).reach for c in mazes[1].free_cells()[1:]]
    assert np.allclose(table.loc[table["maze"] == 1, "reach"], expected, atol=1e-5)


def test_a_bias_of_another_shape_is_refused(agent):
    with pytest.raises(ValueError, match="does not fit"):
        retarget(agent, "pool1", [Maze.from_seed(5)], lambda *_: torch.zeros(5, 16, 16))


def test_a_planted_cheese_is_the_real_one_where_that_is_linear(agent):
    """On the maze it was measured on, and at a linear layer, moving it equals seeing it moved."""
    maze = Maze.from_seed(5)
    maps = cheese_maps(agent, "stem", [maze])
    assert set(maps) == set(maze.free_cells()) - {maze.mouse}
    bias = move_cheese(maps)
    for target in list(maps)[::7]:
        steered = steer(agent, "stem", bias(maze, target)).logits(observe([maze]))
        moved = agent.logits(observe([maze.with_cheese(target)]))
        assert torch.allclose(steered, moved, atol=1e-3, rtol=1e-4)
    twice = move_cheese(maps, gain=2.0)(maze, target)
    assert torch.allclose(twice, 2 * bias(maze, target))


def test_cheese_maps_are_means_over_mazes_in_the_subspace(agent):
    mazes = [Maze.from_seed(seed) for seed in (3, 8, 13)]
    cell = min(set.intersection(*({*m.free_cells()} - {m.mouse} for m in mazes)))
    basis = random_subspace(4, 2, seed=0)
    found = cheese_maps(agent, "block1", mazes, basis)[cell]
    differences = [
        agent.activations(observe([m.with_cheese(cell), m.with_cheese()]), ["block1"])["block1"]
        for m in mazes
    ]
    mean = torch.stack([with_ - without for with_, without in differences]).mean(0)
    assert torch.allclose(found, component(mean[None], basis)[0], atol=1e-5)
    first = cheese_maps(agent, "block1", mazes, per_cell=1, seed=1)
    assert first[cell].shape == found.shape and not torch.allclose(first[cell], found, atol=1e-4)


def test_a_cell_without_a_map_is_named(agent):
    maze = Maze.from_seed(5)
    bias = move_cheese({maze.cheese[0]: torch.zeros(4, 16, 16)})
    with pytest.raises(ValueError, match=r"no map was measured for \[Cell"):
        bias(maze, maze.mouse)
