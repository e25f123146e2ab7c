"""What gymnasium and Stable-Baselines3 ask of an environment, and what this one adds."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as stable_baselines_check_env
from stable_baselines3.common.env_util import make_vec_env

from rlbilinear.envs import GAMES, Cell, Heist, Maze, ProcgenVecEnv
from rlbilinear.envs.simulator import import_procgen
from rlbilinear.envs.state import SPACE

import_procgen()  # which leaves a file open, a warning of its own

ROOT = Path(__file__).parents[2]
MAZE = "rlbilinear/procgen-maze-v0"
STAY, RIGHT = 4, 7


def corridor(length):
    """Return a maze whose cheese is so many steps to the right."""
    return Maze.from_array(np.full((9, 9), SPACE), Cell(4, 0), Cell(4, length))


@pytest.mark.parametrize("game", GAMES)
def test_both_checkers_pass_without_a_warning(game):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(f"rlbilinear/procgen-{game}-v0").unwrapped
        check_env(env)
        env = gymnasium.make(f"rlbilinear/procgen-{game}-v0")
        stable_baselines_check_env(env)
        env.close()


@pytest.mark.parametrize("arguments", [{"levels": [corridor(3), corridor(5)]}, {"mode": "memory"}])
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_the_checkers_pass_with_other_arguments(arguments, render_mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(MAZE, render_mode=render_mode, **arguments).unwrapped)


def test_importing_registers_and_the_id_can_name_the_module():
    make = f"gymnasium.make('rlbilinear.envs:{MAZE}')"
    code = f"import gymnasium; print({make}.reset(seed=0)[0].shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(64, 64, 3)\n", "")


def test_an_episode_and_the_next():
    levels = [corridor(2), corridor(3)]
    env = gymnasium.make(MAZE, levels=levels)
    first, info = env.reset(seed=1)
    assert info["level_index"] == 0
    shown = ProcgenVecEnv("maze", 2, levels=levels, num_threads=0)
    starts = shown.reset().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(first, starts[0])
    before, reward, terminated, truncated, info = env.step(RIGHT)
    assert (reward, terminated, truncated) == (0, False, False) and info["level_index"] == 0
    assert (before != first).any()
    last, reward, terminated, truncated, info = env.step(RIGHT)
    assert (reward, terminated, truncated) == (10, True, False)
    assert info["level_complete"] is True and info["level_index"] == 0
    np.testing.assert_array_equal(last, before)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(RIGHT)
    second, info = env.reset()
    assert info["level_index"] == 1, "the end of the episode has gone on to it"
    np.testing.assert_array_equal(second, starts[1])
    env.step(RIGHT)
    _, info = env.reset()
    assert info["level_index"] == 0, "a reset in the middle goes on"
    env.close()
    shown.close()


def test_the_step_limit_truncates():
    for make in (gymnasium.make, gymnasium.make_vec):
        env = make(MAZE, num_levels=1)
        env.reset(seed=0)
        for step in range(1, 501):
            _, _, terminated, truncated, _ = env.step(
                [STAY] if make is gymnasium.make_vec else STAY
            )
            assert not np.any(terminated) and np.all(truncated) == (step == 500)
        env.close()


def levels_of(env, seed, episodes=6):
    _, info = env.reset(seed=seed)
    seeds = [np.array(info["level_seed"]).tolist()]
    for _ in range(episodes):
        _, info = env.reset()
        seeds.append(np.array(info["level_seed"]).tolist())
    return seeds


@pytest.mark.parametrize("make", [gymnasium.make, lambda *a: gymnasium.make_vec(*a, num_envs=3)])
def test_seeds_decide_the_levels(make):
    one, two = make(MAZE), make(MAZE)
    assert levels_of(one, 5) == levels_of(two, 5) != levels_of(one, 6)
    assert levels_of(one, 5) == levels_of(two, 5)
    assert np.unique(levels_of(one, 5)).size > 6 * np.size(levels_of(one, 5)[0])
    three, four = make(MAZE), make(MAZE)
    assert levels_of(three, None) != levels_of(four, None), "without a seed, one is drawn"
    for env in (one, two, three, four):
        env.close()


def test_exact_levels_are_known_before_and_after():
    seeds = [70, 3, 9]
    env = gymnasium.make("rlbilinear/procgen-leaper-v0", levels=seeds, mode="hard")
    for episode in range(4):
        _, info = env.reset()
        over = False
        while not over:
            assert info == {"level_seed": seeds[episode % 3], "level_index": episode % 3}
            _, _, terminated, truncated, info = env.step(5)
            over = terminated or truncated
        assert info["level_seed"] == seeds[episode % 3]
        assert info["level_index"] == episode % 3
    env.close()
    env = gymnasium.make_vec("rlbilinear/procgen-leaper-v0", 2, levels=seeds)
    _, infos = env.reset()
    assert infos["level_seed"].tolist() == [70, 3]
    *_, infos = env.step(np.array([-1, 4]))
    assert infos["level_seed"].tolist() == [9, 3]
    assert infos["final_info"]["level_seed"][0] == 70
    env.close()


def test_a_seed_at_construction_holds_until_a_reset_gives_another():
    for make in (gymnasium.make, lambda *a, **k: gymnasium.make_vec(*a, num_envs=1, **k)):
        drawn, expected = ProcgenVecEnv("maze", 1, seed=5, num_threads=0), []
        for _ in range(3):
            drawn.reset()
            expected.append(drawn.reset_infos[0]["level_seed"])
        drawn.close()
        env = make(MAZE, seed=5)
        shown = [int(np.squeeze(env.reset()[1]["level_seed"])) for _ in range(3)]
        assert shown == expected, "each reset begins the next level"
        assert levels_of(env, 6) == levels_of(env, 6)
        env.close()


def test_make_vec_resets_in_the_same_step():
    levels = [corridor(length) for length in (1, 2, 3, 4)]
    env = gymnasium.make_vec(MAZE, num_envs=2, levels=levels)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.single_observation_space.shape == (64, 64, 3)
    observations, infos = env.reset(seed=0)
    assert observations in env.observation_space and env.action_space.shape == (2,)
    assert infos["level_index"].tolist() == [0, 1] and infos["_level_index"].all()
    shown = ProcgenVecEnv("maze", 4, levels=levels, num_threads=0)
    starts = shown.reset().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(observations, starts[:2])
    after, rewards, terminations, truncations, infos = env.step(np.array([RIGHT, STAY]))
    assert rewards.tolist() == [10, 0] and rewards.dtype == np.float64
    assert terminations.tolist() == [True, False] and not truncations.any()
    np.testing.assert_array_equal(after, starts[[2, 1]])
    assert infos["level_index"].tolist() == [2, 1]
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [True, False]
    np.testing.assert_array_equal(infos["final_obs"][0], starts[0])
    assert infos["final_obs"][1] is None
    final = infos["final_info"]
    assert final["level_index"][0] == 0 and final["_level_index"].tolist() == [True, False]
    assert final["level_complete"].tolist() == [True, False]
    *_, infos = env.step(np.array([STAY, STAY]))
    assert "final_obs" not in infos
    env.close()
    shown.close()


def test_it_agrees_with_gymnasiums_own_vector_environment_in_that_mode():
    """Same keys, types and shapes as SyncVectorEnv over single environments; same levels, so
    the same observations."""
    levels = [corridor(2)]
    own = gymnasium.make_vec(
        MAZE,
        2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        levels=levels,
    )
    ours = gymnasium.make_vec(MAZE, 2, levels=levels)
    assert own.observation_space == ours.observation_space
    assert own.action_space == ours.action_space
    compare(own.reset(seed=0), ours.reset(seed=0))
    random = np.random.default_rng(0)
    for _ in range(40):
        actions = random.choice([RIGHT, STAY], size=2)
        compare(own.step(actions), ours.step(actions))
    own.close()
    ours.close()


def compare(one, two):
    assert type(one) is type(two) or np.isscalar(one)
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            compare(one[key], two[key])
    elif isinstance(one, tuple):
        for a, b in zip(one, two, strict=True):
            compare(a, b)
    elif one.dtype == object:
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)
    else:
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


def test_gymnasiums_vector_wrappers_work():
    env = gymnasium.make_vec(MAZE, 2, levels=[corridor(1), corridor(2)])
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
    env.reset(seed=0)
    *_, infos = env.step(np.array([RIGHT, RIGHT]))
    assert infos["episode"]["r"].tolist() == [10, 0] and infos["episode"]["l"][0] == 1
    *_, infos = env.step(np.array([STAY, RIGHT]))
    assert infos["episode"]["r"].tolist() == [0, 10] and infos["episode"]["l"][1] == 2
    env.close()


def test_what_was_returned_is_not_overwritten():
    env = gymnasium.make_vec(MAZE, 2, levels=[corridor(1), corridor(2)])
    kept = [env.reset(seed=0)[0]]
    copies = [kept[0].copy()]
    for _ in range(6):
        observations, *_, infos = env.step(np.array([RIGHT, RIGHT]))
        kept.append(observations)
        kept += [last for last in infos.get("final_obs", []) if last is not None]
        copies += [array.copy() for array in kept[len(copies) :]]
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    env.close()


def test_rendering_shows_the_episode_that_is_over_until_the_reset():
    env = gymnasium.make(MAZE, levels=[corridor(1), corridor(5)], render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (512, 512, 3)
    env.step(RIGHT)
    np.testing.assert_array_equal(env.render(), picture)
    env.reset()
    assert (env.render() != picture).any()
    env.close()
    env = gymnasium.make_vec(MAZE, 2, render_mode="rgb_array")
    env.reset(seed=0)
    assert [frame.shape for frame in env.render()] == [(512, 512, 3)] * 2
    env.close()


def test_stock_stable_baselines_learns_on_it():
    env = make_vec_env(MAZE, 2, seed=0)
    PPO("CnnPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu").learn(16)
    env.close()


def test_heists_pass_through():
    start = Heist.from_seed(2)
    levels = [start.with_agent(start.gem[0])]
    env = gymnasium.make("rlbilinear/procgen-heist-v0", levels=levels)
    for _ in range(3):
        env.reset()
        assert env.step(STAY)[1:3] == (10, True)
    env.close()


def test_what_is_refused():
    with pytest.raises(ValueError, match="no mode 'extreme'"):
        gymnasium.make(MAZE, mode="extreme")
    with pytest.raises(ValueError, match="None or 'rgb_array', got 'human'"):
        gymnasium.make_vec(MAZE, 2, render_mode="human")
    with pytest.raises(ValueError, match="leave out mode"):
        gymnasium.make(MAZE, mode="hard", levels=[corridor(1)])
    env = gymnasium.make_vec(MAZE, 2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.array([4, 4]))
    for wrong in ([1, 2], True, 1.5):
        with pytest.raises(ValueError, match="one seed is for all environments, an int; got"):
            env.reset(seed=wrong)
    with pytest.raises(ValueError, match="no reset_mask"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.close()
