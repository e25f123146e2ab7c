import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import VecNormalize

from rlbilinear import agents
from rlbilinear.agents import AgentPolicy, FastPPO
from rlbilinear.agents.critic import adopt_critic, fitted
from rlbilinear.agents.network import weights_of
from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.ppo import train
from rlbilinear.envs import TRAINING, ProcgenVecEnv


def noise(steps=200, envs=3, seed=0):
    random = np.random.default_rng(seed)
    values = random.normal(size=(steps + 1, envs)) - 2
    rewards = values[:-1] * 3 + random.normal(size=(steps, envs)) + 1
    return values, rewards, random.random((steps, envs)) < 0.1


def test_fitted_values_have_nothing_to_learn_from_their_returns():
    """The returns are those of Stable-Baselines3, the regression is numpy's."""
    values, rewards, ends = noise()
    slope, offset = fitted(values, rewards, ends, 0.8)
    steps, envs = rewards.shape
    buffer = RolloutBuffer(
        steps, spaces.Discrete(2), spaces.Discrete(2), "cpu", 1.0, 0.8, n_envs=envs
    )
    buffer.rewards, buffer.values = rewards, slope * values[:-1] + offset
    buffer.episode_starts[1:] = ends[:-1]
    last = torch.as_tensor(slope * values[-1] + offset)
    buffer.compute_returns_and_advantage(last, ends[-1])
    found = np.polyfit(buffer.values.flatten(), buffer.returns.flatten(), 1)
    np.testing.assert_allclose(found, [1, 0], atol=1e-5)
    assert slope > 1


def episodes(shortest, longest, seed=0, steps=256, envs=64, gamma=0.999):
    """True values, rewards and ends of episodes with a reward of 10 at the end."""
    random = np.random.default_rng(seed)
    left = random.integers(shortest, longest + 1, envs)
    values, rewards, ends = [], [], []
    for _ in range(steps + 1):
        values.append(10 * gamma ** (left - 1))
        ends.append(left == 1)
        rewards.append(10.0 * ends[-1])
        left = np.where(ends[-1], random.integers(shortest, longest + 1, envs), left - 1)
    return np.stack(values), np.stack(rewards)[:-1], np.stack(ends)[:-1]


@pytest.mark.parametrize("lengths", [(10, 50), (100, 800)])
def test_true_values_are_found_from_other_units(lengths):
    values, rewards, ends = episodes(*lengths)
    np.testing.assert_allclose(fitted((values - 3) / 7, rewards, ends, 0.999), [7, 3], rtol=1e-9)


@pytest.mark.parametrize(("lengths", "size"), [((10, 50), 0.2), ((100, 800), 0.5)])
def test_values_with_errors_become_the_best_guess_of_the_true_ones(lengths, size):
    """As a regression on the true values gives, which are not known in a run."""
    slopes, expected = [], []
    for seed in range(4):
        values, rewards, ends = episodes(*lengths, seed=seed)
        guesses = values + np.random.default_rng(seed).normal(size=values.shape) * size
        slopes.append(fitted(guesses, rewards, ends, 0.999).slope)
        expected.append(np.polyfit(guesses.flatten(), values.flatten(), 1)[0])
    assert np.mean(slopes) == pytest.approx(np.mean(expected), rel=0.1)


@pytest.mark.parametrize("constant", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("jitter", [0.0, 2e-7])
def test_values_that_say_nothing_become_the_mean_return(constant, jitter):
    values, rewards, ends = noise()
    flat = constant + jitter * values
    slope, offset = fitted(flat, rewards, ends, 0.9)
    assert slope == 0
    falling = fitted(-values, rewards, ends, 0.9)
    assert falling == (0, offset)
    buffer = RolloutBuffer(200, spaces.Discrete(2), spaces.Discrete(2), "cpu", 1.0, 0.9, n_envs=3)
    buffer.rewards, buffer.values = rewards, np.full_like(rewards, offset)
    buffer.episode_starts[1:] = ends[:-1]
    buffer.compute_returns_and_advantage(torch.full((3,), offset), ends[-1])
    assert buffer.advantages.mean() == pytest.approx(0, abs=1e-5)


def levels_of(num_envs):
    return ProcgenVecEnv("maze", num_envs, num_levels=100, start_level=TRAINING.start, seed=1)


def play(slope=1.0, offset=0.0, steps=64, bias=True):
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
    if not bias:
        head.bias = None
    try:
        found = adopt_critic(model, steps)
    finally:
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


def test_a_critic_that_predicts_the_opposite_begins_anew():
    _, (slope, offset), head = play(slope=-1.0)
    assert slope == 0
    assert head[:-1].eq(0).all() and head[-1].item() == pytest.approx(offset)


def test_a_critic_that_cannot_be_fitted_is_refused():
    with pytest.raises(FloatingPointError, match="expected returns are not finite"):
        play(offset=float("inf"))
    with pytest.raises(ValueError, match="value_net has no bias"):
        play(bias=False)


def options(out, start, **changes):
    settings = {
        "game": "maze",
        "init_from": str(start),
        "num_envs": 8,
        "num_steps": 32,
        "minibatches": 1,
        "epochs": 1,
        "frames": 512,
        "held_out": 1,
        "evaluate_every": 0,
        "save_every": 256,
        "device": "cpu",
        "progress": False,
    }
    return TrainOptions(out, **(settings | changes))


def test_training_does_not_depend_on_the_units_of_the_given_critic(tmp_path):
    agent = agents.load("maze-impala-compact", device="cpu")
    other = agents.load("maze-impala-compact", device="cpu")
    with torch.no_grad():
        other.policy.value_net.weight.mul_(4)
        other.policy.value_net.bias.mul_(4).sub_(9)
    trained = []
    for name, start in (("one", agent), ("other", other)):
        start.save(tmp_path / name)
        trained.append(train(options(tmp_path / f"run {name}", tmp_path / name)))
    one, two = (weights_of(each.policy) for each in trained)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-2, atol=2e-3, msg=name)
    slopes = [each.config.made["critic"]["slope"] for each in trained]
    assert slopes[0] == pytest.approx(4 * slopes[1], rel=1e-3)


def test_a_run_from_an_agent_that_was_stopped_ends_in_the_same_bytes(tmp_path):
    start = "maze-impala-compact"
    whole = train(options(tmp_path / "whole", start))
    train(options(tmp_path / "parts", start, frames=256))
    parts = train(options(tmp_path / "parts", start), resume=True)
    assert parts.config.made["critic"] == whole.config.made["critic"]
    assert parts.config.made["from"] == whole.config.made["from"]
    for name, weight in weights_of(whole.policy).items():
        assert torch.equal(weights_of(parts.policy)[name], weight), name


def test_an_agent_that_cannot_play_is_refused_with_a_reason(tmp_path):
    agent = agents.load("maze-impala-compact", device="cpu")
    with torch.no_grad():
        agent.policy.action_net.weight.mul_(3e38)
    agent.save(tmp_path / "start")
    with pytest.raises(FloatingPointError, match=r"after 0 frames.*action logits are not finite"):
        train(options(tmp_path / "run", tmp_path / "start"))
