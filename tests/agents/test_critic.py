import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import VecNormalize

import agents
from agents import AgentPolicy, FastPPO
from agents.critic import adopt_critic, fitted
from agents.network import weights_of
from agents.options import TrainOptions
from agents.ppo import train
from envs import TRAINING, ProcgenVecEnv


def noise(steps=200, envs=3, seed=0):
    random = np.random.default_rng(seed)
    values = random.normal(size=(steps + 1, envs)) - 2
    rewards = values[:-1] * 3 + random.normal(size=(steps, envs)) + 1
    return values, rewards, random.random((steps, envs)) < 0.1


@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
def test_fitted_values_have_nothing_to_learn_from_their_targets(gae_lambda):
    """The targets are those of Stable-Baselines3, the regression is numpy's."""
    values, rewards, ends = noise()
    slope, offset = fitted(values, rewards, ends, 0.8, gae_lambda)
    steps, envs = rewards.shape
    buffer = RolloutBuffer(
        steps, spaces.Discrete(2), spaces.Discrete(2), "cpu", gae_lambda, 0.8, n_envs=envs
    )
    buffer.rewards, buffer.values = rewards, slope * values[:-1] + offset
    buffer.episode_starts[1:] = ends[:-1]
    last = torch.as_tensor(slope * values[-1] + offset)
    buffer.compute_returns_and_advantage(last, ends[-1])
    found = np.polyfit(buffer.values.flatten(), buffer.returns.flatten(), 1)
    np.testing.assert_allclose(found, [1, 0], atol=1e-5)
    assert slope > 1


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_true_values_are_found_from_other_units(gae_lambda):
    _, rewards, ends = noise()
    values = np.zeros((201, 3))
    values[-1] = [1, 2, 3]
    for step in reversed(range(200)):
        values[step] = rewards[step] + 0.9 * values[step + 1] * ~ends[step]
    found = fitted((values - 3) / 7, rewards, ends, 0.9, gae_lambda)
    np.testing.assert_allclose(found, [7, 3], rtol=1e-9)


def test_values_that_are_all_the_same():
    values, rewards, ends = noise()
    slope, offset = fitted(np.full_like(values, 2.0), rewards, ends, 0.9, 1.0)
    assert np.isfinite([slope, offset]).all()
    _, constant = fitted(np.zeros_like(values), rewards, ends, 0.9, 1.0)
    assert 2 * slope + offset == pytest.approx(constant)


def levels_of(num_envs):
    return ProcgenVecEnv("maze", num_envs, num_levels=100, start_level=TRAINING.start, seed=1)


def play(slope=1.0, offset=0.0, steps=64):
    """An agent of the zoo, its critic in other units, before training on mazes."""
    agent = agents.load("maze-impala-compact", device="cpu")
    env = levels_of(8)
    model = FastPPO(
        AgentPolicy,
        VecNormalize(env, norm_obs=False, gamma=0.999),
        gamma=0.999,
        policy_kwargs={"architecture": "impala-compact"},
        seed=1,
        device="cpu",
    )
    model.policy = agent.policy
    head = agent.policy.value_net
    with torch.no_grad():
        head.weight.mul_(slope)
        head.bias.mul_(slope).add_(offset)
    found = adopt_critic(model, steps)
    env.close()
    return model, found, torch.cat([head.weight.flatten(), head.bias]).detach()


def test_the_adopted_critic_predicts_normalised_returns():
    model, _, _ = play()
    normaliser = model.get_vec_normalize_env()
    assert normaliser.ret_rms.count == pytest.approx(8 * 64, abs=1)
    frames = torch.from_numpy(levels_of(100).reset())
    values = model.policy.predict_values(frames).detach() * normaliser.ret_rms.var**0.5
    assert values.mean().item() == pytest.approx(9.8, abs=0.4)  # 10 at the cheese, discounted
    assert model.num_timesteps == 0 and model._last_obs is None


def test_the_units_of_the_given_critic_do_not_matter():
    _, (slope, offset), head = play()
    _, (other, shift), same = play(slope=0.2, offset=5.0)
    assert other == pytest.approx(slope / 0.2, rel=1e-3)
    assert shift == pytest.approx(offset - other * 5, rel=1e-3)
    torch.testing.assert_close(same, head, rtol=1e-3, atol=1e-4)


def test_a_critic_that_predicts_the_opposite_is_left():
    _, found, head = play(slope=-1.0)
    value_net = agents.load("maze-impala-compact", device="cpu").policy.value_net
    assert found == (1.0, 0.0)
    torch.testing.assert_close(head, -torch.cat([value_net.weight.flatten(), value_net.bias]))


def test_training_goes_on_from_an_adopted_critic(tmp_path):
    agent = agents.load("maze-impala-compact", device="cpu")
    other = agents.load("maze-impala-compact", device="cpu")
    with torch.no_grad():
        other.policy.value_net.weight.mul_(4)
        other.policy.value_net.bias.mul_(4).sub_(9)
    options = TrainOptions(
        tmp_path,
        game="maze",
        num_envs=8,
        num_steps=32,
        minibatches=1,
        epochs=1,
        frames=256,
        held_out=1,
        evaluate_every=0,
        device="cpu",
        progress=False,
    )
    trained = []
    for name, start in (("one", agent), ("other", other)):
        start.save(tmp_path / name)
        place = {"out": tmp_path / f"run {name}", "init_from": str(tmp_path / name)}
        train(dataclasses.replace(options, **place))
        first = agents.load(tmp_path / f"run {name}" / "trajectory" / f"{0:012d}", device="cpu")
        trained.append(weights_of(first.policy))
    assert not torch.equal(trained[0]["value_net.weight"], agent.policy.value_net.weight)
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, rtol=1e-2, atol=2e-3, msg=name)
