"""The expert of heists, played to the gem in the real simulator."""

import numpy as np
import pytest

from rlbilinear.envs.games import NUM_ACTIONS
from rlbilinear.envs.grid import Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_guide import HeistGuide, expert_actions, expert_steps, right_actions
from rlbilinear.envs.heist_things import Colour
from rlbilinear.envs.level_states import level_state
from rlbilinear.envs.state import SPACE
from rlbilinear.envs.vecenv import ProcgenVecEnv

LEFT, DOWN, UP, RIGHT = np.eye(4, dtype=bool)


def played(levels, mode, choose, limit):
    """The heists of some levels, and in how many steps the gem was reached there, 0 for not."""
    env = ProcgenVecEnv("heist", len(levels), mode=mode, num_threads=1)
    env.set_states([level_state("heist", level, mode) for level in levels])
    heists = [Heist.from_bytes(raw) for raw in env.get_states()]
    guide = HeistGuide(len(levels), heists[0].size)
    for index, heist in enumerate(heists):
        guide.put(index, heist)
    steps = np.zeros(len(levels), int)
    over = np.zeros(len(levels), bool)
    for step in range(1, limit + 1):
        actions = choose(guide.right)
        guide.step(actions)
        _, rewards, dones, _ = env.step(actions)
        steps[dones & ~over & (rewards == 10)] = step
        over |= dones
        if over.all():
            break
    env.close()
    return heists, steps


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("easy", 100),
        ("hard", 30),
        ("memory", 10),
        pytest.param("easy", 1000, marks=pytest.mark.slow),
        pytest.param("hard", 1000, marks=pytest.mark.slow),
    ],
)
def test_the_expert_gets_to_the_gem_in_the_steps_it_says(mode, number):
    heists, steps = played(range(number), mode, expert_actions, 1000)
    assert steps.all() and steps.tolist() == expert_steps(heists).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_any_right_action_is_right(seed):
    """Whichever of the right actions is taken, the gem is reached, hardly later."""
    random = np.random.default_rng(seed)

    def choose(right):
        return (right * random.random(right.shape)).argmax(1)

    heists, steps = played(range(100 * seed, 100 * seed + 100), "easy", choose, 300)
    assert steps.all()
    assert steps.mean() < 1.25 * expert_steps(heists).mean()


def test_steps_to_go_are_about_the_experts():
    heists = [Heist.from_seed(level) for level in range(300)]
    guide = HeistGuide(len(heists), 9)
    for index, heist in enumerate(heists):
        guide.put(index, heist)
    steps = expert_steps(heists)
    assert np.corrcoef(guide.steps_to_go, steps)[0, 1] > 0.99
    assert guide.steps_to_go.mean() == pytest.approx(steps.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("moves", "away", "expected"),
    [
        (RIGHT, (0.0, 0.0), {7}),
        (RIGHT, (0.3, -0.03), {7}),  # along the way it does not matter how far
        (RIGHT, (0.0, 0.08), {7, 6}),  # up from the middle: down may help
        (RIGHT, (0.0, 0.2), {6}),  # it does not fit: down must be pushed
        (RIGHT, (0.0, -0.2), {8}),
        (LEFT, (0.0, -0.2), {2}),
        (UP, (0.2, 0.0), {2}),
        (DOWN, (-0.08, 0.0), {3, 6}),
        (RIGHT | UP, (0.0, 0.0), {7, 5}),  # two ways are shortest
    ],
)
def test_actions_push_on_and_to_the_middle(moves, away, expected):
    right = right_actions(moves[None], np.array([away], np.float32), np.zeros((1, 2), np.float32))
    assert right.shape == (1, NUM_ACTIONS)
    assert set(np.flatnonzero(right[0]).tolist()) == expected


@pytest.mark.parametrize(
    ("fetch", "expected"),
    [((0.0, 0.6), {5}), ((-0.6, 0.0), {1}), ((0.6, -0.3), {7, 6}), ((0.3, 0.6), {5, 8})],
)
def test_without_a_move_the_thing_in_the_cell_is_fetched(fetch, expected):
    right = right_actions(np.zeros((1, 4), bool), np.zeros((1, 2)), np.array([fetch], np.float32))
    assert set(np.flatnonzero(right[0]).tolist()) == expected


def test_the_guide_takes_heists_like_the_games():
    room = np.full((5, 5), SPACE)
    guide = HeistGuide(1, 5)
    one = Heist.from_array(room, Cell(0, 0), Cell(4, 4), keys={Colour.BLUE: Cell(1, 1)})
    guide.put(0, one)
    with pytest.raises(ValueError, match="one gem"):
        guide.put(0, one.with_gem(Cell(4, 4), Cell(3, 3)))
    with pytest.raises(ValueError, match="one key and lock of each colour"):
        guide.put(0, one.with_keys(Colour.BLUE, Cell(1, 1), Cell(2, 2)))
    with pytest.raises(ValueError, match="no gem"):
        guide.put(0, one.with_gem())
    with pytest.raises(ValueError, match=r"one size, got \[5, 9\]"):
        expert_steps([one, Heist.from_seed(0)])
