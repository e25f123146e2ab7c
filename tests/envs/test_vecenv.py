import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from rlbilinear.envs.episodes import Episodes
from rlbilinear.envs.games import GAMES
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.moves import Move
from rlbilinear.envs.solver import expert_moves
from rlbilinear.envs.state import SPACE
from rlbilinear.envs.vecenv import ProcgenVecEnv

ACTION = {Move.LEFT: 1, Move.DOWN: 3, Move.UP: 5, Move.RIGHT: 7}


def test_spaces_and_types_are_what_stable_baselines_expects():
    env = ProcgenVecEnv("maze", 3)
    assert isinstance(env, VecEnv)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (3, 64, 64), np.uint8)
    assert env.action_space == gymnasium.spaces.Discrete(15)
    observations = env.reset()
    assert env.observation_space.contains(observations[0])
    assert env.reset_infos == [{"level_seed": m.level_seed} for m in mazes(env)]
    observations, rewards, dones, infos = env.step(np.zeros(3, int))
    assert observations.shape == (3, 3, 64, 64) and observations.dtype == np.uint8
    assert rewards.dtype == np.float32 and rewards.shape == (3,)
    assert dones.dtype == bool and dones.shape == (3,)
    assert len(infos) == 3
    # channels first by shape, channels last in memory: no copy where torch wants it so
    assert obs_as_tensor(observations, "cpu").is_contiguous(memory_format=torch.channels_last)
    env.close()


def mazes(env):
    return [Maze.from_bytes(raw) for raw in env.get_states()]


@pytest.mark.parametrize("game", GAMES)
def test_every_game_steps(game):
    env = ProcgenVecEnv(game, 2, num_threads=0)
    env.reset()
    for action in range(15):
        observations, *_ = env.step(np.full(2, action))
    assert observations.std() > 0
    env.close()


def rollout(env, steps=60, seed=0):
    random = np.random.default_rng(seed)
    trace = [env.reset().tobytes()]
    for _ in range(steps):
        observations, rewards, dones, infos = env.step(random.integers(15, size=env.num_envs))
        levels = tuple(info["level_seed"] for info in infos)
        trace.append((observations.tobytes(), rewards.tobytes(), dones.tobytes(), levels))
    return trace


def test_the_seed_decides_everything():
    env, again, other = (ProcgenVecEnv("coinrun", 4, seed=seed) for seed in (1, 1, 2))
    trace = rollout(env)
    assert trace == rollout(again)
    assert trace != rollout(other)
    other.seed(1)
    assert trace == rollout(other), "seed() takes effect at the next reset"
    assert trace != rollout(other), "and once only"
    for one in (env, again, other):
        one.close()


def test_a_wrong_seed_is_refused_at_once_and_harms_nothing():
    for levels in (None, [Maze.from_seed(3)]):
        env = ProcgenVecEnv("maze", 2, levels=levels, num_threads=0)
        for seed in (-1, 2**31, 1.0):
            with pytest.raises(ValueError, match="seed must be"):
                env.seed(seed)
        env.seed(2**31 - 1)
        env.reset()
        env.step(np.array([5, 7], np.uint8))
        env.reset()
        env.close()
        with pytest.raises(ValueError, match="are closed"):
            env.reset()


def test_a_wrong_seed_at_a_restart_keeps_the_environments():
    episodes = Episodes("maze", 2, num_threads=0)
    with pytest.raises(ValueError, match="seed must be"):
        episodes.restart(-1)
    episodes.act(np.array([4, 4]))
    episodes.wait()
    episodes.close()


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_each_reset_begins_the_next_level(steps):
    """Whatever was played between: as when each episode is ended by action -1."""
    env, ended = (ProcgenVecEnv("maze", 4, seed=2, num_threads=0) for _ in range(2))
    shown = env.observe()
    np.testing.assert_array_equal(env.reset(), shown)  # the first reset begins the first
    for _ in range(4):
        for _ in range(steps):
            env.step(np.full(4, 4))
        follows, *_, infos = ended.step(np.full(4, -1))
        np.testing.assert_array_equal(env.reset(), follows)
        assert [info["level_seed"] for info in infos] == [
            info["level_seed"] for info in env.reset_infos
        ]
    env.close()
    ended.close()


def test_the_first_reset_goes_on_where_something_was_played():
    env, other = (ProcgenVecEnv("maze", 2, seed=2, num_threads=0) for _ in range(2))
    env.step(np.full(2, 4))
    follows, *_ = other.step(np.full(2, -1))
    np.testing.assert_array_equal(env.reset(), follows)
    other.set_states(other.get_states())
    follows, *_ = env.step(np.full(2, -1))
    np.testing.assert_array_equal(other.reset(), follows)
    env.close()
    other.close()


def test_levels_stay_in_their_range():
    env = ProcgenVecEnv("maze", 8, num_levels=3, start_level=40)
    seen = set()
    for _ in range(5):
        env.reset()
        seen |= {info["level_seed"] for info in env.reset_infos}
        env.step(np.full(8, 4))
    assert seen == {40, 41, 42}
    env.close()


def test_episodes_of_the_expert_are_counted_and_described():
    env = ProcgenVecEnv("maze", 6, seed=3)
    before = env.reset()
    levels = [maze.level_seed for maze in mazes(env)]
    steps, finished = np.zeros(6, int), []
    for _ in range(300):
        here = mazes(env)
        actions = [ACTION[Move(expert_moves(m, m.cheese[0])[m.mouse])] for m in here]
        observations, rewards, dones, infos = env.step(np.array(actions))
        steps += 1
        assert [info["level_seed"] for info in infos] == [m.level_seed for m in mazes(env)]
        for index in np.flatnonzero(dones):
            info = infos[index]
            assert info["episode"]["r"] == rewards[index] == 10
            assert info["episode"]["l"] == steps[index]
            assert info["episode"]["t"] > 0
            assert info["prev_level_seed"] == levels[index]
            assert info["prev_level_complete"] is True
            assert info["TimeLimit.truncated"] is False
            np.testing.assert_array_equal(info["terminal_observation"], before[index])
            steps[index], levels[index] = 0, info["level_seed"]
            finished.append(index)
        for index in np.flatnonzero(~dones):
            assert infos[index].keys() == {"level_seed"} and rewards[index] == 0
        before = observations
    assert set(finished) == set(range(6))
    env.close()


def test_the_time_limit_is_told_from_an_end():
    env = ProcgenVecEnv("maze", 1, num_threads=0)
    env.reset()
    for step in range(1, 501):
        *_, dones, (info,) = env.step(np.array([4]))
        assert dones[0] == (step == 500)
    assert info["TimeLimit.truncated"] is True and info["prev_level_complete"] is False
    assert info["episode"]["r"] == 0 and info["episode"]["l"] == 500
    *_, dones, (info,) = env.step(np.array([-1]))
    assert dones[0] and info["TimeLimit.truncated"] is False
    env.close()


def test_set_states_shows_and_counts_from_the_state():
    env = ProcgenVecEnv("maze", 2)
    env.reset()
    for _ in range(490):
        env.step(np.array([4, 4]))
    old = env.get_states([0])
    start = Maze.from_array(np.full((5, 5), SPACE), Cell(2, 2), Cell(2, 4))
    env.set_states([start.to_bytes(), *old])
    assert mazes(env)[0] == start
    assert (env.observe()[0] != env.observe()[1]).any()
    env.step(np.array([7, 4]))
    observations = env.observe()
    _, rewards, dones, infos = env.step(np.array([7, 4]))
    assert rewards.tolist() == [10, 0] and dones.tolist() == [True, False]
    assert infos[0]["episode"]["l"] == 2
    np.testing.assert_array_equal(infos[0]["terminal_observation"], observations[0])
    for _ in range(8):
        *_, dones, infos = env.step(np.array([4, 4]))
    assert dones[1] and infos[1]["TimeLimit.truncated"], "the state's own clock goes on"
    assert infos[1]["episode"]["l"] == 10
    with pytest.raises(ValueError, match="end marker"):
        env.set_states([b"junk"], [1])
    env.close()


def test_states_repeat_what_followed():
    env = ProcgenVecEnv("starpilot", 3)
    env.reset()
    states = env.get_states()
    random = np.random.default_rng(0)
    actions = random.integers(15, size=(20, 3))
    one = [env.step(a)[0].tobytes() for a in actions]
    env.set_states(states)
    assert one == [env.step(a)[0].tobytes() for a in actions]
    env.close()


def test_what_was_returned_is_not_overwritten():
    env = ProcgenVecEnv("maze", 2)
    kept = env.reset()
    observations, rewards, dones, _ = env.step(np.array([7, 5]))
    copies = [array.copy() for array in (kept, observations, rewards, dones)]
    for _ in range(10):
        env.step(np.array([5, 7]))
    for array, copy in zip((kept, observations, rewards, dones), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    env.close()


def test_the_rest_of_the_vecenv_interface():
    env = ProcgenVecEnv("maze", 3)
    assert env.get_attr("env_name") == ["maze"] * 3
    assert env.get_attr("mode", [0, 2]) == ["easy"] * 2
    assert env.has_attr("mode") and not env.has_attr("nothing")
    env.set_attr("note", 5)
    assert env.get_attr("note", 1) == [5]
    with pytest.raises(ValueError, match="share their attributes"):
        env.set_attr("note", 6, indices=[0])
    assert env.env_method("get_state", indices=[1]) == env.get_states([1])
    env.env_method("set_state", env.get_states([1])[0], indices=[0])
    assert env.get_states([0]) == env.get_states([1])
    with pytest.raises(AttributeError, match=r"no method 'fly'; there are \['get_state'"):
        env.env_method("fly")
    assert env.env_is_wrapped(Monitor) == [False] * 3
    assert env.unwrapped is env
    env.close()


def test_rendering():
    env = ProcgenVecEnv("maze", 2, render_mode="rgb_array")
    env.reset()
    images = env.get_images()
    assert [image.shape for image in images] == [(512, 512, 3)] * 2
    assert (images[0] != images[1]).any()
    assert env.render().shape == (512, 1024, 3) or env.render().shape == (1024, 512, 3)
    env.close()
    with pytest.raises(ValueError, match="None or 'rgb_array', got 'human'"):
        ProcgenVecEnv("maze", 1, render_mode="human")
    plain = ProcgenVecEnv("maze", 1)
    with pytest.raises(ValueError, match="to render"):
        plain.get_images()
    plain.close()


@pytest.mark.parametrize(
    "wrap", [lambda env: env, VecMonitor, lambda e: VecNormalize(e, norm_obs=False)]
)
def test_stock_ppo_learns_on_it(wrap):
    env = wrap(ProcgenVecEnv("maze", 2))
    model = PPO("CnnPolicy", env, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(16)
    assert model.num_timesteps == 16
    changed = zip(before, model.policy.parameters(), strict=True)
    assert any((old != new).any() for old, new in changed)
    env.close()


def test_stock_evaluation_counts_episodes():
    env = VecMonitor(ProcgenVecEnv("maze", 2, num_levels=5))
    model = PPO("CnnPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu")
    rewards, lengths = evaluate_policy(
        model, env, n_eval_episodes=2, deterministic=False, return_episode_rewards=True
    )
    assert len(rewards) == 2 and all(r in (0, 10) for r in rewards)
    assert all(1 <= length <= 500 for length in lengths)
    env.close()
