"""A small agent whose moves depend on the cheese, and a study of it."""

import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.study import Sizes, prepare

SMALL = Sizes(
    levels=6,
    fit_levels=12,
    states_per_level=4,
    pairs_per_level=2,
    controls=2,
    steered_mazes=2,
    played_levels=3,
)


def with_moves(agent, features):
    """Give an untrained agent a head so large that what it sees changes its moves."""
    torch.manual_seed(0)
    head = torch.nn.Linear(features, 15)
    torch.nn.init.normal_(head.weight, std=5.0)
    return agent.with_layer("action_net", head)


@pytest.fixture(scope="session")
def bilinear_agent():
    small = Agent.new("bimpala-compact", seed=1, channels=6, blocks=(2, 2), features=8)
    with torch.no_grad():  # so that blocks matter beside their skips
        for block in ("block1", "block2", "block3", "block4"):
            small.layer(f"{block}.bilinear").left.weight.mul_(5)
    return with_moves(small, 8)


@pytest.fixture(scope="session")
def relu_agent():
    return with_moves(
        Agent.new("impala-compact", seed=1, channels=(6, 6), blocks=(1, 1), features=8), 8
    )


@pytest.fixture(scope="session")
def study(bilinear_agent):
    return prepare(bilinear_agent, "block2", cheese_presence, sizes=SMALL, progress=False)
