"""The single-file PPO that the benchmark sets beside ours: it is PPO, and it learns."""

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from torch import nn

from rlbilinear.benchmarks.single_file import GAMMA, LAMBDA, ActorCritic, SingleFilePPO
from rlbilinear.envs import ProcgenVecEnv

STEPS, ENVS = 12, 3


def made(env):
    torch.manual_seed(0)
    body = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, 8), nn.ReLU())
    return SingleFilePPO(ActorCritic(body, 8, 15), env, STEPS, 2, torch.device("cpu"))


def test_advantages_are_those_of_stable_baselines3():
    env = ProcgenVecEnv("coinrun", ENVS, num_levels=2)
    ppo, random = made(env), np.random.default_rng(0)
    rewards, values = random.normal(size=(2, STEPS, ENVS)).astype(np.float32)
    starts = (random.random((STEPS + 1, ENVS)) < 0.2).astype(np.float32)
    after = torch.as_tensor(random.normal(size=ENVS), dtype=torch.float32)
    buffer = RolloutBuffer(
        STEPS, env.observation_space, env.action_space, "cpu", LAMBDA, GAMMA, n_envs=ENVS
    )
    buffer.rewards[:], buffer.values[:], buffer.episode_starts[:] = rewards, values, starts[:-1]
    buffer.compute_returns_and_advantage(after, starts[-1])
    ppo._done = torch.as_tensor(starts[-1])
    found = ppo._advantages(*map(torch.as_tensor, (rewards, values, starts[:-1])), after)
    np.testing.assert_allclose(found, buffer.advantages, atol=1e-5)
    env.close()


def test_observations_reach_the_network_as_the_simulator_has_them():
    env = ProcgenVecEnv("coinrun", ENVS, num_levels=2)
    ppo = made(env)
    seen = []
    ppo.network.body.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        ppo.network(ppo._observations)
    assert torch.equal(seen[0], torch.as_tensor(env.observe()) / 255)
    env.close()


def test_what_is_rewarded_becomes_likelier():
    """One action is rewarded and no other, whatever the game says."""
    env = ProcgenVecEnv("coinrun", ENVS, num_levels=2)
    step = env.step

    def rewarded(actions):
        observations, _, dones, infos = step(actions)
        return observations, (actions == 7).astype(np.float32), dones, infos

    env.step = rewarded
    ppo = made(env)

    def chance():
        with torch.no_grad():
            return ppo.network(ppo._observations)[0].probs[:, 7].mean().item()

    before = chance()
    for _ in range(60):
        ppo.learn()
    assert chance() > 2 * before
    env.close()
