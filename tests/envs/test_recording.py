"""States are given back byte for byte, whatever happened between the steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.recording import Recording, RecordStates
from rlbilinear.envs.state import SPACE
from rlbilinear.envs.vecenv import ProcgenVecEnv


@pytest.mark.parametrize(
    ("game", "mode"),
    [("maze", "easy"), ("heist", "hard"), ("coinrun", "hard"), ("starpilot", "easy")],
)
def test_every_state_of_a_rollout_comes_back(game, mode):
    env = RecordStates(ProcgenVecEnv(game, 3, mode=mode, num_threads=0, seed=1))
    random = np.random.default_rng(0)
    env.reset()
    kept = []
    for step in range(150):
        if step % 40 == 7:  # whatever is put in between steps is seen
            env.set_states(kept[0][:2], [2, 0])
        kept.append(env.get_states())
        actions = random.integers(15, size=3)
        actions[random.random(3) < 0.03] = -1
        env.step(actions)
    recording = env.recording
    assert len(recording) == 150 and recording.num_envs == 3
    for step in random.permutation(150):
        assert [recording.state(step, i) for i in range(3)] == kept[step]
    assert recording.state(-1, 2) == kept[-1][2]
    env.close()


bits = st.binary(max_size=60)


@settings(max_examples=300, deadline=None)
@given(
    start=st.binary(max_size=2000),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 300), bits), max_size=12),
    begins=st.lists(st.booleans(), min_size=15, max_size=15),
)
def test_any_bytes_come_back(start, edits, begins):
    """Lengths that change, states that come back, and nothing at all."""
    recording, states = Recording(1), [start]
    for where, length, new in edits:
        last = states[-1]
        at = int(where * len(last))
        states.append(last[:at] + new + last[at + length :])
    states += states[:2]
    for state, begin in zip(states, begins, strict=False):
        recording.append([state], np.array([begin]))
    assert [recording.state(step) for step in range(len(states))] == states


def test_memory_for_each_step():
    """At most 1/150 of the states' own, with levels that end on the way."""
    levels = [Maze.from_seed(seed) for seed in range(7)]
    env = RecordStates(ProcgenVecEnv("maze", 2, levels=levels, num_threads=0))
    random = np.random.default_rng(3)
    for step in range(1500):
        env.step(np.where(step % 40 == 39, -1, random.integers(15, size=2)))
    recording, raw = env.recording, len(levels[0].to_bytes())
    states = len(recording) * 2
    assert recording.nbytes < states * raw / 150
    before = recording.nbytes
    env.recording = Recording(2)
    env.step(np.array([4, 4]))
    assert len(env.recording) == 1 and recording.nbytes == before
    env.close()


def test_states_go_with_the_observations_that_a_policy_saw():
    venv = ProcgenVecEnv("maze", 2, num_threads=0)
    env = RecordStates(venv)
    seen = [env.reset()]
    for action in (7, 5, 7):
        seen.append(env.step(np.array([action, 4]))[0])
    shown = ProcgenVecEnv("maze", 2, num_threads=0)
    for step in range(3):
        shown.set_states([env.recording.state(step, i) for i in range(2)])
        np.testing.assert_array_equal(shown.observe(), seen[step])
    start = Maze.from_array(np.full((5, 5), SPACE), Cell(2, 2), Cell(2, 4))
    env.set_states([start.to_bytes()], [1])
    env.step(np.array([4, 7]))
    assert Maze.from_bytes(env.recording.state(-1, 1)) == start
    env.close()
    shown.close()


def test_stock_ppo_is_recorded():
    env = RecordStates(ProcgenVecEnv("maze", 2, num_threads=0))
    PPO("CnnPolicy", VecMonitor(env), n_steps=4, batch_size=8, n_epochs=1, device="cpu").learn(8)
    assert len(env.recording) == 4
    env.close()


def test_what_is_refused():
    recording = Recording(2)
    with pytest.raises(ValueError, match="1 states for 2 environments"):
        recording.append([b""])
    recording.append([b"one", b"two"])
    for arguments, message in (((1,), "no step 1; there are 1"), ((0, 2), r"no environment 2")):
        with pytest.raises(IndexError, match=message):
            recording.state(*arguments)
