"""Datasets and pairs from the real simulator: labels and pictures are of the same states."""

import time

import numpy as np
import pytest

from rlbilinear.agents import Agent
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.pairs import NO_MOVE
from rlbilinear.envs.render import observe
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.solver import shortest_path
from rlbilinear.envs.state import CHEESE, SPACE
from rlbilinear.probes.concepts import CONCEPTS, concept
from rlbilinear.probes.dataset import collect, counterfactual_pairs, label

LEVELS = [3, 5, 8, 13, 21]
LAYERS = ["block2", "dense"]


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact", seed=0, channels=4, blocks=(2, 1), features=8)


@pytest.fixture(scope="module")
def data(agent):
    return collect(agent, LEVELS, LAYERS, CONCEPTS.values(), states_per_level=6, seed=1)


def test_each_level_has_its_states(data):
    assert len(data) == 30
    assert {level: (data.levels == level).sum() for level in LEVELS} == dict.fromkeys(LEVELS, 6)
    assert [maze.level_seed for maze in data.mazes] == data.levels.tolist()
    for maze, level in zip(data.mazes, data.levels, strict=True):
        walls = Maze.from_seed(int(level)).grid
        np.testing.assert_array_equal(
            np.where(maze.grid == CHEESE, SPACE, maze.grid), np.where(walls == CHEESE, SPACE, walls)
        )


def test_observations_activations_and_labels_are_of_the_same_states(agent, data):
    np.testing.assert_array_equal(data.observations, observe(data.mazes))
    assert data.observations.dtype == np.uint8
    outputs = agent.activations(data.observations, LAYERS)
    for name, activations in data.activations.items():
        assert activations.dtype == np.float32
        np.testing.assert_allclose(activations, outputs[name].numpy(), atol=1e-5)
    for name, labels in data.labels.items():
        np.testing.assert_array_equal(labels, concept(name).labels(data.mazes))


def test_visited_states_can_be_walked_to(agent):
    data = collect(agent, LEVELS, [], [], states_per_level=20, edited=0, seed=2)
    distances = []
    for maze, level in zip(data.mazes, data.levels, strict=True):
        start = Maze.from_seed(int(level))
        assert maze.cheese == start.cheese
        distances.append(len(shortest_path(maze, start.mouse, maze.mouse)) - 1)
    assert 0 < max(distances) <= 32
    assert len(set(data.mazes)) > len(LEVELS)


def test_play_that_ends_stays_on_its_level(agent):
    """A level that even chance solves in a few steps: most of play is after a first ending."""
    small = [seed for seed in range(200) if Maze.from_seed(seed).maze_dim == 3][:4]
    data = collect(agent, small, [], [], states_per_level=32, edited=0, seed=0)
    assert [maze.level_seed for maze in data.mazes] == np.repeat(small, 32).tolist()
    for maze, level in zip(data.mazes, data.levels, strict=True):
        np.testing.assert_array_equal(maze.grid, Maze.from_seed(int(level)).grid)
        assert maze.mouse not in maze.cheese


def test_edited_states_move_mouse_and_cheese(agent):
    data = collect(agent, LEVELS, [], [], states_per_level=40, edited=1, seed=2)
    starts = {level: Maze.from_seed(level) for level in LEVELS}
    cheese = [maze.cheese for maze in data.mazes]
    own = [starts[int(level)].cheese for level in data.levels]
    absent = np.mean([not cells for cells in cheese])
    kept = np.mean([a == b for a, b in zip(cheese, own, strict=True)])
    assert 0.15 < absent < 0.35
    assert 0.15 < kept < 0.40
    assert all(maze.mouse not in maze.cheese for maze in data.mazes)
    assert {maze.facing for maze in data.mazes} == {"left", "right"}
    for level in LEVELS:
        mice = {m.mouse for m, at in zip(data.mazes, data.levels, strict=True) if at == level}
        assert len(mice) > min(5, len(starts[level].free_cells()) // 3)


def test_the_seed_decides(agent, data):
    again = collect(agent, LEVELS, LAYERS, CONCEPTS.values(), states_per_level=6, seed=1)
    assert again.mazes == data.mazes
    np.testing.assert_array_equal(again.activations["dense"], data.activations["dense"])
    other = collect(agent, LEVELS, LAYERS, CONCEPTS.values(), states_per_level=6, seed=2)
    assert other.mazes != data.mazes


def test_split_keeps_levels_whole(data):
    inside, outside = data.split([5, 21])
    assert (len(inside), len(outside)) == (12, 18)
    assert set(inside.levels) == {5, 21}
    assert not set(inside.levels) & set(outside.levels)
    assert [maze.level_seed for maze in inside.mazes] == inside.levels.tolist()
    np.testing.assert_array_equal(inside.observations, observe(inside.mazes))
    np.testing.assert_array_equal(
        inside.labels["mouse_position"], concept("mouse_position").labels(inside.mazes)
    )
    with pytest.raises(ValueError, match=r"no states of the levels \[4\]"):
        data.split([4, 5])


def test_another_agent_sees_the_same_states(agent, data):
    other = Agent.new("bimpala-compact", seed=1, channels=4, blocks=(2, 1), features=8)
    seen = data.seen_by(other)
    assert seen.mazes == data.mazes
    expected = other.activations(data.observations, ["block2"])["block2"].numpy()
    np.testing.assert_allclose(seen.activations["block2"], expected, atol=1e-5)
    assert np.abs(seen.activations["block2"] - data.activations["block2"]).max() > 1e-3


@pytest.mark.parametrize("source", ["moved", "absent"])
@pytest.mark.parametrize("moves_differ", [True, False])
def test_pairs_differ_in_the_cheese_alone(source, moves_differ):
    pairs = counterfactual_pairs(
        LEVELS, pairs_per_level=6, source=source, moves_differ=moves_differ, seed=1
    )
    assert len(pairs) == 30 and pairs.levels.tolist() == np.repeat(LEVELS, 6).tolist()
    for base, other, level in zip(pairs.base.mazes, pairs.source.mazes, pairs.levels, strict=True):
        assert base.cheese == Maze.from_seed(int(level)).cheese
        assert base != other and other.with_cheese(*base.cheese) == base
        assert len(other.cheese) == (source == "moved")
        assert base.mouse not in (*base.cheese, *other.cheese)
    for side in (pairs.base, pairs.source):
        np.testing.assert_array_equal(side.observations, observe(side.mazes))
    differ = pairs.base.moves != pairs.source.moves
    assert differ.all() if moves_differ or source == "absent" else not differ.all()
    assert (pairs.source.moves == NO_MOVE).all() == (source == "absent")


def test_the_experts_moves_lead_to_the_cheese_in_the_simulator():
    pairs = counterfactual_pairs(LEVELS, pairs_per_level=4, seed=3)
    action = np.array([1, 3, 5, 7])  # left, down, up, right
    for side in (pairs.base, pairs.source):
        simulator = Simulator("maze", len(pairs), num_threads=0)
        simulator.set_states([maze.to_bytes() for maze in side.mazes])
        simulator.observe()
        simulator.act(action[side.moves].astype(np.int32))
        paid = simulator.observe().rewards.copy()
        after = [Maze.from_bytes(raw) for raw in simulator.get_states()]
        simulator.close()
        for maze, then, reward in zip(side.mazes, after, paid, strict=True):
            (cheese,) = maze.cheese
            before = len(shortest_path(maze, maze.mouse, cheese))
            assert reward == 10 or len(shortest_path(maze, then.mouse, cheese)) == before - 1


def test_a_thousand_pairs_in_seconds():
    started = time.process_time()
    assert len(counterfactual_pairs(range(250), pairs_per_level=4)) == 1000
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda agent: collect(agent, [1, 1], [], []), "listed twice"),
        (lambda agent: collect(agent, [], [], []), "list of level seeds"),
        (lambda agent: collect(agent, [0.5], [], []), "list of level seeds"),
        (lambda agent: collect(agent, [1], [], [], edited=2), r"edited in 0\.\.1"),
        (lambda agent: collect(agent, [1], [], [], states_per_level=100), "at most 32 visited"),
        (lambda agent: collect(agent, [1], ["blok"], []), "unknown layer 'blok'.*block1"),
        (lambda agent: label(agent, [], np.array([]), [], []), "a level for each state"),
        (lambda agent: counterfactual_pairs([1], source="none"), "choose from moved, absent"),
        (lambda agent: counterfactual_pairs([1], pairs_per_level=0), "at least 1"),
    ],
)
def test_bad_input_says_what_is_accepted(agent, call, message):
    with pytest.raises(ValueError, match=message):
        call(agent)
