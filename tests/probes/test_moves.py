import mpmath
import numpy as np
import pytest
import torch

from rlbilinear.envs import ACTIONS_OF_MOVE
from rlbilinear.envs.pairs import NO_MOVE
from rlbilinear.probes.moves import (
    kl_divergence,
    log_move_distribution,
    move_distribution,
    right_moves,
    total_variation,
)


def test_actions_with_one_effect_count_as_one_move():
    probabilities = np.full(15, 1e-300)
    probabilities[[0, 2, 3, 5, 7, 4, 14]] = 0.1, 0.1, 0.2, 0.05, 0.15, 0.25, 0.15
    moves = move_distribution(torch.from_numpy(np.log(probabilities))[None])
    assert np.allclose(moves, [[0.2, 0.2, 0.05, 0.15, 0.4]])


def test_uniform_actions():
    assert np.allclose(move_distribution(torch.zeros(2, 15)) * 15, [[3, 1, 1, 3, 7]] * 2)


def test_divergences_by_hand():
    p, q = np.array([[0.5, 0.5, 0, 0, 0]]), np.array([[0.25, 0.5, 0.25, 0, 0]])
    with np.errstate(divide="ignore"):
        log_p, log_q = np.log(p), np.log(q)
    assert np.allclose(kl_divergence(log_p, log_q), [0.5 * np.log(2)])
    assert np.isinf(kl_divergence(log_q, log_p)).all()
    assert np.allclose(total_variation(p, q), [0.25])
    assert total_variation(p, np.array([[0, 0, 0, 0, 1.0]])) == 1


def exact_kl(ours, theirs):
    """Of the moves' distributions, in 60 digits."""
    with mpmath.workdps(60):
        logs = []
        for logits in (ours, theirs):
            powers = [mpmath.exp(mpmath.mpf(float(each))) for each in logits]
            groups = (ACTIONS_OF_MOVE[move] for move in sorted(ACTIONS_OF_MOVE))
            sums = [mpmath.fsum(powers[action] for action in group) for group in groups]
            logs.append([mpmath.log(each / mpmath.fsum(powers)) for each in sums])
        return float(mpmath.fsum(mpmath.exp(p) * (p - q) for p, q in zip(*logs, strict=True)))


@pytest.mark.parametrize("size", [1, 10, 100, 1e3, 1e4])
def test_divergence_of_logits_of_any_size_is_exact(size):
    random = np.random.default_rng(0)
    for _ in range(20):
        logits = torch.from_numpy(size * random.standard_normal((2, 15)))
        found = kl_divergence(*(log_move_distribution(each[None]) for each in logits))
        assert found.item() == pytest.approx(exact_kl(*logits), rel=1e-12, abs=1e-15)


def test_a_certain_policy_beside_a_uniform_one():
    certain = torch.zeros(1, 15)
    certain[0, ACTIONS_OF_MOVE[1][0]] = 800
    uniform = log_move_distribution(torch.zeros(1, 15))
    found = kl_divergence(uniform, log_move_distribution(certain)).item()
    assert found == pytest.approx(14 / 15 * 800 - np.log(15), rel=1e-14)  # 743.96


def test_other_actions_are_refused():
    with pytest.raises(ValueError, match="15"):
        move_distribution(torch.zeros(2, 4))


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_no_move(broken):
    logits = torch.zeros(3, 15)
    logits[0, 4] = broken
    logits[1:, 0] = 5
    moves = move_distribution(logits)
    assert np.isnan(moves[0]).all() and np.allclose(moves[1:].sum(1), 1)
    assert np.isnan(kl_divergence(*[log_move_distribution(logits)] * 2)[0])
    left = np.array([0, 0, NO_MOVE])
    np.testing.assert_equal(right_moves(moves, left), [np.nan, 1, np.nan])
