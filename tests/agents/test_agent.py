import inspect

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import PolicyPredictor
from torch import nn

from rlbilinear.agents import Agent, AgentPolicy
from rlbilinear.envs import ProcgenVecEnv


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact", seed=1)


@pytest.fixture(scope="module")
def observations():
    return np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)


def test_activations_are_the_layers_outputs(agent, observations):
    got = agent.activations(
        observations, ["stem", "block1.bilinear", "dense", "value_net"], batch=2
    )
    x = torch.as_tensor(observations) / 255
    stem = agent.layer("stem")(x)
    torch.testing.assert_close(got["stem"], stem, rtol=1e-4, atol=1e-5)
    bilinear = agent.layer("block1.bilinear")(agent.layer("pool1")(stem))
    torch.testing.assert_close(got["block1.bilinear"], bilinear, rtol=1e-3, atol=1e-4)
    assert got["dense"].shape == (5, 256)
    assert got["value_net"].shape == (5, 1)
    assert not got["dense"].requires_grad


def test_logits_are_the_policys_own(agent, observations):
    distribution = agent.policy.get_distribution(torch.as_tensor(observations)).distribution
    expected = distribution.logits
    torch.testing.assert_close(agent.logits(observations).log_softmax(1), expected.detach())


def test_predictions_follow_the_policy_and_the_seed(agent, observations):
    many = np.repeat(observations[:1], 1000, axis=0)
    head = nn.Linear(256, 15)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.linspace(0, 3, 15))
    agent = agent.with_layer("action_net", head)
    actions, _ = agent.predict(many, generator=torch.Generator().manual_seed(0))
    again, _ = agent.predict(many, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(actions, again)
    share = np.bincount(actions, minlength=15) / 1000
    assert np.abs(share - head.bias.softmax(0).detach().numpy()).max() < 0.05
    assert (agent.predict(many[:3], deterministic=True)[0] == 14).all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((3, 64, 64), np.uint8),
        np.zeros((1, 3, 64, 64), np.float32),
        np.zeros((0, 3, 64, 64), np.uint8),
    ],
)
def test_observations_of_another_kind_are_refused(agent, wrong):
    with pytest.raises(ValueError, match=r"expected uint8 observations \(batch, 3, 64, 64\)"):
        agent.logits(wrong)


def test_unknown_layers_and_silent_ones_are_refused(agent, observations):
    with pytest.raises(ValueError, match="choose from stem"):
        agent.activations(observations, ["nonsense"])
    with pytest.raises(ValueError, match="no output of its own"):
        agent.activations(observations, ["block1.bilinear.left"])
    assert agent.layer("block1.bilinear.left").weight.shape == (32, 32, 3, 3)


def test_with_layer_refuses_what_does_not_fit(agent):
    with pytest.raises(ValueError, match=r"Conv2d does not fit block1"):
        agent.with_layer("block1", nn.Conv2d(5, 32, 1))
    with pytest.raises(ValueError, match=r"unknown layer 'block9'.*stem, pool1, block1"):
        agent.with_layer("block9", nn.Identity())


# --- in Stable-Baselines3's hands


def test_predict_takes_and_returns_what_theirs_does(agent, observations):
    theirs = [*inspect.signature(PolicyPredictor.predict).parameters.values()]
    ours = [*inspect.signature(agent.predict).parameters.values()]
    assert [p.name for p in ours[:4]] == [p.name for p in theirs[1:]]
    assert [p.default for p in ours[:4]] == [p.default for p in theirs[1:]]
    state, starts = (np.zeros((1, 4)),), np.zeros(5, bool)
    for given in (observations, observations.transpose(0, 2, 3, 1)):
        for seen in (given, given[2]):
            expected, _ = agent.policy.predict(seen, deterministic=True)
            actions, same = agent.predict(seen, state, starts, True)
            assert np.array_equal(actions, expected) and same is state
            assert actions.shape == expected.shape and actions.dtype == expected.dtype


@pytest.mark.parametrize("vectorised", [True, False])
def test_evaluate_policy_plays_an_agent_as_its_policy(agent, vectorised):
    def play(model):
        seen = []
        if vectorised:
            env = ProcgenVecEnv("maze", 2, num_levels=3, seed=0)
        else:
            env = gymnasium.make("rlbilinear/procgen-maze-v0", num_levels=3)
            env.reset(seed=0)
        torch.manual_seed(0)
        results = evaluate_policy(
            model,
            env,
            n_eval_episodes=2,
            deterministic=False,
            return_episode_rewards=True,
            warn=False,
            callback=lambda now, _: seen.append(int(now["actions"][now["i"]])),
        )
        env.close()
        return results, seen

    assert play(agent) == play(agent.policy)


def test_a_callback_can_ask_an_agent(agent):
    """As their evaluation callback does, another agent is played while a model learns."""

    class Play(BaseCallback):
        def __init__(self, played, env):
            super().__init__()
            self.played, self.env = played, env

        def _on_step(self):
            return True

        def _on_rollout_end(self):
            self.mean, _ = evaluate_policy(self.played, self.env, 2, warn=False)

    env, held_out = (ProcgenVecEnv("maze", 2, num_levels=2, seed=seed) for seed in (0, 1))
    model = PPO(
        AgentPolicy,
        env,
        n_steps=2,
        batch_size=4,
        n_epochs=1,
        policy_kwargs={"architecture": "bimpala-compact", "architecture_kwargs": {"channels": 4}},
    )
    played = Play(agent, held_out)
    model.learn(4, callback=played)
    assert played.mean in (0.0, 5.0, 10.0)
    env.close()
    held_out.close()
