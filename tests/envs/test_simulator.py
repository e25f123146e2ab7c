import contextlib
import copy
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rlbilinear.envs import ProcgenEnv, ProcgenVecEnv
from rlbilinear.envs import simulator as module
from rlbilinear.envs.games import GAMES
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import parse

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env_name": "maz"}, r"unknown game 'maz'; choose one of bigfish, .*starpilot"),
        ({"mode": "extreme"}, r"maze has no mode 'extreme'; choose one of easy, hard, memory"),
        ({"mode": "exploration"}, "no mode 'exploration'"),
        ({"num_envs": 0}, "num_envs must be in 1"),
        ({"num_levels": -1}, "num_levels must be in 0"),
        ({"start_level": 2**31 - 1}, "start_level must be in 0"),
        ({"start_level": 10, "num_levels": 2**31 - 10}, r"num_levels must be in 0\.\.2147483637"),
        ({"seed": -1}, "seed must be in 0"),
        ({"seed": 1.5}, r"seed must be an integer, got 1\.5"),
        ({"seed": True}, "seed must be an integer, got True"),
        ({"num_threads": -1}, "num_threads must be in 0"),
        ({"use_backgrounds": "no"}, "use_backgrounds must be True or False, got 'no'"),
        ({"use_background": True}, "unknown options.*accepted.*use_backgrounds"),
    ],
)
def test_arguments_that_would_end_the_process_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Simulator(**{"env_name": "maze", **arguments})


@pytest.mark.parametrize("actions", [[15], [-2], [0, 0], [0.0], [[0]]])
def test_actions_are_checked(actions):
    simulator = Simulator("maze", num_threads=0)
    with pytest.raises(ValueError, match="actions must be"):
        simulator.act(np.array(actions))
    simulator.close()


def test_numpys_numbers_are_taken():
    one, two = (
        Simulator(
            "maze",
            kind(2),
            num_levels=kind(3),
            start_level=kind(5),
            seed=kind(1),
            num_threads=kind(0),
            use_backgrounds=flag(False),
        )
        for kind, flag in ((int, bool), (np.int32, np.bool_))
    )
    assert one.get_states() == two.get_states(np.array([0, 1]))
    one.close()
    two.close()


def test_what_is_closed_says_so():
    simulator = Simulator("maze", num_threads=0)
    simulator.close()
    simulator.close()
    for use in (
        lambda: simulator.act([0]),
        simulator.observe,
        simulator.get_states,
        lambda: simulator.info("rgb"),
        lambda: simulator.set_unchecked(0, b""),
    ):
        with pytest.raises(ValueError, match="are closed"):
            use()


def test_unlimited_levels_respect_the_start():
    """ProcGen itself ignores start_level when num_levels is 0."""
    start = 2**31 - 1000
    simulator = Simulator("maze", 50, start_level=start, num_threads=0)
    simulator.observe()
    assert (simulator.info("level_seed") >= start).all()
    simulator.close()


def test_states_of_some_environments():
    simulator = Simulator("maze", 3, num_threads=0)
    states = simulator.get_states()
    assert simulator.get_states([2, 0]) == [states[2], states[0]]
    simulator.set_states([states[0]], [2])
    assert simulator.get_states() == [states[0], states[1], states[0]]
    with pytest.raises(ValueError, match=r"no environments \[3\]; there are 0\.\.2"):
        simulator.get_states([3])
    for wrong in ([True, False, True], np.array([True, False, False]), [1.0], ["1"]):
        with pytest.raises(ValueError, match="environments are given by their numbers, got"):
            simulator.get_states(wrong)
    with pytest.raises(ValueError, match="1 states for 3 environments"):
        simulator.set_states(states[:1])
    simulator.close()
    simulator.close()


def test_a_missing_system_library_is_named_with_its_package(monkeypatch):
    class Broken:
        @staticmethod
        def ProcgenGym3Env(**_):
            raise OSError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(module, "import_procgen", lambda: Broken)
    with pytest.raises(
        ImportError, match=r"libGL\.so\.1: cannot.*apt-get install libgl1 libglib2\.0-0"
    ):
        Simulator("maze")


@pytest.mark.parametrize(
    "code",
    [
        "from rlbilinear import envs; envs.Simulator('maze', num_threads=0)",
        "from rlbilinear.envs.vecenv import ProcgenVecEnv; ProcgenVecEnv('maze', 1)",
        "from rlbilinear.envs.maze import Maze; Maze.from_seed(0).to_bytes()",
    ],
)
def test_gyms_notice_stays_off_the_screen_and_warnings_stay_on(code):
    code += "; import sys, warnings; warnings.warn('still here')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "unmaintained" not in done.stderr and not done.stdout
    assert "still here" in done.stderr


def test_importing_loads_neither_the_simulator_nor_pandas():
    code = "import sys, rlbilinear.envs; assert not {'procgen', 'pandas'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_threads_do_not_change_what_happens():
    runs = []
    for threads in (0, 3):
        simulator = Simulator("coinrun", 8, seed=9, num_threads=threads)
        random = np.random.default_rng(0)
        for _ in range(30):
            simulator.act(random.integers(15, size=8))
            frame = simulator.observe()
        runs.append((frame.images.tobytes(), simulator.get_states()))
        simulator.close()
    assert runs[0] == runs[1]


def test_sixteen_games():
    assert len(GAMES) == 16


@pytest.mark.parametrize("game", ["coinrun", "heist"])
def test_any_sound_state_is_taken_as_it_is(game):
    simulator = Simulator(game, 2, num_threads=0)
    state = parse(simulator.get_states()[0])
    entities = state.entities.copy()
    entities[0]["vx"] += 1
    altered = state._replace(
        entities=entities, options=state.options._replace(level_seed_low=5, level_seed_high=6)
    ).to_bytes()
    simulator.set_states([altered], [1])
    assert simulator.get_states() == [state.to_bytes(), altered]
    entities["vx"] = 99
    with pytest.raises(ValueError, match=r"state 0 of 1: .* at a speed of 99"):
        simulator.set_states([state._replace(entities=entities).to_bytes()], [0])
    simulator.close()


def test_states_of_many_things_fit():
    """The simulator ends the process when a state is longer than the buffer it is given."""
    simulator = Simulator("bossfight", num_threads=0)
    state = parse(simulator.get_states()[0])
    bullets = state.entities[:1].repeat(680)
    bullets["type"], bullets["image_type"], bullets["image_theme"] = 4, 4, 0
    bullets["x"], bullets["y"], bullets["rx"], bullets["ry"] = 1, 19, 0.1, 0.1
    bullets["smart_step"] = 0
    entities = np.concatenate([bullets, state.entities])
    simulator.set_states([state._replace(entities=entities).to_bytes()])
    for _ in range(8):  # each leaves a trail of eight
        simulator.act(np.array([4]))
        simulator.observe()
    assert len(simulator.get_states()[0]) > 700_000
    simulator.close()


def test_collecting_a_simulator_needs_no_lock():
    """Garbage is collected at any time, also while cffi's lock is held for another library."""
    simulator = Simulator("maze", num_threads=0)
    ffi = simulator._env._ffi
    assert "libenv_close" in vars(simulator._env._c_lib)
    with ffi._lock:  # not reentrant: a look-up would hang here
        simulator.close()


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("make", [Simulator, partial(ProcgenVecEnv, num_envs=1), ProcgenEnv])
def test_what_cannot_be_copied_says_so(copied, make):
    with (
        contextlib.closing(make("maze")) as made,
        pytest.raises(TypeError, match="a simulator cannot be copied or pickled; make another"),
    ):
        copied(made)
