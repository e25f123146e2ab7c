"""Agents, layers and concepts are given by name or as objects."""

import numpy as np
import pytest
import torch

from rlbilinear.agents import load
from rlbilinear.envs import Maze, observe
from rlbilinear.probes import (
    Add,
    Intervention,
    activations,
    cheese_presence,
    collect,
    compare_fields,
    field,
    logits_under,
    validate,
)
from rlbilinear.probes.concepts import concept, concepts
from rlbilinear.probes.named import as_agent, as_layer, as_layers
from rlbilinear.probes.study import LEAST, Sizes, prepare

NAME = "maze-bimpala-compact"


@pytest.fixture(scope="module")
def agent():
    return load(NAME, "cpu")


def test_objects_and_names_are_the_same(agent):
    assert as_agent(agent) is agent
    assert torch.equal(
        as_agent(NAME).policy.action_net.weight.cpu(), agent.policy.action_net.weight
    )
    assert as_layer(agent, "block2") == as_layer(agent, agent.layer("block2")) == "block2"
    assert as_layers(agent, "block2") == as_layers(agent, [agent.layer("block2")]) == ["block2"]
    assert concept("cheese_presence") is concept(cheese_presence) is cheese_presence
    assert concepts("cheese_presence") == concepts([cheese_presence]) == [cheese_presence]


def test_names_are_accepted_by_what_takes_agents_layers_and_concepts(agent):
    by_name = collect(NAME, [0, 1], "block2", "cheese_presence", states_per_level=2)
    by_object = collect(
        agent, [0, 1], [agent.layer("block2")], [cheese_presence], states_per_level=2
    )
    assert list(by_name.activations) == ["block2"] and list(by_name.labels) == ["cheese_presence"]
    np.testing.assert_array_equal(by_name.observations, by_object.observations)
    maze = Maze.from_seed(0)
    seen = observe([maze])
    bias = torch.full((agent.activations(seen, ["block2"])["block2"].shape[1],), 0.01)
    changes = [Intervention("block2", Add(bias))]
    named = logits_under(NAME, seen, changes).cpu()
    assert torch.allclose(named, logits_under(agent, seen, changes), atol=1e-4)
    assert torch.equal(
        activations(agent, seen, "block2")["block2"],
        activations(agent, seen, [agent.layer("block2")])["block2"],
    )
    same = compare_fields(field(NAME, maze), field(agent, maze))
    assert same["kl"].max() < 1e-6


def test_a_study_by_names_is_that_of_the_objects(agent):
    sizes = Sizes(**LEAST)
    named = prepare(NAME, "block2", "cheese_presence", sizes=sizes, progress=False)
    given = prepare(agent, agent.layer("block2"), cheese_presence, sizes=sizes, progress=False)
    assert (named.layer, named.concept) == (given.layer, given.concept)
    np.testing.assert_allclose(named.probe.direction, given.probe.direction, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"concept": "cheese"}, ValueError, "unknown concept 'cheese'; choose from cheese_pres"),
        ({"concept": 3}, TypeError, "a Concept, or one of cheese_presence, .*; got int"),
        ({"concept": "mouse_presence"}, ValueError, "no counterfactual pairs .* cheese_presence"),
        ({"layer": "bl"}, ValueError, "unknown layer 'bl'; choose from auto, stem, pool1"),
        ({"layer": 2}, TypeError, "expected a layer, or one of stem, .*; got int"),
        ({"layer": torch.nn.ReLU()}, ValueError, "this ReLU is none of the agent's layers: stem"),
        ({"agent": "nope"}, ValueError, f"'nope' .*{NAME}"),
        ({"agent": 4}, TypeError, f"an Agent, its folder, or one of .*{NAME}.*; got int"),
    ],
)
def test_something_else_is_refused_with_the_choices(agent, given, error, message):
    rest = {"agent": agent, **given}
    with pytest.raises(error, match=message):
        validate(rest.pop("agent"), progress=False, **rest)
