"""Integrated gradients: complete, exact where they can be, equal to an integral done by hand."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.integrate import quad_vec

from rlbilinear.agents import Agent
from rlbilinear.envs import ACTIONS_OF_MOVE, Maze, Move, observe
from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.curves import attribution_points
from rlbilinear.probes.dataset import collect
from rlbilinear.probes.moves import move_probabilities

captum = pytest.importorskip("captum", reason="attribution needs the extra `attribution`")

from rlbilinear.probes.attribution import (  # noqa: E402
    attribution_table,
    integrated_gradients,
    log_odds,
)

MAZES = [Maze.from_seed(seed) for seed in range(5)]
STATES, BLANK = observe(MAZES), observe([maze.with_cheese() for maze in MAZES])


def double(agent):
    return Agent(copy.deepcopy(agent.policy).double(), agent.config)


def logit(action):
    return lambda logits: logits[:, action]


@pytest.fixture(scope="module")
def exact(bilinear_agent):
    return double(bilinear_agent)


def test_log_odds_are_those_of_the_moves(bilinear_agent):
    odds = log_odds(bilinear_agent.logits(STATES).double()).numpy()
    p = move_probabilities(bilinear_agent, STATES)
    np.testing.assert_allclose(odds, np.log(p / (1 - p)), rtol=1e-6)


@pytest.mark.parametrize("layer", ["block3", "block4", "flatten"])
def test_polynomials_after_the_last_pool_are_attributed_exactly(exact, layer):
    """From block3, a logit is of degree 4: two points integrate its gradient exactly."""
    found = integrated_gradients(exact, layer, STATES, BLANK, logit(3), steps=2)
    change = (exact.logits(STATES) - exact.logits(BLANK))[:, 3].numpy()
    assert np.abs(change).min() > 1e-4
    np.testing.assert_allclose(found.change, change, rtol=1e-9)
    np.testing.assert_allclose(found.gap, 0, atol=1e-10)
    np.testing.assert_allclose(found.values.reshape(5, -1).sum(1), change, rtol=1e-7)
    assert found.values.shape == (5, *exact.activations(STATES, [layer])[layer].shape[1:])


def test_of_a_linear_head_it_is_weight_times_change(exact):
    found = integrated_gradients(exact, "dense", STATES, BLANK, logit(3), steps=1)
    at, base = (exact.activations(each, ["dense"])["dense"] for each in (STATES, BLANK))
    expected = exact.layer("action_net").weight[3].detach() * (at - base)
    np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-12)
    np.testing.assert_array_equal(found.channels, found.values)


def test_it_is_the_path_integral_done_by_hand(exact):
    """(x - b) times the mean gradient on the way from b to x, by another rule of integration."""
    x, b = (exact.activations(each[:1], ["block4"])["block4"] for each in (STATES, BLANK))
    rest = torch.nn.Sequential(*(exact.layer(each) for each in ("flatten", "dense", "action_net")))

    def gradient(at):
        point = (b + at * (x - b)).requires_grad_()
        odds = log_odds(rest(point))[0, Move.UP]
        return torch.autograd.grad(odds, point)[0].numpy()

    expected = (x - b).numpy() * quad_vec(gradient, 0, 1, epsrel=1e-10)[0]
    found = integrated_gradients(exact, "block4", STATES[:1], BLANK[:1], Move.UP)
    np.testing.assert_allclose(found.values, expected, atol=1e-9)


@pytest.mark.parametrize("layer", ["stem", "pool1", "block1", "block2", "dense"])
def test_relu_networks_are_complete_but_for_the_integration(relu_agent, layer):
    agent = double(relu_agent)
    coarse, fine = (
        integrated_gradients(agent, layer, STATES[:2], BLANK[:2], Move.LEFT, steps=steps)
        for steps in (4, 100)
    )
    assert np.abs(fine.gap).max() < 0.05 * np.abs(fine.change).max()
    assert np.abs(fine.gap).mean() <= np.abs(coarse.gap).mean() + 1e-9


def test_batches_and_a_single_baseline_do_not_matter(exact):
    black = np.zeros((1, 3, 64, 64), np.uint8)
    moves = [Move.UP, Move.LEFT, Move.UP, Move.RIGHT, Move.DOWN]
    whole = integrated_gradients(exact, "block4", STATES, black, moves, steps=4)
    small = integrated_gradients(
        exact, "block4", STATES, np.repeat(black, 5, 0), moves, steps=4, batch=2
    )
    np.testing.assert_allclose(small.values, whole.values, atol=1e-12)
    one = integrated_gradients(exact, "block4", STATES[2:3], black, Move.UP, steps=4)
    np.testing.assert_allclose(one.values[0], whole.values[2], atol=1e-12)


def test_the_agent_is_left_as_it_is(exact):
    before = exact.logits(STATES)
    integrated_gradients(exact, "block4", STATES, BLANK, Move.UP, steps=2)
    assert torch.equal(exact.logits(STATES), before)
    assert all(weight.grad is None for weight in exact.policy.parameters())
    assert not any(module._forward_hooks for module in exact.policy.modules())


def test_the_table_says_what_the_cheese_changes(exact, bilinear_agent):
    data = collect(bilinear_agent, range(6), ["pool2"], [cheese_presence], states_per_level=2)
    table = attribution_table(exact, data, ["block4", "dense"], steps=8, n_resamples=50)
    assert table.groupby("layer", sort=False)["channel"].count().to_dict() == {
        "block4": 6,
        "dense": 8,
    }
    blank = observe([maze.with_cheese() for maze in data.mazes])
    likeliest = move_probabilities(bilinear_agent, data.observations).argmax(1)
    assert [*ACTIONS_OF_MOVE] == sorted(ACTIONS_OF_MOVE)
    odds = [log_odds(exact.logits(each)) for each in (data.observations, blank)]
    change = (odds[0] - odds[1])[np.arange(len(data)), likeliest].mean().item()
    for _, rows in table.groupby("layer"):
        assert rows["attribution"].sum() == pytest.approx(change, abs=1e-6)
        assert rows["change"].iloc[0] == pytest.approx(change, abs=1e-9)
        assert rows["share"].sum() == pytest.approx(1)
        assert (rows["size"] >= rows["attribution"].abs() - 1e-12).all()
        assert rows["gap"].max() < 1e-6
    titles = [axes.get_title() for axes in attribution_points(table, most=3).axes]
    assert titles[0].startswith("block4: these add ") and titles[1].startswith("dense: ")


def test_bad_input_says_what_is_accepted(bilinear_agent):
    def ask(layer="block4", base=BLANK, output=Move.UP, **options):
        return integrated_gradients(bilinear_agent, layer, STATES, base, output, **options)

    with pytest.raises(ValueError, match="unknown layer 'block9'; choose from stem"):
        ask("block9")
    with pytest.raises(ValueError, match="no output of its own"):
        ask("block1.bilinear.left")
    with pytest.raises(ValueError, match="expected 1 baseline or 5"):
        ask(base=BLANK[:2])
    with pytest.raises(ValueError, match="expected uint8 observations"):
        ask(base=BLANK / 255)
    with pytest.raises(ValueError, match="one for each of 5 states"):
        ask(output=[Move.UP])
    with pytest.raises(ValueError, match="a Move, one for each"):
        ask(output=9)
    with pytest.raises(ValueError, match=r"one number for each state, got shape \(5, 15\)"):
        ask(output=lambda logits: logits)
    with pytest.raises(ValueError, match="positive, got 0"):
        ask(steps=0)


def test_without_captum_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['captum'] = sys.modules['captum.attr'] = None\n"
        "from rlbilinear.probes.attribution import integrated_gradients\n"
        "integrated_gradients(None, 'block1', [], [], None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: attribution needs captum" in done.stderr.splitlines()[-1]
    assert "pip install 'rlbilinear[attribution]'" in done.stderr.splitlines()[-1]
