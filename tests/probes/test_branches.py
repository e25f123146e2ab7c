"""ReLU agents read and edited by their quadratic surrogates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rlbilinear import BilinearConv2d
from rlbilinear.agents import load
from rlbilinear.agents.surrogate import regrouped
from rlbilinear.probes.branches import branch_filters, branch_name, feed, feeds, steps
from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.study import Sizes, prepare, unit
from rlbilinear.probes.surrogate import quadratic_surrogate, surrogate_of
from rlbilinear.probes.trace import bilinear_writers, explained_table, filter_edits, scale_filters
from rlbilinear.probes.writers import writer_maps

INSIDE = (..., slice(1, -1), slice(1, -1))
"""where the second convolution is not padded"""


@pytest.fixture(scope="module")
def surrogate(relu_agent):
    return surrogate_of(relu_agent, levels=6)


@pytest.fixture(scope="module")
def direction():
    return unit(np.array([1.0, -2, 0.5, 0, 3, 1]))


@pytest.fixture(scope="module")
def observations(study):
    return study.held_out.observations[:10]


@pytest.fixture(scope="module")
def beside(relu_agent, surrogate):
    sizes = Sizes(
        levels=5, fit_levels=10, states_per_level=2, pairs_per_level=1, controls=1,
        steered_mazes=2, played_levels=2,
    )  # fmt: skip
    agent = regrouped(relu_agent)
    return prepare(
        agent, "block1", cheese_presence, sizes=sizes, surrogate=surrogate, progress=False
    )


def test_a_residual_blocks_branch_is_a_writer(relu_agent, surrogate, observations, direction):
    agent = regrouped(relu_agent)
    assert list(feeds(agent)) == list(feeds(surrogate)) == ["block1.relu", "block2.relu"]
    assert feed(surrogate, "block1.branch") == "block1.relu"
    assert "action_net" not in steps(agent) and branch_name(nn.ReLU()) is None
    for each in (agent, surrogate):
        maps = writer_maps(each, "block1", direction, observations)
        assert list(maps) == ["pool1", "block1.branch"]
        whole = writer_maps(each, "block1", direction, observations)
        output = each.activations(observations, ["block1"])["block1"].double()
        expected = torch.einsum("c,nchw->nhw", direction, output).numpy()
        assert np.allclose(sum(whole.values()), expected, atol=1e-5)


def test_filters_of_a_surrogate_add_up_to_what_it_writes(
    relu_agent, surrogate, observations, direction
):
    (writer,) = bilinear_writers(surrogate, "block1", direction)
    assert (writer.block, writer.branch, writer.before) == (
        "block1", "block1.branch", "block1.relu"
    )  # fmt: skip
    assert writer.filters.filters.shape[1:] == (6, 5, 5)
    inputs = surrogate.activations(observations, ["block1.relu"])["block1.relu"].double()
    written = writer_maps(surrogate, "block1", direction, observations)["block1.branch"]
    assert np.allclose(writer.filters.total(inputs).numpy()[INSIDE], written[INSIDE], atol=1e-4)
    assert bilinear_writers(regrouped(relu_agent), "block1", direction) == []
    assert quadratic_surrogate(surrogate, observations) is surrogate
    with pytest.raises(ValueError, match="the agent has no ReLU blocks to approximate"):
        surrogate_of(surrogate)


def test_only_quadratic_branches_have_filters(direction):
    conv, after = BilinearConv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
    assert branch_filters(nn.Sequential(conv, after), direction) is not None
    assert branch_filters(nn.Sequential(after, conv), direction) is None
    assert branch_filters(nn.Sequential(conv, nn.ReLU()), direction) is None
    mixed = BilinearConv2d(6, 6, 3, padding=1, hidden_channels=2)
    assert branch_filters(nn.Sequential(mixed, after), direction) is None


@pytest.mark.parametrize("kind", ["relu", "surrogate"])
def test_ablated_filters_are_taken_out_in_weights_that_are_stored(
    kind, relu_agent, surrogate, observations, direction, tmp_path
):
    agent = surrogate if kind == "surrogate" else regrouped(relu_agent)
    writers = bilinear_writers(surrogate, "block1", direction)
    before = writer_maps(agent, "block1", direction, observations)["block1.branch"]
    inputs = agent.activations(observations, ["block1.relu"])["block1.relu"].numpy()
    for k in (1, 8):
        edited = scale_filters(agent, writers, k, [0.0])
        after = writer_maps(edited, "block1", direction, observations)["block1.branch"]
        gone = writers[0].maps(inputs, k).sum(1)
        assert np.abs(gone).max() > 1e-3
        assert np.allclose(after, before - gone, atol=1e-4)  # at the border too
        other = unit(np.array([2.0, 1, 0, 7, 0, 0]))  # orthogonal: it is written as before
        same = [writer_maps(each, "block1", other, observations) for each in (agent, edited)]
        assert np.allclose(*(maps["block1.branch"] for maps in same), atol=1e-4)
    edited.save(tmp_path / "edited")
    loaded = load(tmp_path / "edited", device="cpu")
    assert torch.equal(loaded.logits(observations), edited.logits(observations))
    assert "first 8 eigenfilters" in loaded.config.edits[-1]


def test_a_relu_agent_is_edited_by_its_surrogates_filters(beside, surrogate):
    direction = beside.directions["difference"]
    edits = filter_edits(beside, direction)
    assert [name.split(" of ")[1] for name in edits] == ["block1"] * 3
    x = torch.from_numpy(beside.fit.activations["block1.relu"])
    with torch.no_grad():

        def change(agent):
            one, other = (each.layer("block1.branch")(x) for each in (agent, beside.agent))
            return (one - other).square().sum(1).mean().sqrt().item()

        for own, controls in edits.values():
            assert isinstance(own.layer("block1.branch")[0][1], nn.ReLU)  # the ReLUs are there
            for control in (agent for group in controls.values() for agent in group):
                assert change(control) == pytest.approx(change(own), rel=1e-3)
    instead = filter_edits(replace(beside, agent=surrogate, surrogate=None), direction)
    assert list(instead) == list(edits)
    with pytest.raises(ValueError, match="surrogate: its blocks are not the agent's"):
        prepare(load("maze-bimpala-compact"), "block1", cheese_presence, surrogate=surrogate)


def test_how_much_the_surrogates_forms_explain(beside, surrogate):
    direction = beside.directions["difference"]
    writers = bilinear_writers(surrogate, "block1", direction)
    (row,) = explained_table(beside.agent, writers, beside.held_out).itertuples()
    assert row.writer == "block1" and 0 < row.r2 < 0.999 and row.squares < 1
    total = (
        writers[0]
        .filters.total(torch.from_numpy(beside.held_out.activations["block1.relu"]).double())
        .numpy()
    )
    maps = writers[0].maps(beside.held_out.activations["block1.relu"], 1000).sum(1)
    share = np.cov(maps.ravel(), total.ravel())[0, 1] / total.var()
    assert row.squares == pytest.approx(share, rel=1e-2)
    inputs = torch.from_numpy(beside.held_out.activations["block1.relu"]).double()
    own = writer_maps(beside.agent, "block1", direction, beside.held_out.observations)
    written = own["block1.branch"]
    error = ((written - writers[0].filters.total(inputs).numpy()) ** 2).mean()
    assert row.r2 == pytest.approx(1 - error / written.var(), abs=1e-4)
