"""The agents' motion against the simulator's, to the bit."""

import numpy as np
import pytest

from rlbilinear.envs.grid import Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_guide import HeistGuide
from rlbilinear.envs.heist_motion import Agents, Boxes, touched, undecided
from rlbilinear.envs.heist_things import Colour
from rlbilinear.envs.state import SPACE, WALL
from rlbilinear.envs.vecenv import ProcgenVecEnv

SIZES = {"easy": 9, "hard": 13, "memory": 23}


def motion(heist):
    return np.array([[heist.entities[0][name] for name in ("x", "y", "vx", "vy")]])


def followed(guide, index):
    return np.concatenate((guide.agents.place[index], guide.agents.speed[index]))


@pytest.mark.parametrize("mode", SIZES)
def test_agents_are_where_the_simulator_has_them(mode):
    """Any actions, repeated a few times so that the agent gets somewhere; walls, locks and keys."""
    number, random = 32, np.random.default_rng(0)
    env = ProcgenVecEnv("heist", number, mode=mode, seed=2, num_threads=1)
    guide = HeistGuide(number, SIZES[mode])
    heists = [Heist.from_bytes(raw) for raw in env.get_states()]
    for index, heist in enumerate(heists):
        guide.put(index, heist)
    actions, compared, at_lock, taken = random.integers(15, size=number), 0, 0, 0
    for _ in range(120):
        actions = np.where(random.random(number) < 0.3, random.integers(15, size=number), actions)
        chance, before = undecided(guide.agents, actions), heists
        arrived = guide.step(actions)
        _, rewards, dones, _ = env.step(actions)
        assert (arrived == (rewards == 10)).all() and (arrived == dones).all()
        heists = [Heist.from_bytes(raw) for raw in env.get_states()]
        for index, heist in enumerate(heists):
            if dones[index]:
                guide.put(index, heist)
            elif chance[index]:
                guide.put_agent(index, heist)
            else:
                assert (followed(guide, index) == motion(heist)).all()
                held = guide._held[index, : len(heist.has_keys)]
                assert tuple(held.tolist()) == heist.has_keys
                compared += 1
                taken += heist.has_keys != before[index].has_keys
                reach = np.float32(0.375 + 0.5)
                at_lock += any(
                    np.isclose(
                        abs(motion(heist)[0, :2] - (at.column + 0.5, at.row + 0.5)), reach
                    ).any()
                    and lock not in heist.held_keys
                    for lock, at in heist.locks
                )
    env.close()
    assert compared > 3000 and at_lock > 20 and taken > 3


def test_where_the_simulator_draws_it_is_said():
    """Equal speeds and no push: nobody knows which axis is first; with a push it is known."""
    places = np.zeros((4, 2), np.float32)
    speeds = np.array([[0.2, -0.2], [0.2, -0.2], [0, 0], [0.2, 0.1]], np.float32)
    actions = np.array([9, 8, 4, 4])
    assert undecided(Agents(places, speeds), actions).tolist() == [True, False, False, False]


def test_what_is_touched():
    boxes = Boxes(
        np.array([[[2, 2], [0, 0]]], np.float32),
        np.array([[[0.5, 0.25], [-np.inf, -np.inf]]], np.float32),
    )
    for x, y, expected in ((2.8, 2.6, True), (2.9, 2.0, False), (2.0, 2.65, False)):
        assert touched(np.array([[x, y]], np.float32), boxes).tolist() == [[expected, False]]


def test_a_closed_lock_stops_and_an_open_one_does_not():
    grid = np.full((5, 5), WALL)
    grid[2] = SPACE
    heist = Heist.from_array(grid, Cell(2, 0), Cell(2, 4), locks={Colour.RED: Cell(2, 2)})
    guide = HeistGuide(2, 5)
    guide.put(0, heist)
    guide.put(1, heist.with_held_key(Colour.RED))
    arrived = np.zeros(2, bool)
    for _ in range(20):
        arrived |= guide.step(np.array([7, 7]))
    assert arrived.tolist() == [False, True]
    assert guide.agents.place[0].tolist() == [2 - 0.375, 2.5]
