import numpy as np
import pytest
import torch

from rlbilinear.agents.edits.directions import project_reader, scale_about_mean, steer
from rlbilinear.agents.network import HEADS
from rlbilinear.probes.edited import Seen, unedited
from rlbilinear.probes.moves import move_probabilities


def edits(study):
    """Return edited agents, by the last step before the first edit."""
    agent, direction = study.agent, study.directions["difference"]
    picture = np.zeros((1, 3, 64, 64), np.uint8)
    stem = agent.activations(picture, ["stem"])["stem"][0]
    return {
        "block1": scale_about_mean(agent, study.layer, direction, 0.5, study.mean),
        "block3": project_reader(agent, "block4", direction),
        "dense": agent.with_layer("action_net", torch.nn.Linear(8, 15)),
        "pool1": agent.with_layers(
            {"block1": agent.layer("block2"), "dense": agent.layer("dense")}
        ),
        None: steer(agent, "stem", torch.ones_like(stem)),
    }


def test_edited_agents_are_asked_as_if_they_ran_from_the_picture(study):
    states = study.pairs.base.observations
    seen = Seen(study.agent, states)
    assert np.allclose(seen.moves(study.agent), move_probabilities(study.agent, states), atol=1e-6)
    for edited in edits(study).values():
        assert np.allclose(seen.moves(edited), move_probabilities(edited, states), atol=1e-6)


def test_what_comes_before_the_first_edit_is_found(study):
    last = [name for name in study.agent.layer_names if "." not in name and name not in HEADS][-1]
    assert unedited(study.agent, study.agent) == last
    for before, edited in edits(study).items():
        assert unedited(study.agent, edited) == before


def test_only_what_comes_after_runs(study, monkeypatch):
    edited = scale_about_mean(study.agent, study.layer, study.directions["probe"], 0.0, study.mean)
    seen = Seen(study.agent, study.pairs.base.observations)
    first = seen.moves(edited)
    with torch.no_grad():
        monkeypatch.setattr(
            type(edited), "logits", lambda *_, **__: pytest.fail("the whole network ran")
        )
        assert np.array_equal(seen.moves(edited), first)
