"""The layer is chosen on fitting pairs, cross-fitted by level."""

import copy
from itertools import product

import numpy as np
import pytest

from rlbilinear.agents import load
from rlbilinear.envs import FITTING
from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.dataset import counterfactual_pairs
from rlbilinear.probes.interchange import interchange_table
from rlbilinear.probes.layer_choice import choose_layer, follow_by_layer
from rlbilinear.probes.reading import untrained
from rlbilinear.probes.study import Sizes, prepare
from rlbilinear.probes.subspaces import Subspace, difference_subspace

SIZES = Sizes(
    levels=5, fit_levels=10, states_per_level=2, pairs_per_level=2, controls=1, steered_mazes=2,
    played_levels=2,
)  # fmt: skip
LAYERS = ["pool1", "block2"]


def test_each_half_is_tried_with_the_directions_of_the_other(bilinear_agent):
    pairs = counterfactual_pairs(range(500, 506), pairs_per_level=2, seed=0)
    found = follow_by_layer(bilinear_agent, pairs, LAYERS, seed=1)
    assert found.index.tolist() == LAYERS
    order = np.random.default_rng(1).permutation(np.unique(pairs.levels))
    agents = {"follow": bilinear_agent, "control": untrained(bilinear_agent, 1)}
    for (name, of), layer in product(agents.items(), LAYERS):
        followed = []
        for fit, tried in ((order[:3], order[3:]), (order[3:], order[:3])):
            theirs, ours = (pairs.select(np.isin(pairs.levels, each)) for each in (fit, tried))
            change = (
                of.activations(theirs.source.observations, [layer])[layer]
                - of.activations(theirs.base.observations, [layer])[layer]
            )
            subspace = Subspace("one", difference_subspace(change, 1))
            table = interchange_table(bilinear_agent, ours, {layer: [subspace]})
            followed += table["follow"].tolist()
        assert found.loc[layer, name] == pytest.approx(np.mean(followed))
    with pytest.raises(ValueError, match="2 levels or more, got 1"):
        follow_by_layer(bilinear_agent, pairs.select(pairs.levels == 500), LAYERS)


def test_a_layer_that_an_untrained_network_serves_as_well_is_not_chosen():
    """Of the shipped agent: pool1 is followed at least as often as block2, but not beyond it."""
    agent = load("maze-bimpala-compact", "cpu")
    pairs = counterfactual_pairs(FITTING.first(10), pairs_per_level=2, seed=2)
    found = follow_by_layer(agent, pairs, LAYERS)
    assert found["follow"].min() > 0.8
    assert found.loc["pool1", "control"] > found.loc["block2", "control"] + 0.1
    assert choose_layer(agent, pairs, LAYERS) == "block2"


def test_auto_is_the_chosen_layer_or_that_of_the_probe(bilinear_agent):
    study = prepare(bilinear_agent, "auto", cheese_presence, sizes=SIZES, progress=False)
    assert study.layer == choose_layer(bilinear_agent, study.fit_pairs, study.layers)
    again = prepare(
        bilinear_agent, "auto", cheese_presence, probe=study.probe, sizes=SIZES, progress=False
    )
    assert again.layer == study.probe.layer_ == study.layer
    by_hand = copy.copy(study.probe)
    del by_hand.layer_
    with pytest.raises(ValueError, match="name the layer that it was fitted at"):
        prepare(bilinear_agent, "auto", cheese_presence, probe=by_hand, progress=False)
