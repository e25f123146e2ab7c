import copy

import numpy as np
import pytest
import torch

from rlbilinear import agents
from rlbilinear.agents import Agent
from rlbilinear.agents.heads import policy_form, policy_forms, trunk_shape, value_form
from rlbilinear.edits.functional import add_bias_map
from rlbilinear.eigenmaps import eigenmaps
from rlbilinear.envs import ACTIONS_OF_MOVE, Move, ProcgenVecEnv

CLOSE = {"atol": 1e-10, "rtol": 0}


@pytest.fixture(scope="module")
def agent():
    return agents.load("maze-bimpala-compact", device="cpu")


@pytest.fixture(scope="module")
def observations():
    env = ProcgenVecEnv("maze", 6, mode="easy")
    yield np.asarray(env.reset())
    env.close()


def computed(agent, observations):
    """The trunk's output, and logits and values from there on, in float64."""
    h = agent.activations(observations, ["flatten"])["flatten"].double()
    dense, actor, critic = (
        copy.deepcopy(agent.layer(name)).double() for name in ("dense", "action_net", "value_net")
    )
    with torch.no_grad():
        return h, actor(dense(h)), critic(dense(h))[:, 0]


def test_forms_are_the_logits_and_the_value(agent, observations):
    h, logits, values = computed(agent, observations)
    family = policy_forms(agent)
    torch.testing.assert_close(family(h), logits, **CLOSE)
    torch.testing.assert_close(family(h).float(), agent.logits(observations), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(value_form(agent)(h), values, **CLOSE)
    for action in (0, 14):
        form = policy_form(agent, action)
        torch.testing.assert_close(form(h), logits[:, action], **CLOSE)
        contributions = form.eigh().contributions(h).sum(1) + h @ form.linear + form.constant
        torch.testing.assert_close(contributions, logits[:, action], **CLOSE)


def test_groups_of_actions_and_contrasts(agent, observations):
    h, logits, _ = computed(agent, observations)
    left = ACTIONS_OF_MOVE[Move.LEFT]
    others = [action for action in range(15) if action not in left]
    inside, outside = logits[:, left].mean(1), logits[:, others].mean(1)
    torch.testing.assert_close(policy_form(agent, left)(h), inside, **CLOSE)
    torch.testing.assert_close(policy_form(agent, left, reduce="sum")(h), 3 * inside, **CLOSE)
    contrast = policy_form(agent, left, against="others")
    torch.testing.assert_close(contrast(h), inside - outside, **CLOSE)


def test_eigenmaps_have_the_trunks_shape(agent):
    shape = trunk_shape(agent)
    values, maps = eigenmaps(policy_form(agent, 3), shape, 4)
    assert shape == (32, 8, 8)
    assert maps.shape == (4, *shape)
    assert len(values) == 4


def test_biases_added_behind_the_dense_layer_count(agent, observations):
    bias = torch.randn(256, generator=torch.Generator().manual_seed(0))
    twice = add_bias_map(add_bias_map(agent.layer("dense"), bias), bias)
    edited = agent.with_layer("dense", twice)
    h, logits, values = computed(edited, observations)
    torch.testing.assert_close(policy_forms(edited)(h), logits, **CLOSE)
    torch.testing.assert_close(policy_form(edited, [1, 2])(h), logits[:, 1:3].mean(1), **CLOSE)
    torch.testing.assert_close(value_form(edited)(h), values, **CLOSE)


def test_agents_without_a_bilinear_head_are_refused(agent):
    relu = Agent.new("impala-compact")
    with pytest.raises(ValueError, match="bilinear dense layer before a linear head; relu2"):
        policy_form(relu, 0)
    with pytest.raises(ValueError, match="flattened before the last layer, got dense"):
        trunk_shape(relu)
    for actions in (15, -1, 1.5, True, None, "x", [0.0], []):
        with pytest.raises(ValueError, match="different outputs from 0 to 14, got"):
            policy_form(agent, actions)
