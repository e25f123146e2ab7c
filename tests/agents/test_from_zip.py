import pytest
import torch
from stable_baselines3 import A2C

from rlbilinear import agents
from rlbilinear.agents import AgentPolicy, agent_from_zip, architecture
from rlbilinear.envs import ProcgenVecEnv


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A stock policy on one of our bodies, our own policy, and one with a network in between."""
    folder = tmp_path_factory.mktemp("zips")
    env = ProcgenVecEnv("maze", 2, num_levels=2)
    body, options = architecture("bimpala-compact", channels=8)
    stock = {"features_extractor_class": body, "features_extractor_kwargs": options}
    made = {
        "stock": A2C("CnnPolicy", env, policy_kwargs={**stock, "net_arch": []}, device="cpu"),
        "own": A2C(
            AgentPolicy,
            env,
            policy_kwargs={
                "architecture": "bimpala-compact",
                "architecture_kwargs": {"channels": 8},
            },
            device="cpu",
        ),
        "between": A2C("CnnPolicy", env, policy_kwargs={**stock, "net_arch": [4]}, device="cpu"),
        "other": A2C("CnnPolicy", env, device="cpu"),
    }
    for name, model in made.items():
        model.save(folder / name)
    observations = env.reset()
    env.close()
    return folder, made, observations


def load(file, name="bimpala-compact", **options):
    options = {"channels": 8, "run_its_code": True, **options}
    return agent_from_zip(file, name, game="maze", algorithm=A2C, **options)


@pytest.mark.parametrize("kind", ["stock", "own"])
def test_agent_does_what_the_model_did_and_is_saved_without_code(saved, kind, tmp_path):
    folder, made, observations = saved
    policy = made[kind].policy
    with torch.no_grad():
        expected = policy.get_distribution(torch.as_tensor(observations)).distribution.logits
    agent = load(folder / f"{kind}.zip")
    logits = agent.logits(observations).log_softmax(1)
    torch.testing.assert_close(logits, expected)
    agent.save(tmp_path / "agent")
    loaded = agents.load(tmp_path / "agent", device="cpu")
    assert torch.equal(loaded.logits(observations), agent.logits(observations))


def test_a_zip_is_not_opened_without_consent(tmp_path):
    file = tmp_path / "model.zip"
    file.write_bytes(b"would fail to open")
    for consent in (False, 1, "yes"):
        with pytest.raises(PermissionError, match=r"runs the code in them.*run_its_code=True"):
            load(file, run_its_code=consent)


def test_what_the_zip_does_not_hold_is_refused(saved):
    folder, _, _ = saved
    with pytest.raises(ValueError, match="body is no bimpala-compact"):
        load(folder / "stock.zip", gate="relu")
    with pytest.raises(ValueError, match="body is no bimpala-compact"):
        load(folder / "stock.zip", pool="average")
    with pytest.raises(ValueError, match="body is no bimpala-compact"):
        load(folder / "other.zip")
    with pytest.raises(ValueError, match="net_arch"):
        load(folder / "between.zip")
    with pytest.raises(ValueError, match="choose from impala"):
        load(folder / "stock.zip", name="resnet")
    with pytest.raises(FileNotFoundError, match=r"none\.zip"):
        load(folder / "none.zip")
