"""What is not finite becomes no action and no score."""

import numpy as np
import pytest
import torch
from torch import nn

from rlbilinear.agents import Agent, load
from rlbilinear.agents.evaluation import evaluate, uniform_moves
from rlbilinear.agents.filming import film
from rlbilinear.envs import ProcgenVecEnv

NAN, INF = float("nan"), float("inf")
WHITE = np.full((1, 3, 64, 64), 255, np.uint8)


@pytest.fixture(scope="module")
def agent():
    """A trained bilinear agent, which leaves the range of float32 on a white image."""
    return load("maze-bimpala-compact", device="cpu")


@pytest.fixture(scope="module")
def mazes():
    env = ProcgenVecEnv("maze", 4, num_levels=4)
    observations = env.reset().copy()
    env.close()
    return observations


@pytest.fixture
def broken():
    """An agent with weights that are not finite in the middle."""
    agent = Agent.new("bimpala-small", channels=4, features=8)
    with torch.no_grad():
        agent.layer("block2.bilinear.left").weight[0, 0, 0, 0] = NAN
    return agent


def test_an_agent_out_of_its_range_names_the_first_layer(agent, mazes):
    """Found here layer by layer, in float64: where a number is beyond float32."""
    images = agent.double().activations(WHITE, [n for n in agent.layer_names if "." not in n])
    first = next(n for n, x in images.items() if x.abs().max() > torch.finfo(torch.float32).max)
    assert first == "dense"
    observations = np.concatenate([mazes, WHITE])
    message = r"not finite for 1 of 5 observations, number 4 the first: dense is the first layer"
    for ask in (
        agent.logits,
        agent.predict,
        lambda seen: agent.predict(seen, deterministic=True),
        lambda seen: agent.logits(seen, batch=2),
        lambda seen: agent.activations(seen, ["dense", "block1"]),
        lambda seen: agent.activations(seen, "value_net"),
    ):
        with pytest.raises(FloatingPointError, match=message):
            ask(observations)
    with pytest.raises(FloatingPointError, match=r"up to 7\.\de\+23, too much for float32"):
        agent.predict(WHITE[0])
    before = agent.activations(observations, ["block7", "flatten"])  # these are finite
    assert before["block7"].isfinite().all()
    assert not any(module._forward_hooks for module in agent.policy.modules())


def test_unchecked_numbers_can_be_counted(agent, mazes):
    observations = np.concatenate([mazes, WHITE])
    logits = agent.logits(observations, check_finite=False)
    assert logits.isfinite().all(1).tolist() == [True] * 4 + [False]
    dense = agent.activations(observations, ["dense"], check_finite=False)["dense"]
    assert not dense[4].isfinite().all()


def test_in_float64_it_is_the_same_polynomial_on_a_larger_range(agent, mazes):
    double = agent.double()
    assert (agent.dtype, double.dtype) == (torch.float32, torch.float64)
    assert double.config == agent.config
    exact = double.logits(mazes)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(agent.logits(mazes).double(), exact, rtol=0, atol=1e-3)
    red = WHITE * np.array([1, 0, 0], np.uint8)[:, None, None]
    logits = double.logits(np.concatenate([WHITE, red]))
    assert logits.isfinite().all()
    assert 1e47 < logits[0].abs().max() < 1e48
    assert 1e113 < logits[1].abs().max() < 1e114
    actions, _ = double.predict(WHITE, deterministic=True)
    assert actions[0] == logits[0].argmax()
    again = load("maze-bimpala-compact", "cpu", dtype=torch.float64)
    assert torch.equal(again.logits(mazes), exact)


def test_a_float64_agent_is_edited_evaluated_filmed_and_saved(agent, tmp_path):
    double = agent.double()
    edited = double.with_layer("block1", double.layer("block1"))
    assert edited.dtype == torch.float64
    played = evaluate(edited, [0], progress=False)
    assert played["steps"].between(1, 500).all()
    assert film(edited, [0], steps=2).ndim == 4
    edited.save(tmp_path / "double", dtype=torch.float64)
    loaded = load(tmp_path / "double", "cpu", dtype=torch.float64)
    for name, weight in edited.policy.state_dict().items():
        assert torch.equal(loaded.policy.state_dict()[name], weight)


def test_weights_that_are_not_finite_are_named(broken, mazes):
    message = r"block2\.bilinear is the first layer .*, as are its weights: left\.weight"
    with pytest.raises(FloatingPointError, match=message):
        broken.predict(mazes)
    with pytest.raises(ValueError, match=r"not finite in the new block2: bilinear\.left\.weight"):
        broken.with_layer("block2", broken.layer("block2"))


@pytest.mark.parametrize("greedy", [True, False])
def test_evaluation_plays_no_action_of_what_is_not_finite(broken, greedy):
    with pytest.raises(FloatingPointError, match=r"block2\.bilinear is the first layer"):
        evaluate(broken, range(2), greedy=greedy, progress=False)
    played = evaluate(broken, range(3), greedy=greedy, progress=False, not_finite="count")
    assert played["not_finite"].all() and not played["success"].any()
    assert (played["steps"] == 0).all()
    with pytest.raises(FloatingPointError, match=r"block2\.bilinear is the first layer"):
        film(broken, [0])


def test_only_the_episodes_that_leave_the_range_are_counted():
    """Those that do not are played as they are without the others."""

    def policy(observations):
        scores = uniform_moves(observations)
        scores[observations.reshape(len(observations), -1).sum(1) % 7 == 0, 3] = NAN
        return scores

    counted = evaluate(policy, range(8), game="maze", progress=False, not_finite="count")
    assert 0 < counted["not_finite"].sum() < 8
    whole = evaluate(uniform_moves, range(8), game="maze", progress=False, not_finite="count")
    assert not whole["not_finite"].any()
    kept = ~counted["not_finite"]
    assert whole[kept].equals(counted[kept])
    assert not counted["success"][~kept].any()
    with pytest.raises(FloatingPointError, match="the largest cannot be chosen"):
        evaluate(policy, range(8), game="maze", progress=False)


def test_an_agents_minus_infinity_is_out_of_range_too():
    agent = Agent.new("impala-small", channels=(4, 4), features=8)
    head = nn.Linear(8, 15)
    with torch.no_grad():
        head.weight.zero_()
        head.bias[2] = -3e38
    agent = agent.with_layer("action_net", head)
    with torch.no_grad():
        agent.layer("action_net").bias[2] = -INF
    assert evaluate(agent, [0], progress=False, not_finite="count")["not_finite"].all()


def test_scores_of_other_actions_are_refused():
    def four(observations):
        return torch.zeros(len(observations), 4)

    with pytest.raises(ValueError, match="expected scores of 15 actions"):
        evaluate(four, [0], game="maze", progress=False)
    with pytest.raises(ValueError, match="choose from raise, count"):
        evaluate(uniform_moves, [0], game="maze", not_finite="ignore")
