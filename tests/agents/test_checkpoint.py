import copy
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rlbilinear import BilinearLinear, agents, scale_eigenfilters
from rlbilinear.agents import Agent, CheckpointError
from rlbilinear.agents.document import canonical, sealed
from rlbilinear.agents.network import weights_of
from rlbilinear.edits.functional import add_bias_map, scaling_matrix


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact", seed=1)


@pytest.fixture(scope="module")
def observations():
    return np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)


@pytest.fixture
def folder(agent, tmp_path):
    agent.save(tmp_path / "agent")
    return tmp_path / "agent"


def rewrite(folder, change):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(sealed(config)))


# --- round trips


@pytest.mark.parametrize("architecture", agents.ARCHITECTURES)
def test_saved_agent_loads_as_it_was(architecture, observations, tmp_path):
    agent = Agent.new(architecture, game="heist", seed=3)
    agent.save(tmp_path / "a")
    loaded = agents.load(tmp_path / "a", device="cpu")
    assert loaded.config == agent.config
    assert torch.equal(loaded.logits(observations), agent.logits(observations))
    loaded.save(tmp_path / "b")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_loading_draws_no_random_number_and_nothing_is_pickled(folder):
    state = torch.get_rng_state()
    agents.load(folder, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_half_precision_halves_the_file_and_loads_as_float32(agent, observations, tmp_path):
    agent.save(tmp_path / "full")
    agent.save(tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.51 * sizes[1]
    half = agents.load(tmp_path / "half", device="cpu")
    for name, weight in weights_of(half.policy).items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, weights_of(agent.policy)[name].half().float())


def test_loaded_policy_can_be_trained(folder, observations):
    policy = agents.load(folder, device="cpu").policy
    _, log_prob, _ = policy.evaluate_actions(
        torch.as_tensor(observations), torch.zeros(5, dtype=torch.long)
    )
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    log_prob.sum().backward()
    for group in policy.optimizer.param_groups:
        group["lr"] = 0.1
    policy.optimizer.step()
    moved = [name for name, w in policy.named_parameters() if not torch.equal(w, before[name])]
    assert {"action_net.weight", "features_extractor.layers.stem.weight"} <= set(moved)


# --- edits


def skip_edit(agent):
    block = copy.deepcopy(agent.layer("block2"))
    block.skip = nn.Conv2d(32, 32, 1, bias=False)
    with torch.no_grad():
        block.skip.weight.copy_(scaling_matrix(torch.arange(32.0), 0.5)[:, :, None, None])
    return "block2", block


def filter_edit(agent):
    layer = agent.layer("block1.bilinear")
    return "block1.bilinear", scale_eigenfilters(layer, torch.ones(32), {0: -1.0, 3: 0.0})


def dense_edit(agent):
    return "dense", scale_eigenfilters(agent.layer("dense"), torch.ones(256), {1: 2.0})


def bias_edit(layer):
    def edit(agent):
        shape = agent.activations(np.zeros((1, 3, 64, 64), np.uint8), [layer])[layer].shape[1:]
        bias = torch.linspace(-1, 1, shape.numel()).reshape(shape)
        return layer, add_bias_map(agent.layer(layer), bias)

    return edit


EDITS = {
    "eigenfilters": [filter_edit],
    "dense eigenvectors": [dense_edit],
    "skip": [skip_edit],
    "bias after a pool": [bias_edit("pool1")],
    "bias of a head": [bias_edit("action_net")],
    "bias inside a block": [bias_edit("block3.bilinear")],
    "many": [filter_edit, skip_edit, bias_edit("block1"), bias_edit("stem"), dense_edit],
}


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
def test_edited_agents_save_and_load_like_any_other(agent, edits, observations, tmp_path):
    original = agent.logits(observations)
    edited = agent
    for edit in edits:
        name, layer = edit(edited)
        edited = edited.with_layer(name, layer, edit=f"edited {name}")
    assert torch.equal(agent.logits(observations), original)
    assert not torch.allclose(edited.logits(observations), original, rtol=0, atol=1e-6)

    edited.save(tmp_path / "edited")
    loaded = agents.load(tmp_path / "edited", device="cpu")
    assert torch.equal(loaded.logits(observations), edited.logits(observations))
    assert loaded.config.edits == tuple(f"edited {edit(agent)[0]}" for edit in edits)
    assert loaded.layer_names == edited.layer_names
    loaded.save(tmp_path / "again")
    saved = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("edited", "again")]
    assert saved[0] == saved[1]


def test_skip_edit_does_what_its_matrix_says(agent, observations):
    name, block = skip_edit(agent)
    edited = agent.with_layer(name, block)
    x = agent.activations(observations, ["block1"])["block1"]
    direction = torch.arange(32.0) / torch.arange(32.0).norm()
    change = -0.5 * torch.einsum("c,nchw->nhw", direction, x)[:, None] * direction[:, None, None]
    got = edited.activations(observations, [name])[name]
    expected = agent.activations(observations, [name])[name] + change
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_layers_of_unknown_types_are_not_saved(agent, tmp_path):
    odd = agent.with_layer("block1", nn.Tanh())
    with pytest.raises(ValueError, match=r"block1 is a Tanh.*choose from Conv2d"):
        odd.save(tmp_path / "odd")
    assert list(tmp_path.iterdir()) == []


# --- refusals


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def alter(folder):
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def reseal(folder, network=None, weights=None):
    """Write another network or other weights so that hash and description agree."""
    file = folder / "model.safetensors"
    config = json.loads((folder / "config.json").read_text())
    config["network"].update(network or {})
    weights = load_file(file) | (weights or {})
    save_file(weights, file, metadata={"network": canonical(config["network"])})
    config["weights"] |= {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "dtype": str(next(iter(weights.values())).dtype).removeprefix("torch."),
        "parameters": sum(weight.numel() for weight in weights.values()),
    }
    (folder / "config.json").write_text(json.dumps(sealed(config)))


def with_weight(name, value):
    """Put one value into the weights, sealed."""

    def change(folder):
        weight = load_file(folder / "model.safetensors")[name].clone()
        weight.view(-1)[3] = value
        reseal(folder, weights={name: weight})

    return change


def as_integers(folder):
    weights = load_file(folder / "model.safetensors")
    reseal(folder, weights={name: weight.to(torch.int8) for name, weight in weights.items()})


def with_head(outputs):
    """Give the agent another action head, weights and description alike, sealed."""

    def change(folder):
        entry = {"in_features": 256, "out_features": outputs, "bias": True}
        structure = [{"layer": "action_net", "type": "Linear", "arguments": entry}]
        weights = {"action_net.weight": torch.zeros(outputs, 256)}
        weights["action_net.bias"] = torch.zeros(outputs)
        reseal(folder, {"structure": structure}, weights)

    return change


def setting(path, value):
    """Write a value into the configuration."""

    def change(config):
        *parents, leaf = path
        for name in parents:
            config = config[name]
        config[leaf] = value

    return lambda folder: rewrite(folder, change)


def module(kind, **arguments):
    return {"structure": [{"layer": "stem", "type": kind, "arguments": arguments}]}


CORRUPTIONS = {
    "truncated weights": (truncate, "truncated or altered"),
    "altered weights": (alter, "truncated or altered"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "lacks model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "lacks config.json"),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), "not JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "expected rlbilinear-agent"),
    "later version": (lambda f: rewrite(f, lambda c: c.update(version=2)), "version 1"),
    "altered network": (
        lambda f: rewrite(f, lambda c: c["network"].update(architecture="impala")),
        "config.json was altered",
    ),
    "altered record": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace('"seed": 1', '"seed": 2')
        ),
        "it was altered: it does not fit its sha256",
    ),
    "other shapes": (
        lambda f: reseal(f, weights={"stem.weight": torch.zeros(32, 3, 3, 3)}),
        r"another architecture.*stem.weight",
    ),
    "additional weights": (
        lambda f: reseal(f, weights={"extra": torch.zeros(1)}),
        r"another architecture.*extra",
    ),
    "other architecture": (
        lambda f: reseal(f, {"architecture": "impala"}),
        r"another architecture.*block1.bilinear.left.weight",
    ),
    "unknown architecture": (
        lambda f: reseal(f, {"architecture": "vgg"}),
        "unknown architecture 'vgg'",
    ),
    "unknown argument": (
        lambda f: reseal(f, {"architecture_kwargs": {"depth": 5}}),
        "bimpala-compact has no option depth",
    ),
    "unknown module": (lambda f: reseal(f, module("os.system")), "unknown type 'os.system'"),
    "huge module": (
        lambda f: reseal(f, module("Linear", in_features=10**7, out_features=10**7)),
        "layers do not fit each other",
    ),
    "field missing": (
        lambda f: rewrite(f, lambda c: c.pop("game")),
        "the document lacks field game",
    ),
    "fields missing": (
        lambda f: rewrite(f, lambda c: c["network"].clear()),
        "network lacks fields actions, architecture, ",
    ),
    "unknown field": (setting(["weights", "shape"], 3), "weights has unknown field shape"),
    "weights a list": (setting(["weights"], []), r"weights must be an object, got \[\]"),
    "no weights said": (setting(["weights"], None), "weights must be an object, got None"),
    "edits a text": (setting(["edits"], "abc"), "edits must be a list, got 'abc'"),
    "edits of numbers": (setting(["edits"], [1]), r"edits\[0\] must be text, got 1"),
    "game a number": (setting(["game"], 5), "game must be text, got 5"),
    "unknown game": (setting(["game"], "chess"), "unknown game 'chess'; choose one of bigfish"),
    "true as a number": (setting(["network", "actions"], True), "network.actions must be a whole"),
    "version true": (setting(["version"], True), "version must be a whole number, got True"),
    "not a number": (
        setting(["made", "score"], float("nan")),
        "not JSON: NaN is not a JSON number",
    ),
    "deep": (
        lambda f: (f / "config.json").write_text("[" * 100_000),
        "not JSON",
    ),
    "not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "not valid"),
    "other file": (setting(["weights", "file"], "a.pkl"), "must be model.safetensors, got 'a.pkl'"),
    "other count": (setting(["weights", "parameters"], 3), "parameters of float32, .* says 3"),
    "other type": (setting(["weights", "dtype"], "float64"), "of float32, .* of float64"),
    "weights that are NaN": (
        with_weight("block2.bilinear.left.weight", float("nan")),
        r"not finite: block2\.bilinear\.left\.weight",
    ),
    "infinite weights": (with_weight("stem.bias", -float("inf")), r"not finite: stem\.bias"),
    "integers": (as_integers, "holds int8; choose from float16, bfloat16, float32, float64"),
    "four actions": (with_head(4), r"action_net has outputs of shape \(4,\), expected 15"),
}


BAD = [None, [], {}, "x", -1, 0, 1.5, True, 10**30, [1], {"a": 1}, "\u0000"]


def places(value, path=()):
    """Yield where the values of a document are, from the outside inwards."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in inner:
        yield (*path, name)
        if isinstance(each, dict | list):
            yield from places(each, (*path, name))


def put(document, path, value):
    """Return a document with another value in a place."""
    if not path:
        return value
    changed = copy.copy(document)
    changed[path[0]] = put(document[path[0]], path[1:], value)
    return changed


def test_anything_else_in_any_place_of_the_document_is_refused(tmp_path):
    """The file of weights says the same network: only what is wrong with the value is found."""
    agent, folder = Agent.new("bimpala-small", channels=4, features=8), tmp_path / "agent"
    agent.with_layer("dense", BilinearLinear(256, 8, hidden_features=3)).save(folder)
    file, document = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    weights, free = load_file(file), {("made",): dict, ("edits",): list, ("edits", 0): str}
    tried = [
        (path, bad)
        for path in places(document)
        for bad in BAD
        if path != ("made", "seed")
        and not isinstance(bad, free.get(path, ()))
        and (path[-1], bad) != ("bias", 0)  # as good as false
    ]
    assert len(tried) > 280
    for path, bad in tried:
        changed = put(document, path, bad)
        save_file(weights, file, metadata={"network": canonical(changed["network"])})
        if path[0] != "weights":
            found = hashlib.sha256(file.read_bytes()).hexdigest()
            changed = put(changed, ("weights", "sha256"), found)
        changed = changed if path == ("sha256",) else sealed(changed)
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError):
            agents.load(folder, device="cpu")
    save_file(weights, file, metadata={"network": canonical(document["network"])})
    assert hashlib.sha256(file.read_bytes()).hexdigest() == document["weights"]["sha256"]
    (folder / "config.json").write_text(json.dumps(document))
    assert agents.load(folder).layer_names[-2:] == ["action_net", "value_net"]


def test_agents_saved_before_documents_were_sealed_load(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    assert agents.load(folder, device="cpu").config.game == config["game"]
    config["network"]["actions"] = 14
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json was altered"):
        agents.load(folder, device="cpu")


@pytest.mark.parametrize(("corrupt", "reason"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_broken_checkpoints_are_refused_with_the_reason(folder, corrupt, reason):
    corrupt(folder)
    with pytest.raises(CheckpointError, match=reason):
        agents.load(folder, device="cpu")


def test_unknown_names_and_devices_list_the_choices(monkeypatch, agent, tmp_path):
    monkeypatch.setattr(agents.checkpoint, "ZOO", tmp_path)
    agent.save(tmp_path / "maze-good")
    assert agents.names() == ["maze-good"]
    assert agents.load("maze-good").config == agent.config
    with pytest.raises(ValueError, match=r"'maze-godo' is neither a folder.*maze-good"):
        agents.load("maze-godo")
    with pytest.raises(ValueError, match=r"no device 'gpu'.*cuda:N"):
        agents.load("maze-good", device="gpu")


def test_nothing_is_overwritten_unasked(agent, folder, tmp_path):
    with pytest.raises(FileExistsError, match="exists"):
        agent.save(folder)
    Agent.new("impala-compact").save(folder, overwrite=True)
    assert agents.load(folder).config.architecture == "impala-compact"
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("...")
    with pytest.raises(FileExistsError, match=r"holds no config.json"):
        agent.save(other, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["agent", "thesis"]


def test_broken_weights_are_not_saved_and_leave_nothing(agent, tmp_path):
    head = nn.Linear(256, 15)
    with torch.no_grad():
        head.bias[0] = 1e6
    edited = agent.with_layer("action_net", head)
    with pytest.raises(ValueError, match=r"not finite as torch.float16: action_net.bias"):
        edited.save(tmp_path / "half", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_import_is_quiet_and_leaves_random_generators_alone():
    code = (
        "import torch; before = torch.get_rng_state(); import rlbilinear.agents; "
        "assert torch.equal(before, torch.get_rng_state())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
