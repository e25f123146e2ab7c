"""Checkpoints laid out as train-procgen-pytorch writes them, made here by networks of its shape."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rlbilinear import agents
from rlbilinear.agents import CheckpointError, agent_from_pth
from rlbilinear.agents.evaluation import evaluate
from rlbilinear.envs import Maze, observe


class TheirResidual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        out = self.conv1(F.relu(x))
        out = self.conv2(F.relu(out))
        return out + x


class TheirBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.res1 = TheirResidual(outputs)
        self.res2 = TheirResidual(outputs)

    def forward(self, x):
        x = F.max_pool2d(self.conv(x), kernel_size=3, stride=2, padding=1)
        return self.res2(self.res1(x))


class TheirImpala(nn.Module):
    def __init__(self, scale, size=64):
        super().__init__()
        self.block1 = TheirBlock(3, 16 * scale)
        self.block2 = TheirBlock(16 * scale, 32 * scale)
        self.block3 = TheirBlock(32 * scale, 32 * scale)
        self.fc = nn.Linear(32 * scale * (size // 8) ** 2, 256)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(x)))
        x = torch.flatten(F.relu(x), start_dim=1)
        return F.relu(self.fc(x))


class TheirPolicy(nn.Module):
    """Embedder, actor and critic, with biases that are not 0, as after training."""

    def __init__(self, scale=1, actions=15, recurrent=False, size=64):
        super().__init__()
        self.embedder = TheirImpala(scale, size)
        self.fc_policy = nn.Linear(256, actions)
        self.fc_value = nn.Linear(256, 1)
        if recurrent:
            self.gru = nn.GRU(256, 256)

    def forward(self, observations):
        hidden = self.embedder(torch.as_tensor(observations) / 255.0)
        return self.fc_policy(hidden), self.fc_value(hidden)[:, 0]


def checkpoint(policy):
    """Return what its trainer saves: weights, and an optimizer that has made a step."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-4, eps=1e-5)
    logits, value = policy(torch.zeros(1, 3, 64, 64))
    (logits.sum() + value.sum()).backward()
    optimizer.step()
    return {
        "model_state_dict": policy.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    policy, file = TheirPolicy(), tmp_path_factory.mktemp("pth") / "model_200015872.pth"
    torch.save(checkpoint(policy), file)
    return policy, file


@pytest.fixture(scope="module")
def observations():
    return observe([Maze.from_seed(seed, "hard") for seed in range(6)])


def test_outputs_are_those_of_their_network(saved, observations):
    policy, file = saved
    agent = agent_from_pth(file)
    outputs = agent.activations(observations, ["action_net", "value_net"])
    with torch.no_grad():
        logits, values = policy(observations)
    torch.testing.assert_close(outputs["action_net"], logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outputs["value_net"][:, 0], values, rtol=1e-5, atol=1e-6)
    assert agent.config.game == "maze" and agent.config.actions == 15
    assert agent.config.made["from"] == "model_200015872.pth"


def test_layers_between_are_theirs_too(saved, observations):
    """The published cheese vector is of the sum in block2.res1, which is block3 here."""
    policy, file = saved
    theirs = {}
    policy.embedder.block2.res1.register_forward_hook(lambda *call: theirs.update(res=call[-1]))
    policy.embedder.block3.conv.register_forward_hook(lambda *call: theirs.update(conv=call[-1]))
    with torch.no_grad():
        policy(observations)
    ours = agent_from_pth(file).activations(observations, ["block3", "conv3"])
    torch.testing.assert_close(ours["block3"], theirs["res"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours["conv3"], theirs["conv"], rtol=1e-5, atol=1e-6)


def test_it_is_an_ordinary_agent(saved, observations, tmp_path):
    agent = agent_from_pth(saved[1])
    agent.save(tmp_path / "agent")
    loaded = agents.load(tmp_path / "agent", device="cpu")
    assert torch.equal(loaded.logits(observations), agent.logits(observations))
    assert loaded.config.made == agent.config.made
    edited = agent.with_layer("relu2", nn.Identity())
    assert not torch.equal(edited.logits(observations), agent.logits(observations))
    assert len(evaluate(agent, [0], progress=False)) == 1


@pytest.mark.parametrize("key", ["state_dict", None])
def test_other_wrappings_and_widths_load(key, observations, tmp_path):
    torch.manual_seed(1)
    policy = TheirPolicy(scale=2, actions=5).double()
    state = policy.state_dict()
    torch.save({key: state} if key else state, tmp_path / "wide.pth")
    agent = agent_from_pth(tmp_path / "wide.pth", game="coinrun")
    with torch.no_grad():
        logits, _ = policy(torch.as_tensor(observations).double())
    torch.testing.assert_close(agent.logits(observations).double(), logits, rtol=1e-4, atol=1e-5)
    assert agent.layer("block1").conv1.weight.shape == (32, 32, 3, 3)
    assert agent.config.game == "coinrun"


class Harmful:
    def __reduce__(self):
        return (print, ("code was run",))


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"model_state_dict": {}, "extra": Harmful()}, tmp_path / "evil.pth")
    with pytest.raises(
        CheckpointError,
        match=r"tensors and plain values alone.*Unsupported global: GLOBAL \S*print",
    ):
        agent_from_pth(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("fc_value.bias"), "missing fc_value.bias; unknown none"),
        (lambda state: state.update({"gru.x": torch.ones(1)}), "missing none; unknown gru.x"),
        (
            lambda state: state.update({"embedder.fc.weight": torch.ones(256, 5 * 5 * 32)}),
            r"embedder.fc.weight \(256, 800\), expected \(256, 2048\)",
        ),
        (lambda state: state.update({"fc_policy.weight": torch.ones(15)}), "expected 2 dim"),
        (lambda state: state.update({"fc_policy.bias": torch.full((15,), torch.nan)}), "finite"),
        (lambda state: state.update({"fc_policy.bias": 3}), "fc_policy.bias is int"),
        (lambda state: state.clear(), "missing embedder.block1.conv.bias.* and 32 more"),
    ],
)
def test_another_network_is_refused_and_named(saved, change, message, tmp_path):
    state = dict(saved[0].state_dict())
    change(state)
    torch.save({"model_state_dict": state}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        agent_from_pth(tmp_path / "other.pth")


def test_recurrent_policies_are_refused(tmp_path):
    torch.save(TheirPolicy(recurrent=True).state_dict(), tmp_path / "gru.pth")
    with pytest.raises(CheckpointError, match=r"without recurrence.*unknown gru"):
        agent_from_pth(tmp_path / "gru.pth")


def test_what_is_no_checkpoint_is_refused(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        agent_from_pth(tmp_path / "none.pth")
    for content in (b"", b"not a file of torch", saved[1].read_bytes()[:5000]):
        (tmp_path / "broken.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"broken\.pth"):
            agent_from_pth(tmp_path / "broken.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        agent_from_pth(tmp_path / "tensor.pth")
