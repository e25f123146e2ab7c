import numpy as np
import pytest

from rlbilinear.envs.games import NUM_LEVELS
from rlbilinear.envs.levels import (
    EVALUATION,
    FITTING,
    TRAINING,
    Levels,
    check_disjoint,
    generate_maze,
)
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.solver import top_right
from rlbilinear.envs.state import CHEESE, parse


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
@pytest.mark.parametrize("start", [0, 2**31 - 2000])
def test_generator_agrees_with_the_simulator(mode, start):
    simulator = Simulator("maze", 40, mode=mode, start_level=start, num_levels=1000, num_threads=0)
    states = [parse(raw) for raw in simulator.get_states()]
    simulator.close()
    assert len({state.episode.current_level_seed for state in states}) > 30
    for state in states:
        level = generate_maze(state.episode.current_level_seed, mode)
        np.testing.assert_array_equal(level.grid, state.grid)
        assert level.background == state.view.background_index
        assert level.maze_dim == state.tail.maze_dim
        assert state.entities["x"] == state.entities["y"] == level.margin + 0.5
        assert level.start == (level.margin, level.margin)
        assert level.corner == top_right(Maze.from_bytes(state.to_bytes()))
        assert level.grid[level.cheese] == CHEESE and (level.grid == CHEESE).sum() == 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_generator_agrees_with_the_simulator_on_many_levels(mode):
    """Random seeds of the whole range, a new level at each step; counts with `pytest -s`."""
    simulator = Simulator(
        "maze", 100, mode=mode, start_level=0, num_levels=NUM_LEVELS, seed=11, num_threads=0
    )
    seeds = set()
    while len(seeds) < 2000:
        for state in map(parse, simulator.get_states()):
            seed = state.episode.current_level_seed
            level = generate_maze(seed, mode)
            assert level.grid.tobytes() == state.grid.tobytes()
            assert level.background == state.view.background_index
            assert level.maze_dim == state.tail.maze_dim
            assert state.entities["x"] == state.entities["y"] == level.margin + 0.5
            seeds.add(seed)
        simulator.act(np.full(100, -1, np.int32))
    simulator.close()
    assert min(seeds) < 2**27 and max(seeds) > 2**31 - 2**27
    print(f"\n{mode}: {len(seeds)} of {len(seeds)} levels are the simulator's, bit for bit")


def test_generator_refuses_what_is_no_level():
    for seed in (-1, NUM_LEVELS, 3.0, "3", True, None):
        with pytest.raises(ValueError, match=r"level seeds are 0\.\.2147483646"):
            generate_maze(seed)
    with pytest.raises(ValueError, match="easy, hard, memory"):
        generate_maze(0, "extreme")


def test_named_sets_are_disjoint_and_cover_all_levels():
    sets = (EVALUATION, FITTING, TRAINING)
    check_disjoint(sets)
    assert sum(map(len, sets)) == NUM_LEVELS


def test_overlap_is_found():
    one, two = Levels(0, 10), Levels(10, 5)
    check_disjoint([one, two])
    assert not one.overlaps(two)
    assert 9 in one and 10 not in one and 10 in two
    assert np.int64(9) in one and 9.5 not in one and "9" not in one and True not in one
    with pytest.raises(ValueError, match="levels 0 to 9 and levels 9 to 13 overlap"):
        check_disjoint([one, Levels(9, 5)])


def test_choosing_levels():
    levels = Levels(100, 50)
    assert levels.first(3) == [100, 101, 102]
    sample = levels.sample(50, seed=1)
    assert sorted(sample) == levels.first(50) != sample
    assert levels.sample(5, seed=1) == sample[:5] != levels.sample(5, seed=2)
    assert list(levels.shuffled(seed=1)) == sample
    for wrong in (-1, 1.5, None):
        with pytest.raises(ValueError, match=f"integer from 0 on, got {wrong}"):
            levels.sample(5, wrong)
    for choose in (levels.first, lambda number: levels.sample(number, 0)):
        with pytest.raises(ValueError, match="51 of 50"):
            choose(51)


def test_numpys_numbers_become_pythons():
    levels = Levels(np.int32(NUM_LEVELS - 5), np.int32(5))
    assert levels == Levels(NUM_LEVELS - 5, 5) and type(levels.start) is type(levels.count) is int
    assert type(Maze.from_seed(np.int32(3)).level_seed) is int
    with pytest.raises(ValueError, match=r"1\.5 of 5"):
        levels.first(1.5)


@pytest.mark.parametrize(
    ("start", "count"),
    [
        (-1, 5),
        (0, 0),
        (NUM_LEVELS, 1),
        (0, 2**31),
        (0.0, 5),
        ("0", 5),
        (True, 5),
        (np.int32(NUM_LEVELS - 5), np.int32(6)),
    ],
)
def test_ranges_outside_are_refused(start, count):
    with pytest.raises(ValueError, match="range within"):
        Levels(start, count)
