"""Others' wrappers around the environments: they take them, and a policy trains in them."""

from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import vector, wrappers
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from rlbilinear.agents import BilinearPolicy
from rlbilinear.envs import ProcgenVecEnv, ProcgenVectorEnv

LEVELS = {"num_levels": 3}


def make():
    return gymnasium.make("rlbilinear/procgen-maze-v0", render_mode="rgb_array", **LEVELS)


def vec_env():
    return ProcgenVecEnv("maze", 2, **LEVELS)


def trains(env):
    """Let a policy learn from one rollout."""
    sizes = {"architecture": "bimpala-small", "architecture_kwargs": {"channels": 4, "features": 8}}
    rollout = {"n_steps": 4, "batch_size": 4, "n_epochs": 1}
    try:
        model = PPO(BilinearPolicy, env, **rollout, policy_kwargs=sizes, device="cpu")
        model.learn(8)
        return model.num_timesteps == 8
    finally:
        env.close()


@pytest.mark.parametrize(
    "wrap",
    [
        partial(VecFrameStack, n_stack=3),
        partial(VecNormalize, norm_obs=True),
        partial(VecNormalize, norm_obs=False),
        VecMonitor,
        VecCheckNan,
    ],
)
def test_a_policy_trains_in_wrapped_vector_environments(wrap):
    assert trains(wrap(vec_env()))


processes = pytest.param(partial(SubprocVecEnv, start_method="spawn"), marks=pytest.mark.slow)


@pytest.mark.parametrize("kind", [DummyVecEnv, processes])
def test_a_policy_trains_in_their_vectors_of_ours(kind):
    assert trains(kind([lambda: Monitor(make())] * 2))


def test_a_monitor_writes_what_was_played(tmp_path):
    assert trains(VecMonitor(vec_env(), str(tmp_path / "seen")))
    assert (tmp_path / "seen.monitor.csv").read_text().splitlines()[1] == "r,l,t"


@pytest.mark.parametrize(
    ("wrap", "shape"),
    [
        (wrappers.RecordEpisodeStatistics, (64, 64, 3)),
        (wrappers.GrayscaleObservation, (64, 64)),
        (wrappers.FlattenObservation, (64 * 64 * 3,)),
        (wrappers.NormalizeObservation, (64, 64, 3)),
        (wrappers.NormalizeReward, (64, 64, 3)),
        (wrappers.Autoreset, (64, 64, 3)),
        (partial(wrappers.FrameStackObservation, stack_size=4), (4, 64, 64, 3)),
        (partial(wrappers.MaxAndSkipObservation, skip=2), (64, 64, 3)),
        (partial(wrappers.StickyAction, repeat_action_probability=0.2), (64, 64, 3)),
        (partial(wrappers.TimeLimit, max_episode_steps=3), (64, 64, 3)),
        (partial(wrappers.AddRenderObservation, render_only=True), (512, 512, 3)),
    ],
)
def test_gymnasiums_wrappers_see_what_is_there(wrap, shape):
    env = wrap(make())
    observation, _ = env.reset(seed=1)
    assert np.shape(observation) == env.observation_space.shape == shape
    for _ in range(3):
        observation, _, _, truncated, _ = env.step(0)
    assert np.shape(observation) == shape
    assert truncated == isinstance(env, wrappers.TimeLimit)
    env.close()


def test_a_video_is_recorded(tmp_path):
    pytest.importorskip("moviepy", reason="the extra `video` is not installed")
    env = wrappers.RecordVideo(make(), str(tmp_path / "seen"))
    env.reset()
    for _ in range(5):
        env.step(0)
    env.close()
    assert (tmp_path / "seen" / "rl-video-episode-0.mp4").stat().st_size > 1000


@pytest.mark.parametrize("kind", [vector.SyncVectorEnv, vector.AsyncVectorEnv])
def test_gymnasiums_vectors_play_the_same_levels(kind):
    env = kind([make] * 2)
    observations, infos = env.reset(seed=5)
    alone = make()
    expected, info = alone.reset(seed=5)
    np.testing.assert_array_equal(observations[0], expected)
    assert infos["level_seed"][0] == info["level_seed"]
    observations, *_ = env.step(np.zeros(2, int))
    np.testing.assert_array_equal(observations[0], alone.step(0)[0])
    env.close()
    alone.close()


@pytest.mark.parametrize(
    "wrap", [wrappers.vector.RecordEpisodeStatistics, wrappers.vector.NormalizeReward]
)
def test_gymnasiums_wrappers_of_vectors(wrap):
    env = wrap(ProcgenVectorEnv("maze", 2, **LEVELS))
    env.reset(seed=1)
    for _ in range(3):
        observations, rewards, *_ = env.step(np.zeros(2, int))
    assert observations.shape == (2, 64, 64, 3) and rewards.shape == (2,)
    env.close()
