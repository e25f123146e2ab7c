"""Agents on the Hub: sent and fetched through a server of its protocol, and through a folder."""

import errno
import json

import numpy as np
import pytest
import torch
from torch import nn

from rlbilinear.agents import Agent, CheckpointError, load
from rlbilinear.agents.hub import MIRROR, HubAddress, HubError
from rlbilinear.agents.hub_push import model_card

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
constants = pytest.importorskip("huggingface_hub.constants")
from hub_server import running_hub  # noqa: E402  (reads YAML by what comes with huggingface_hub)


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact", game="coinrun", seed=3)


@pytest.fixture(scope="module")
def observations():
    return np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of huggingface_hub; large files go by Git LFS, nothing leaves the machine."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_these_tests")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv(MIRROR, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache, monkeypatch):
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def folder(cache, tmp_path, monkeypatch):
    place = tmp_path / "mirror"
    place.mkdir()
    monkeypatch.setenv(MIRROR, str(place))
    return place


def fetched_files(cache):
    return sorted(path.name for path in cache.glob("**/snapshots/*/*"))


# --- there and back


def test_a_pushed_agent_loads_as_it_was(agent, observations, hub, cache):
    address = agent.push_to_hub("someone/coin")
    files = hub.repositories["someone/coin"].commits[address.revision]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert len(address.revision) == 40 and len(address.sha256) == 64
    for text in (str(address), "hf://someone/coin", "hf://someone/coin@main"):
        loaded = load(text, device="cpu")
        assert loaded.config == agent.config
        assert torch.equal(loaded.logits(observations), agent.logits(observations))
    assert fetched_files(cache) == ["README.md", "config.json", "model.safetensors"]


def test_the_weights_went_as_a_large_file_in_one_commit(agent, hub):
    agent.push_to_hub("someone/coin")
    repository = hub.repositories["someone/coin"]
    assert repository.large == {"model.safetensors"}
    assert len(repository.commits) == 2  # that of the new repository, and ours


def test_a_mirror_is_used_in_place_of_the_endpoint(agent, cache, monkeypatch):
    with running_hub() as mirror:
        monkeypatch.setenv(MIRROR, mirror.url + "/")
        agent.push_to_hub("someone/coin")
        assert load("hf://someone/coin", device="cpu").config == agent.config
        assert {"HEAD", "GET", "POST", "PUT"} >= {command for command, _ in mirror.requests}


def test_a_folder_stands_for_the_hub(agent, observations, folder):
    address = agent.push_to_hub("someone/coin", dtype=torch.float16)
    for text in (str(address), "hf://someone/coin"):
        loaded = load(text, device="cpu")
        torch.testing.assert_close(
            loaded.logits(observations), agent.logits(observations), atol=1e-2, rtol=1e-2
        )
    assert agent.push_to_hub("someone/coin", dtype=torch.float16) == address  # the same commit
    assert not [path for path in folder.rglob("*") if ".new" in path.name]


def test_a_copy_of_huggingface_hubs_cache_is_such_a_folder(agent, hub, cache, monkeypatch):
    address = agent.push_to_hub("someone/coin")
    load("hf://someone/coin", device="cpu")
    monkeypatch.setenv(MIRROR, str(cache))
    hub.down = True
    for text in (str(address), "hf://someone/coin"):
        assert load(text, device="cpu").config == agent.config


def test_branches_are_kept_apart(agent, hub):
    other = Agent.new("bimpala-compact", game="maze", seed=4)
    agent.push_to_hub("someone/both")
    other.push_to_hub("someone/both", revision="maze")
    assert load("hf://someone/both", device="cpu").config.game == "coinrun"
    assert load("hf://someone/both@maze", device="cpu").config.game == "maze"


def test_what_was_fetched_is_not_fetched_again(agent, hub):
    text = str(agent.push_to_hub("someone/coin"))
    load(text, device="cpu")
    asked = len([path for command, path in hub.requests if command == "GET" and "resolve" in path])
    load(text, device="cpu")
    again = len([path for command, path in hub.requests if command == "GET" and "resolve" in path])
    assert asked == again == 3


# --- the card


def test_the_hub_reads_the_card(agent):
    made = {"scores": {"sampled": {"return": 9.5}, "greedy": {"return": 9.25}}}
    config = agent.config.__class__(**{**vars(agent.config), "made": made})
    card = huggingface_hub.ModelCard(
        model_card(Agent(agent.policy, config), "someone/coin", card=None, license="mit")
    )
    assert card.data.license == "mit" and card.data.library_name == "rlbilinear"
    assert {"reinforcement-learning", "procgen-coinrun"} <= set(card.data.tags)
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found == {"mean return, sampled actions": 9.5, "mean return, greedy actions": 9.25}
    assert 'agents.load("hf://someone/coin")' in card.text and "9.50" in card.text


def test_an_edited_agent_does_not_carry_the_scores_of_the_original(agent):
    made = {"scores": {"sampled": {"return": 9.5}}}
    config = agent.config.__class__(**{**vars(agent.config), "made": made})
    whole = Agent(agent.policy, config)
    edited = whole.with_layer("value_net", nn.Linear(256, 1), edit="a new critic")
    card = huggingface_hub.ModelCard(model_card(edited, "a/b", card=None, license="mit"))
    assert card.data.eval_results is None
    assert "edited: a new critic" in card.text and "9.5" not in card.text


def test_a_card_of_ones_own_is_kept(agent, hub):
    address = agent.push_to_hub("someone/coin", card="# My coin runner\n", license="cc0-1.0")
    text = hub.repositories["someone/coin"].commits[address.revision]["README.md"].decode()
    assert "# My coin runner" in text and "license: cc0-1.0" in text and "agents.load" in text


# --- what cannot be had


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://owner", "hf://owner/name@", "hf://owner/na me", "hf://../name", "hf://a/b#1"],
)
def test_other_addresses_are_refused(text):
    with pytest.raises(ValueError, match="expected hf://owner/name, hf://owner/name@revision or"):
        load(text)


def test_addresses_are_read_as_they_are_written():
    for text in ("hf://a/b@main", "hf://a/b@v1.0", "hf://a/b@c0ffee#sha256=" + 64 * "a"):
        assert str(HubAddress.parse(text)) == text
    assert HubAddress.parse("hf://a/b") == HubAddress("a/b", "main", None)


@pytest.mark.parametrize("repository", ["name", "a/b@c", "a/b/c", "", "a/ b"])
def test_other_repositories_are_refused_before_anything_is_sent(agent, hub, repository):
    with pytest.raises(ValueError, match=r"hf://owner/name|owner/name and a branch"):
        agent.push_to_hub(repository)
    assert not hub.requests


def test_a_repository_that_is_not_there(hub):
    with pytest.raises(ValueError, match="has no repository some/one, or it is private"):
        load("hf://some/one")


def test_a_revision_that_is_not_there(agent, hub):
    agent.push_to_hub("someone/coin")
    with pytest.raises(ValueError, match="has no revision 'v2'; it has main"):
        load("hf://someone/coin@v2")


def test_a_repository_and_a_revision_that_are_not_in_the_folder(agent, folder):
    with pytest.raises(ValueError, match="holds no someone/coin"):
        load("hf://someone/coin")
    agent.push_to_hub("someone/coin")
    with pytest.raises(ValueError, match="no such revision; choose a commit or main"):
        load("hf://someone/coin@v2")
    with pytest.raises(ValueError, match="no such revision"):
        load("hf://someone/coin@" + 40 * "0")


def test_a_mirror_that_is_neither_folder_nor_address(agent, cache, monkeypatch):
    monkeypatch.setenv(MIRROR, "/nowhere")
    with pytest.raises(ValueError, match="RLBILINEAR_HUB=/nowhere: expected a folder"):
        load("hf://someone/coin")


def test_a_branch_that_moved_is_noticed_when_the_hash_is_given(agent, hub):
    before = agent.push_to_hub("someone/coin")
    Agent.new("bimpala-compact", game="coinrun", seed=4).push_to_hub("someone/coin")
    load(str(before), device="cpu")  # the commit still is what it was
    with pytest.raises(HubError, match="has changed: its weights now have the SHA-256"):
        load(f"hf://someone/coin@main#sha256={before.sha256}")


def test_weights_that_were_altered_on_the_way_are_refused(agent, hub):
    address = agent.push_to_hub("someone/coin")
    files = hub.repositories["someone/coin"].commits[address.revision]
    weights = bytearray(files["model.safetensors"])
    weights[-1] ^= 1
    files["model.safetensors"] = bytes(weights)
    with pytest.raises(CheckpointError, match="truncated or altered: its sha256"):
        load(str(address))


def test_another_hash_in_the_configuration_does_not_hide_other_weights(agent, hub):
    address = agent.push_to_hub("someone/coin")
    files = hub.repositories["someone/coin"].commits[address.revision]
    config = json.loads(files["config.json"])
    config["weights"]["sha256"] = 64 * "0"
    files["config.json"] = json.dumps(config).encode()
    with pytest.raises(HubError, match="has changed"):
        load(str(address))


def test_other_models_and_pickles_are_not_read(hub, agent):
    address = agent.push_to_hub("someone/coin")
    files = hub.repositories["someone/coin"].commits[address.revision]
    del files["model.safetensors"]
    files["pytorch_model.bin"] = b"a pickle"
    with pytest.raises(HubError, match=r"lacks model\.safetensors.*pickles above all"):
        load("hf://someone/coin")
    assert not any("pytorch_model.bin" in path for _, path in hub.requests)


def test_a_file_that_ends_in_the_middle_is_no_file(agent, hub, cache):
    agent.push_to_hub("someone/coin")
    hub.cut = True
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        load("hf://someone/coin")
    assert fetched_files(cache) == []
    hub.cut = False
    assert load("hf://someone/coin", device="cpu").config == agent.config


def test_without_room_on_the_disk_it_says_so_and_fetches_later(agent, hub, cache, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    agent.push_to_hub("someone/coin")
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        with pytest.raises(OSError, match=rf"no room on the disk for hf://.* in {cache}"):
            load("hf://someone/coin")
    assert fetched_files(cache) == []
    assert load("hf://someone/coin", device="cpu").config == agent.config


def test_without_a_network_it_says_so(agent, cache):
    with pytest.raises(OSError, match=r"cannot reach http://127.0.0.1:9 .* not fetched before"):
        load("hf://someone/coin")
    with pytest.raises(OSError, match="cannot reach"):
        agent.push_to_hub("someone/coin")
    assert fetched_files(cache) == []


def test_without_a_network_a_branch_is_what_it_was_and_a_warning_says_so(agent, hub, monkeypatch):
    address = agent.push_to_hub("someone/coin")
    load("hf://someone/coin", device="cpu")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.warns(UserWarning, match=f"the copy fetched before, commit {address.revision}"):
        assert load("hf://someone/coin", device="cpu").config == agent.config


def test_a_server_that_fails_is_named(agent, hub):
    agent.push_to_hub("someone/coin")
    hub.down = True
    with pytest.raises(OSError, match=rf"{hub.url} did not answer for hf://someone/coin"):
        load("hf://someone/coin")
