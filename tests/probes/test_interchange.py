import numpy as np
import pandas as pd
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.probes.dataset import counterfactual_pairs
from rlbilinear.probes.interchange import (
    activation_differences,
    interchange_summary,
    interchange_table,
)
from rlbilinear.probes.interventions import Interchange, Intervention, logits_under
from rlbilinear.probes.moves import kl_divergence, log_move_distribution, log_move_probabilities
from rlbilinear.probes.subspaces import Subspace, candidates, random_subspace

LEVELS = range(100, 106)


@pytest.fixture(scope="module")
def agent():
    small = Agent.new("bimpala-compact", seed=1, channels=6, blocks=(1, 1), features=8)
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 15)
    torch.nn.init.normal_(head.weight, std=30.0)  # so that a cheese changes the policy
    return small.with_layer("action_net", head)


@pytest.fixture(scope="module")
def pairs():
    return counterfactual_pairs(LEVELS, pairs_per_level=2, seed=0)


def test_the_whole_output_goes_all_the_way(agent, pairs):
    everything = {layer: [Subspace("all")] for layer in ("pool1", "block1", "dense")}
    table = interchange_table(agent, pairs, everything, batch=5)
    assert len(table) == 3 * len(pairs)
    assert (table["kl_base"] > 0).all() and np.allclose(table["kl"], 0, atol=1e-5)
    assert (table["follow"] == table["follow_source"]).all()
    assert table.groupby("layer", sort=False)["rank"].first().to_dict() == {
        "pool1": 6,
        "block1": 6,
        "dense": 8,
    }
    summary = interchange_summary(table, resamples=50)
    assert np.allclose(summary["share"], 1, atol=1e-3)


def test_a_subspace_against_an_interchange_by_hand(agent, pairs):
    basis = random_subspace(6, 2, seed=0)
    table = interchange_table(agent, pairs, {"block1": [Subspace("random", basis)]}, batch=5)
    base, source = pairs.base.observations, pairs.source.observations
    change = Intervention("block1", Interchange(source), basis)
    patched = log_move_distribution(logits_under(agent, base, [change]))
    target = log_move_probabilities(agent, source)
    assert np.allclose(table["kl"], kl_divergence(target, patched), atol=1e-5)
    assert np.allclose(table["kl_base"], kl_divergence(target, log_move_probabilities(agent, base)))
    assert (table["follow"] == (patched.argmax(1) == pairs.source.moves)).all()
    assert (table["keep"] == (patched.argmax(1) == pairs.base.moves)).all()
    assert table["level"].tolist() == pairs.levels.tolist()
    assert table["pair"].tolist() == list(range(len(pairs)))


def test_full_rank_of_the_differences_goes_all_the_way_too(agent, pairs):
    differences = activation_differences(agent, pairs, ["pool1"])["pool1"]
    base = agent.activations(pairs.base.observations, ["pool1"])["pool1"]
    source = agent.activations(pairs.source.observations, ["pool1"])["pool1"]
    assert torch.equal(differences, source - base) and differences.any()
    found = candidates(differences, [1, 6])
    summary = interchange_summary(interchange_table(agent, pairs, {"pool1": found}), resamples=50)
    shares = summary.set_index(["subspace", "rank"])["share"]
    assert shares["difference", 6] == pytest.approx(1, abs=1e-3)
    assert shares["difference", 1] < 0.999
    assert list(summary.columns[:6]) == [
        "layer", "subspace", "rank", "share", "share_low", "share_high"
    ]  # fmt: skip
    assert (summary["share_low"] <= summary["share"]).all()
    assert (summary["levels"] == 6).all() and (summary["pairs"] == 12).all()


def test_without_a_cheese_no_move_is_right(agent):
    pairs = counterfactual_pairs(LEVELS, pairs_per_level=1, source="absent", seed=0)
    table = interchange_table(agent, pairs, {"pool1": [Subspace("all")]})
    assert table[["follow", "follow_base", "follow_source"]].isna().all(axis=None)
    summary = interchange_summary(table, resamples=50)
    assert summary["follow"].isna().all() and np.allclose(summary["share"], 1, atol=1e-3)


def test_the_share_is_a_ratio_of_means():
    table = pd.DataFrame(
        {
            "layer": "pool1",
            "subspace": "probe",
            "rank": 1,
            "level": [1, 1, 2, 2],
            "kl": [0.0, 0.1, 0.5, 0.0],
            "kl_base": [1.0, 1.0, 0.4, 0.0],
            "follow": [1.0, 1.0, 0.0, 1.0],
            "keep": [0.0, 0.0, 1.0, 0.0],
            "follow_base": [0.0, 0.0, 0.0, 1.0],
            "follow_source": 1.0,
            "finite": 1.0,
        }
    )
    (row,) = interchange_summary(table, resamples=200).to_dict("records")
    assert row["share"] == pytest.approx(1 - 0.6 / 2.4)
    assert row["share_low"] == pytest.approx(1 - 0.5 / 0.4)  # level 2 twice
    assert row["share_high"] == pytest.approx(1 - 0.1 / 2)  # level 1 twice
    assert (row["follow"], row["keep"], row["follow_base"]) == (0.75, 0.25, 0.25)
    assert (row["pairs"], row["levels"], row["finite"]) == (4, 2, 1)
    broken = table.assign(kl=[0.0, np.nan, 0.5, 0.0], finite=[1.0, 0.0, 1.0, 1.0])
    (row,) = interchange_summary(broken, resamples=200).to_dict("records")
    assert np.isnan([row["share"], row["share_low"], row["share_high"]]).all()
    assert row["finite"] == 0.75
