"""Agents written for Stable-Baselines3 act there as they do here."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from rlbilinear.agents import ARCHITECTURES, Agent, AgentPolicy, agent_from_zip
from rlbilinear.edits.functional import add_bias_map
from rlbilinear.envs import ProcgenVecEnv

pytestmark = pytest.mark.filterwarnings("ignore:.*holds pickles")


@pytest.fixture(scope="module")
def observations():
    return np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), dtype=np.uint8)


def logits(model, observations):
    with torch.no_grad():
        return model.policy.get_distribution(torch.from_numpy(observations)).distribution.logits


def alike(model, agent, observations):
    ours = agent.logits(observations).log_softmax(1)
    torch.testing.assert_close(logits(model, observations), ours, atol=1e-5, rtol=1e-5)
    theirs, _ = model.predict(observations, deterministic=True)
    likely = ours.max(1).values - ours[range(len(ours)), theirs]
    assert (likely < 2e-5).all()  # the most likely, or as likely up to rounding


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ppo_load_gives_the_same_actions(architecture, observations, tmp_path):
    agent = Agent.new(architecture, seed=2)
    file = agent.to_sb3(tmp_path / "agent")
    assert file == tmp_path / "agent.zip"
    model = PPO.load(file, device="cpu")
    assert type(model.policy) is AgentPolicy
    alike(model, agent, observations)


def test_an_edited_agent_keeps_its_layers(observations, tmp_path):
    agent = Agent.new("bimpala-compact", seed=2)
    block = agent.layer("block1.bilinear")
    shift = torch.linspace(-1, 1, block.out_channels * 16 * 16).reshape(-1, 16, 16)
    edited = agent.with_layer("block1.bilinear", add_bias_map(block, shift))
    assert type(edited.layer("block1.bilinear")) is not type(block)
    assert not torch.allclose(edited.logits(observations), agent.logits(observations))
    model = PPO.load(edited.to_sb3(tmp_path / "edited.zip"), device="cpu")
    alike(model, edited, observations)


def test_it_can_be_trained_on(tmp_path):
    agent = Agent.new("bimpala-compact", seed=2, channels=8)
    file = agent.to_sb3(tmp_path / "agent")
    env = ProcgenVecEnv("maze", 2, num_levels=2)
    try:
        model = PPO.load(
            file, env=env, custom_objects={"n_steps": 8, "batch_size": 8, "n_epochs": 1}
        )
        model.learn(16)
    finally:
        env.close()
    assert model.num_timesteps == 16


def test_it_comes_back_as_the_agent(observations, tmp_path):
    agent = Agent.new("bimpala-compact", seed=2, channels=8)
    file = agent.to_sb3(tmp_path / "agent")
    again = agent_from_zip(file, "bimpala-compact", game="maze", run_its_code=True, channels=8)
    assert torch.equal(again.logits(observations), agent.logits(observations))


def test_pickles_are_warned_of_and_files_are_not_replaced(tmp_path):
    agent = Agent.new("bimpala-compact", channels=4)
    with pytest.warns(UserWarning, match=r"agent\.zip holds pickles"):
        agent.to_sb3(tmp_path / "agent")
    before = (tmp_path / "agent.zip").read_bytes()
    with pytest.raises(FileExistsError, match="exists; choose another name"):
        agent.to_sb3(tmp_path / "agent.zip")
    with pytest.raises(FileNotFoundError, match="no folder"):
        agent.to_sb3(tmp_path / "no" / "agent")
    assert (tmp_path / "agent.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]
