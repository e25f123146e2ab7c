"""Truncated agents against the truncated forms themselves."""

import copy
from functools import partial

import pytest
import torch

from rlbilinear import BilinearLinear, eigenfilters
from rlbilinear.agents import Agent, load
from rlbilinear.agents.truncate import (
    MOVES,
    dense_forms,
    dense_inputs,
    dense_ranks,
    sweep,
    truncate_convolution,
    truncate_dense,
)
from rlbilinear.envs import Maze, observe
from rlbilinear.hosvd import hosvd
from rlbilinear.tensor import BilinearTensor

OBSERVATIONS = observe([Maze.from_seed(seed) for seed in range(6)])
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def small_agent(*, hidden=None, bias=False):
    """An agent with few features, and a dense layer of any kind."""
    agent = Agent.new("bimpala", channels=4, blocks=(1, 1, 1), features=6, seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense = BilinearLinear(256, 6, hidden_features=hidden, bias=bias)
        head = torch.nn.Linear(6, 15)
    return agent.with_layers({"dense": dense, "action_net": head})


def values(agent):
    with torch.no_grad():
        return agent.policy.predict_values(torch.as_tensor(OBSERVATIONS))


@pytest.mark.parametrize("hidden", [None, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_logits_are_those_of_the_truncated_forms(hidden, bias, tmp_path):
    agent = small_agent(hidden=hidden, bias=bias)
    x = dense_inputs(agent, OBSERVATIONS)
    for of in ("action", "group"):
        forms, spread = dense_forms(agent, of)
        for k in (0, 1, 3):
            edited = truncate_dense(agent, k, of=of)
            expected = torch.stack([form.truncate(k)(x) for form in forms], 1) @ spread.T
            torch.testing.assert_close(edited.logits(OBSERVATIONS).double(), expected, **CLOSE)
            torch.testing.assert_close(values(edited), values(agent), **CLOSE)
    edited.save(tmp_path / "truncated")
    loaded = load(tmp_path / "truncated", device="cpu")
    assert torch.equal(loaded.logits(OBSERVATIONS), edited.logits(OBSERVATIONS))
    assert edited.config.edits[-1] == "dense: top 3 eigenvectors of each group of actions kept"


@pytest.mark.parametrize("of", ["action", "joint"])
def test_all_eigenvectors_are_the_agent_itself(of):
    agent = small_agent(hidden=9, bias=True)
    whole = truncate_dense(agent, max(dense_ranks(agent, of)), of=of)
    torch.testing.assert_close(whole.logits(OBSERVATIONS), agent.logits(OBSERVATIONS), **CLOSE)
    centred = truncate_dense(agent, max(dense_ranks(agent, of, centred=True)), of=of, centred=True)
    policies = [each.logits(OBSERVATIONS).softmax(1) for each in (centred, agent)]
    torch.testing.assert_close(*policies, **CLOSE)


def test_groups_get_their_mean_logit():
    agent = small_agent()
    whole = truncate_dense(agent, max(dense_ranks(agent, "group")), of="group")
    logits, expected = whole.logits(OBSERVATIONS), agent.logits(OBSERVATIONS)
    for group in MOVES:
        mean = expected[:, list(group)].mean(1, keepdim=True).expand(-1, len(group))
        torch.testing.assert_close(logits[:, list(group)], mean, **CLOSE)


def test_joint_truncation_reads_k_vectors_only():
    """They span the principal vectors of the sum of the logits' squared matrices."""
    agent = small_agent()
    edited = truncate_dense(agent, 3, of="joint")
    forms, _ = dense_forms(edited, "joint")
    read = torch.cat([form.matrix() for form in forms])
    assert torch.linalg.matrix_rank(read, rtol=1e-5) == 3
    squares = sum(form.matrix() @ form.matrix() for form in dense_forms(agent).forms)
    top = torch.linalg.eigh(squares).eigenvectors[:, -3:]
    torch.testing.assert_close(read @ top @ top.T, read, **CLOSE)


def test_what_is_dropped_can_stay_at_its_mean():
    agent = small_agent(bias=True)
    for of in ("action", "joint"):
        edited = truncate_dense(agent, 2, of=of, observations=OBSERVATIONS)
        means = [each.logits(OBSERVATIONS).mean(0) for each in (edited, agent)]
        torch.testing.assert_close(*means, **CLOSE)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(truncate_dense(agent, 2).logits(OBSERVATIONS).mean(0), means[1])


def test_convolutions_keep_eigenfilters_of_directions():
    agent = load("maze-bimpala-compact", device="cpu")
    conv, u = agent.layer("block3.bilinear"), torch.randn(2, 32)
    edited = truncate_convolution(agent, "block3.bilinear", 5, u).layer("block3.bilinear")
    x = torch.randn(2, 32, 6, 6)
    for direction in u:
        torch.testing.assert_close(
            torch.einsum("c,nchw->nhw", direction, edited(x)),
            eigenfilters(conv, direction, 5).total(x),
            atol=1e-3,
            rtol=1e-3,
        )
    nothing_else = torch.linalg.svd(u).Vh[2:]
    same = [torch.einsum("kc,nchw->nkhw", nothing_else, layer(x)) for layer in (edited, conv)]
    torch.testing.assert_close(*same, atol=1e-3, rtol=1e-3)
    tensor = BilinearTensor.of(conv)
    all_of_them = truncate_convolution(agent, "block3.bilinear", 2)
    kept = BilinearTensor.of(all_of_them.layer("block3.bilinear"))
    expected = hosvd(tensor).interactions().keep(2).tensor()
    assert kept.distance(expected) < 1e-5 * expected.norm


def test_a_sweep_ends_with_the_whole_agent():
    agent = load("maze-bimpala-compact", device="cpu")
    levels = [3, 5]
    table = sweep(
        agent,
        partial(truncate_dense, agent),
        [4, 64],
        levels,
        observations=OBSERVATIONS,
        progress=False,
    )
    assert [*table["k"]] == [4, 64, "all"]
    assert (table["return_low"] <= table["return"]).all()
    assert table["kl"].iloc[-1] == 0 and table["agreement"].iloc[-1] == 1
    assert table["kl"].iloc[0] > table["kl"].iloc[1] > 0
    assert {"success", "success_high", "solved", "steps"} <= {*table.columns}


def test_a_truncated_agent_out_of_its_range_is_counted():
    agent = load("maze-bimpala-compact", device="cpu")

    def broken(k):
        """Its dense layer's products are beyond float32."""
        dense = copy.deepcopy(agent.layer("dense"))
        with torch.no_grad():
            dense.left.weight.mul_(1e20)
            dense.right.weight.mul_(1e20)
        return agent.with_layer("dense", dense)

    table = sweep(agent, broken, [4], [3], observations=OBSERVATIONS, progress=False)
    assert table["not_finite"].tolist() == [1.0, 0.0]
    assert table["success"].iloc[0] == 0
    assert table[["kl", "agreement"]].iloc[0].isna().all()
    assert table[["kl", "agreement"]].iloc[1].tolist() == [0.0, 1.0]


def test_bad_truncations_are_refused():
    agent = small_agent()
    with pytest.raises(ValueError, match="k from 0 to 12, the rank of the policy's forms; got 13"):
        truncate_dense(agent, 13)
    with pytest.raises(ValueError, match="choose from action, group, joint"):
        truncate_dense(agent, 1, of="all")
    with pytest.raises(ValueError, match="groups of the actions 0 to 14"):
        truncate_dense(agent, 1, of="group", groups=[[0, 1], [1, 2]])
    with pytest.raises(TypeError, match="bilinear dense layer, got a Linear"):
        truncate_dense(Agent.new("impala-compact"), 1)
    with pytest.raises(TypeError, match="block1 is a BilinearBlock"):
        truncate_convolution(agent, "block1", 1)
    with pytest.raises(ValueError, match="the rank is"):
        truncate_convolution(agent, "block1.bilinear", 99, torch.ones(4))
