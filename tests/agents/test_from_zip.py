import base64
import importlib
import json
import sys
import types
import zipfile

import pytest
import torch
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.vec_env import VecNormalize

from rlbilinear import agents
from rlbilinear.agents import (
    AgentPolicy,
    BilinearPolicy,
    DeviceRolloutBuffer,
    FastPPO,
    agent_from_zip,
    architecture,
)
from rlbilinear.agents.bodies import Bimpala
from rlbilinear.agents.from_zip import FORMER_MODULES
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
    options = {"channels": 8, "run_its_code": True, "algorithm": A2C, **options}
    return agent_from_zip(file, name, game="maze", **options)


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
    with pytest.raises(ValueError, match="body is not bimpala-compact"):
        load(folder / "stock.zip", gate="relu")
    with pytest.raises(ValueError, match="body is not bimpala-compact"):
        load(folder / "stock.zip", pool="average")
    with pytest.raises(ValueError, match="body is not bimpala-compact"):
        load(folder / "other.zip")
    with pytest.raises(ValueError, match="net_arch"):
        load(folder / "between.zip")
    with pytest.raises(ValueError, match="choose from impala"):
        load(folder / "stock.zip", name="resnet")
    with pytest.raises(FileNotFoundError, match=r"none\.zip"):
        load(folder / "none.zip")


REFUSED = {
    "two bodies": ({"share_features_extractor": False}, "the critic's own body would be lost"),
    "undivided images": ({"normalize_images": False}, "normalize_images=False"),
}


@pytest.mark.parametrize(("options", "reason"), REFUSED.values(), ids=REFUSED)
def test_policies_that_would_act_differently_as_agents_are_refused(options, reason, tmp_path):
    env = ProcgenVecEnv("maze", 2, num_levels=2)
    kwargs = {"architecture": "bimpala-compact", "architecture_kwargs": {"channels": 8}, **options}
    A2C(AgentPolicy, env, policy_kwargs=kwargs, device="cpu").save(tmp_path / "model")
    env.close()
    with pytest.raises(ValueError, match=reason):
        load(tmp_path / "model.zip")


def test_a_model_of_normalised_observations_is_refused(tmp_path):
    """As an agent it would see other numbers: its actions would be others."""
    env = VecNormalize(ProcgenVecEnv("maze", 2, num_levels=2), norm_obs=True)
    body, options = architecture("bimpala-compact", channels=8)
    stock = {"features_extractor_class": body, "features_extractor_kwargs": options, "net_arch": []}
    stock["normalize_images"] = False
    A2C("CnnPolicy", env, policy_kwargs=stock, device="cpu").save(tmp_path / "model")
    env.close()
    with pytest.raises(ValueError, match=r"uint8 images .* got Box\(-10.*norm_obs"):
        load(tmp_path / "model.zip")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    env = ProcgenVecEnv("maze", 2, num_levels=2)
    kwargs = {"architecture": "bimpala-compact", "architecture_kwargs": {"channels": 8}}
    model = A2C(AgentPolicy, env, policy_kwargs=kwargs, device="cpu")
    with torch.no_grad():
        model.policy.features_extractor.layers.stem.bias[0] = torch.inf
    model.save(tmp_path / "model")
    env.close()
    with pytest.raises(ValueError, match=r"not finite: stem\.bias"):
        load(tmp_path / "model.zip")


def test_what_is_no_model_is_refused(saved, tmp_path):
    folder, _, _ = saved
    with pytest.raises(ValueError, match=r"unknown game 'chess'; choose one of bigfish"):
        agent_from_zip(folder / "own.zip", "bimpala", game="chess", run_its_code=True)
    for algorithm in (DQN, "PPO", None):
        with pytest.raises(TypeError, match="expected PPO, A2C or another with an actor"):
            agent_from_zip(
                folder / "own.zip", "bimpala", game="maze", run_its_code=True, algorithm=algorithm
            )
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ValueError, match="wasn't a zip-file"):
        load(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(ValueError, match=r"empty\.zip holds no A2C model: .*No data found"):
        load(tmp_path / "empty.zip")


@pytest.fixture
def old_names(monkeypatch):
    """As long as it is in force, classes are pickled by the names their modules had before."""
    former = types.ModuleType("agents")
    monkeypatch.setitem(sys.modules, "agents", former)
    for old, new in FORMER_MODULES.items():
        monkeypatch.setitem(sys.modules, old, importlib.import_module(new))
    for cls in (AgentPolicy, BilinearPolicy):
        monkeypatch.setattr(cls, "__module__", "agents.policy")
    monkeypatch.setattr(Bimpala, "__module__", "agents.trunks")
    monkeypatch.setattr(DeviceRolloutBuffer, "__module__", "agents.rollout_buffer")
    return monkeypatch


def pickled(file):
    """Return all pickles of a zip, one after another."""
    data = json.loads(zipfile.ZipFile(file).read("data"))
    parts = (part.get(":serialized:", "") for part in data.values() if isinstance(part, dict))
    return b"".join(map(base64.b64decode, parts))


@pytest.mark.parametrize("kind", ["stock", "own"])
def test_zips_of_before_the_modules_were_renamed_still_open(kind, old_names, tmp_path):
    env = ProcgenVecEnv("maze", 2, num_levels=2)
    body, options = architecture("bimpala-compact", channels=8)
    if kind == "stock":
        policy = "CnnPolicy"
        kwargs = {"features_extractor_class": body, "features_extractor_kwargs": options}
        kwargs["net_arch"] = []
    else:
        policy = BilinearPolicy
        kwargs = {"architecture": "bimpala-compact", "architecture_kwargs": {"channels": 8}}
    model = FastPPO(policy, env, n_steps=4, batch_size=8, policy_kwargs=kwargs, device="cpu")
    model.save(tmp_path / "model")
    observations = env.reset()
    env.close()
    expected = model.policy.get_distribution(torch.as_tensor(observations)).distribution.logits
    old_names.undo()
    names = pickled(tmp_path / "model.zip")
    assert b"rlbilinear" not in names
    assert (b"agents.trunks" if kind == "stock" else b"agents.policy") in names
    assert b"agents.rollout_buffer" in names
    with pytest.raises(ImportError):  # as it stands, and after the door was used
        FastPPO.load(tmp_path / "model.zip")
    agent = load(tmp_path / "model.zip", algorithm=FastPPO)
    torch.testing.assert_close(agent.logits(observations).log_softmax(1), expected.detach())
    assert not {"agents", *FORMER_MODULES} & sys.modules.keys()
    with pytest.raises(ImportError):
        FastPPO.load(tmp_path / "model.zip")


def test_former_names_are_those_of_modules_that_are_there():
    for module in FORMER_MODULES.values():
        importlib.import_module(module)
