import numpy as np
import pytest

from rlbilinear.agents.expert import ExpertMazes
from rlbilinear.envs import ACTIONS_OF_MOVE, TRAINING, Levels, Maze, Move, shortest_path

FEW = Levels(TRAINING.start, 6)


@pytest.fixture
def make():
    made = []

    def factory(num_envs=8, levels=TRAINING, seed=3, **options):
        made.append(ExpertMazes(num_envs, levels, seed, **options))
        return made[-1]

    yield factory
    for mazes in made:
        mazes.close()


def states(mazes):
    return [Maze.from_bytes(raw) for raw in mazes._env.get_states()]


def step(mazes, actions):
    mazes.step_async(np.asarray(actions))
    mazes.step_wait()


def expert_actions(mazes):
    return np.array([ACTIONS_OF_MOVE[Move(move)][0] for move in mazes.moves])


def check(mazes):
    """Compare all that is tracked with the simulator's own bytes, and what it draws."""
    for index, maze in enumerate(states(mazes)):
        path = shortest_path(maze, maze.mouse, maze.cheese[0])
        row, column = path[1].row - path[0].row, path[1].column - path[0].column
        move = {(0, -1): Move.LEFT, (-1, 0): Move.DOWN, (1, 0): Move.UP, (0, 1): Move.RIGHT}
        assert tuple(mazes._mouse[index]) == maze.mouse
        assert mazes.moves[index] == move[row, column]
        assert mazes.steps_to_go[index] == len(path) - 1
    assert np.array_equal(mazes.observations, mazes._env.observe())


@pytest.mark.parametrize("mode", ["easy", "hard"])
def test_labels_are_those_of_the_simulators_states(make, mode):
    mazes = make(mode=mode, new_level=0.05)
    random = np.random.default_rng(0)
    seeds = set()
    check(mazes)
    for _ in range(50):
        expert = random.random(mazes.num_envs) < 0.5  # walks into walls and to the cheese
        step(mazes, np.where(expert, expert_actions(mazes), random.integers(15, size=8)))
        check(mazes)
        seeds |= {maze.level_seed for maze in states(mazes)}
    assert len(seeds) > mazes.num_envs  # levels ended on the way


def test_following_the_expert_gets_to_the_cheese_in_the_steps_it_says(make):
    mazes = make(16, new_level=0.0)
    levels = [maze.level_seed for maze in states(mazes)]
    waiting = mazes.steps_to_go.copy()
    arrived = np.zeros(16, int)
    for now in range(1, waiting.max() + 1):
        step(mazes, expert_actions(mazes))
        for index, maze in enumerate(states(mazes)):
            if not arrived[index] and maze.level_seed != levels[index]:
                arrived[index] = now
    assert arrived.tolist() == waiting.tolist()


def test_levels_are_drawn_from_the_given_ones(make):
    mazes = make(4, FEW, new_level=0.5)
    seen = set()
    for _ in range(40):
        seen |= {maze.level_seed for maze in states(mazes)}
        step(mazes, np.full(4, 4))
    assert seen == set(FEW.first(6))


def test_how_often_levels_change(make):
    mazes = make(64, new_level=0.25)
    before, changes = [maze.level_seed for maze in states(mazes)], 0
    for _ in range(20):
        step(mazes, np.full(64, 4))  # stands still: no cheese is reached
        after = [maze.level_seed for maze in states(mazes)]
        changes += sum(a != b for a, b in zip(after, before, strict=True))
        before = after
    assert changes / (64 * 20) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(("anywhere", "low", "high"), [(0.0, 1.0, 1.0), (1.0, 0.0, 0.2)])
def test_where_the_mouse_starts(make, anywhere, low, high):
    mazes = make(64, anywhere=anywhere)
    corner = [maze.mouse == (maze.margin, maze.margin) for maze in states(mazes)]
    assert low <= np.mean(corner) <= high


def test_the_seed_decides_everything(make):
    runs = [make(seed=seed) for seed in (1, 1, 2)]
    for _ in range(5):
        for mazes in runs:
            step(mazes, expert_actions(mazes))
    same, again, other = (mazes.observations for mazes in runs)
    assert np.array_equal(same, again)
    assert not np.array_equal(same, other)
