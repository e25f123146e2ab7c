"""Given levels in the real simulator: they come back at every reset and end of an episode."""

import numpy as np
import pytest

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.moves import Move
from rlbilinear.envs.schedule import Schedule
from rlbilinear.envs.solver import expert_moves
from rlbilinear.envs.state import SPACE, parse
from rlbilinear.envs.vecenv import ProcgenVecEnv

ACTION = {Move.LEFT: 1, Move.DOWN: 3, Move.UP: 5, Move.RIGHT: 7, Move.STAY: 4}


def mazes(env):
    return [Maze.from_bytes(raw) for raw in env.get_states()]


def towards_cheese(env):
    moves = [expert_moves(m, m.cheese[0])[m.mouse] for m in mazes(env)]
    return np.array([ACTION[Move(move)] for move in moves])


@pytest.fixture
def edited():
    """Levels of four sizes, none of which the simulator would generate."""
    seventeen = Maze.from_seed(17)
    free = seventeen.free_cells()
    return [
        seventeen.with_cheese(free[3]).with_background(2),
        Maze.from_seed(3, "hard").with_mouse(Maze.from_seed(3, "hard").free_cells()[9]),
        Maze.from_array(np.full((5, 5), SPACE), Cell(1, 1), Cell(1, 4)),
        Maze.from_seed(8, "memory").with_facing("right"),
        Maze.from_array(np.full((4, 4), SPACE), Cell(0, 0), Cell(3, 3)).to_bytes(),
    ]


def value(level):
    return level if isinstance(level, Maze) else Maze.from_bytes(level)


@pytest.mark.parametrize("order", ["in turn", "random"])
@pytest.mark.parametrize("num_envs", [1, 3, 7])
def test_edits_come_back_episode_after_episode(edited, order, num_envs):
    """The observation with done, the terminal one, the seeds and the counts are the levels'."""
    env = ProcgenVecEnv("maze", num_envs, levels=edited, order=order, seed=5, num_threads=0)
    before = env.reset()
    played = [[info["level_index"]] for info in env.reset_infos]
    steps = np.zeros(num_envs, int)
    while min(map(len, played)) < 6:
        observations, rewards, dones, infos = env.step(towards_cheese(env))
        steps += 1
        now = mazes(env)
        for i, info in enumerate(infos):
            assert info["level_seed"] == now[i].level_seed
            if not dones[i]:
                assert info.keys() == {"level_seed", "level_index"} and rewards[i] == 0
                assert info["level_index"] == played[i][-1]
                continue
            last, begun = value(edited[played[i][-1]]), value(edited[info["level_index"]])
            assert now[i] == begun
            assert info["prev_level_index"] == played[i][-1]
            assert info["prev_level_seed"] == Maze.from_bytes(last.to_bytes()).level_seed
            assert info["prev_level_complete"] is True and not info["TimeLimit.truncated"]
            assert info["episode"]["r"] == rewards[i] == 10 and info["episode"]["l"] == steps[i]
            np.testing.assert_array_equal(info["terminal_observation"], before[i])
            shown = ProcgenVecEnv("maze", 1, levels=[begun], num_threads=0)
            np.testing.assert_array_equal(observations[i], shown.reset()[0])
            shown.close()
            steps[i] = 0
            played[i].append(info["level_index"])
        before = observations
    env.close()
    for i, levels in enumerate(played):
        if order == "in turn":
            assert levels == [(i + k * num_envs) % 5 for k in range(len(levels))]
        else:
            again = np.random.default_rng([5, i]).integers(5, size=len(levels))
            assert levels == again.tolist()


def test_reset_goes_on_and_a_seed_begins_anew(edited):
    def indices():
        env.reset()
        return [info["level_index"] for info in env.reset_infos]

    env = ProcgenVecEnv("maze", 2, levels=edited, num_threads=0)
    assert indices() == [0, 1], "the first reset begins the first level"
    env.step(np.array([4, 4]))
    assert indices() == [2, 3]
    assert mazes(env) == [value(level) for level in edited[2:4]]
    assert indices() == [4, 0], "also where nothing was played"
    env.seed(9)
    assert indices() == [0, 1]
    env.close()
    env = ProcgenVecEnv("maze", 40, levels=edited, order="random", seed=1, num_threads=0)
    first = indices()
    env.step(np.full(40, 4))
    second = indices()
    env.seed(1)
    assert indices() == first != second
    env.seed(2)
    assert indices() != first
    env.close()


def test_what_others_play_does_not_change_an_environments_levels(edited):
    """Environment 0 ends an episode at each step, then at none: number 1 sees no difference."""
    runs = []
    for action in (-1, 4):
        env = ProcgenVecEnv("maze", 2, levels=edited, order="random", seed=3, num_threads=2)
        trace = [env.reset()[1].tobytes()]
        for step in range(40):
            observations, rewards, _, infos = env.step(np.array([action, -1 if step % 7 else 7]))
            trace.append((observations[1].tobytes(), rewards[1], infos[1]["level_index"]))
        runs.append(trace)
        env.close()
    assert runs[0] == runs[1]


def test_states_set_by_hand_last_one_episode_and_the_given_level_follows(edited):
    env = ProcgenVecEnv("maze", 1, levels=edited[:1], num_threads=0)
    env.set_states([edited[2].to_bytes()])
    assert mazes(env) == [edited[2]]
    *_, dones, _ = env.step(np.array([-1]))
    assert dones[0] and mazes(env) == [edited[0]]
    env.close()


def test_a_given_states_clock_and_step_limit_count():
    state = parse(Maze.from_seed(5).to_bytes())
    late = state._replace(episode=state.episode._replace(cur_time=7, timeout=10)).to_bytes()
    env = ProcgenVecEnv("maze", 1, levels=[late], num_threads=0)
    for _ in range(3):
        for step in range(1, 4):
            *_, dones, (info,) = env.step(np.array([4]))
            assert dones[0] == (step == 3)
        assert info["TimeLimit.truncated"] is True and info["episode"]["l"] == 3
        assert env.get_states() == [late]
    env.close()


def test_a_state_taken_where_an_episode_just_ended_gives_no_reward_again():
    env = ProcgenVecEnv("maze", 1, num_threads=0)
    while True:
        _, _, dones, _ = env.step(towards_cheese(env))
        if dones[0]:
            break
    (raw,) = env.get_states()
    env.close()
    assert parse(raw).episode.reward == 10 and parse(raw).episode.done
    env = ProcgenVecEnv("maze", 1, levels=[raw], num_threads=0)
    env.reset()
    _, rewards, dones, (info,) = env.step(np.array([-1]))
    assert rewards[0] == 0 and dones[0] and info["episode"]["r"] == 0
    _, rewards, dones, _ = env.step(np.array([4]))
    assert rewards[0] == 0 and not dones[0]
    env.close()


@pytest.mark.parametrize("mode", ["easy", "hard"])
def test_one_environment_for_each_cell(mode):
    maze = Maze.from_seed(4, mode)
    env = ProcgenVecEnv.at_cells(maze, num_threads=0)
    assert env.num_envs == len(maze.free_cells()) and env.mode == mode
    for _ in range(2):
        assert mazes(env) == [maze.with_mouse(cell) for cell in maze.free_cells()]
        env.step(np.full(env.num_envs, -1))
    env.close()
    cells = maze.free_cells()[5:8]
    some = ProcgenVecEnv.at_cells(maze, cells)
    assert [m.mouse for m in mazes(some)] == list(cells)
    some.close()
    with pytest.raises(ValueError, match="is a wall"):
        ProcgenVecEnv.at_cells(maze, [Cell(0, maze.size - 1)] if mode == "easy" else [Cell(0, 0)])
    with pytest.raises(ValueError, match="at least one level"):
        ProcgenVecEnv.at_cells(maze, [])


def test_other_games_take_their_own_states():
    source = ProcgenVecEnv("coinrun", 3, num_threads=0)
    for _ in range(5):
        source.step(np.full(3, 7))
    states = source.get_states()
    env = ProcgenVecEnv("coinrun", 2, levels=states, num_threads=0)
    assert env.get_states() == states[:2]
    env.step(np.array([-1, -1]))
    assert env.get_states() == [states[2], states[0]]
    source.close()
    env.close()


def test_the_simulator_is_made_for_the_levels_mode():
    """A chaser keeps the maze of its first mode: a level of another would end the process."""
    states = {}
    for mode in ("easy", "hard"):
        source = ProcgenVecEnv("chaser", 1, mode=mode, num_threads=0)
        states[mode] = source.get_states()[0]
        source.close()
    env = ProcgenVecEnv("chaser", 2, levels=[states["hard"]], num_threads=0)
    assert env.mode == "hard"
    for _ in range(3):
        env.step(np.array([-1, 7]))
    env.close()
    for first, second in (("easy", "hard"), ("hard", "easy")):
        with pytest.raises(ValueError, match=r"levels\[1\]: a state of a chaser of .* a side"):
            ProcgenVecEnv("chaser", 2, levels=[states[first], states[second]])


def test_what_is_refused(edited):
    def make(**arguments):
        return ProcgenVecEnv("maze", 1, **arguments)

    with pytest.raises(ValueError, match="levels= is empty"):
        make(levels=[])
    with pytest.raises(ValueError, match=r"levels\[1\]: .*end marker"):
        make(levels=[edited[0], b"junk"])
    with pytest.raises(ValueError, match=r"levels\[0\]: .*a state of maze.*plays heist"):
        ProcgenVecEnv("heist", 1, levels=edited)
    for wrong in (7.0, "7", None, True, bytearray(3)):
        with pytest.raises(
            ValueError, match=r"levels\[0\]: expected a Maze.*\(or level seeds alone"
        ):
            make(levels=[wrong])
    with pytest.raises(ValueError, match=r"levels\[1\]: .*\(or level seeds alone\), got 7$"):
        make(levels=[edited[0], 7])
    for levels in (edited, None):
        with pytest.raises(ValueError, match=r"order must be one of \['in turn', 'random'\]"):
            make(levels=levels, order="shuffle")
    with pytest.raises(ValueError, match="order='random' is of given levels="):
        make(order="random")
    for one in (edited[0].to_bytes(), edited[0], "345", 5):
        with pytest.raises(ValueError, match=r"levels= is a sequence of .*\[3, 5\]; got one"):
            make(levels=one)
    with pytest.raises(ValueError, match="seed must be in 0"):
        make(levels=edited, seed=-1)
    with pytest.raises(ValueError, match="num_envs must be in 1"):
        ProcgenVecEnv("maze", -1, levels=edited)
    for extra in ({"mode": "hard"}, {"num_levels": 3}, {"use_backgrounds": False}):
        with pytest.raises(ValueError, match=f"leave out.*{next(iter(extra))}"):
            make(levels=edited, **extra)
    state = parse(edited[0].to_bytes())
    endless = state._replace(options=state.options._replace(use_sequential_levels=1)).to_bytes()
    with pytest.raises(ValueError, match="use_sequential_levels is on"):
        make(levels=[endless])


def test_a_value_keeps_little_memory():
    """The bytes of values are made when needed: the schedule holds what it was given."""
    levels = [Maze.from_seed(seed) for seed in range(20)]
    schedule = Schedule(levels, "maze", 4)
    schedule.restart(0)
    assert schedule.next(range(4)) == [maze.to_bytes() for maze in levels[:4]]
    assert all(one is two for one, two in zip(schedule.levels, levels, strict=True))
