import numpy as np
import pytest
import torch

from rlbilinear.probes.moves import kl_divergence, move_distribution, total_variation


def test_actions_with_one_effect_count_as_one_move():
    logits = torch.full((1, 15), -torch.inf)
    for action, probability in {
        0: 0.1,
        2: 0.1,
        3: 0.2,
        5: 0.05,
        7: 0.15,
        4: 0.25,
        14: 0.15,
    }.items():
        logits[0, action] = np.log(probability)
    assert np.allclose(move_distribution(logits), [[0.2, 0.2, 0.05, 0.15, 0.4]])


def test_uniform_actions():
    assert np.allclose(move_distribution(torch.zeros(2, 15)) * 15, [[3, 1, 1, 3, 7]] * 2)


def test_divergences_by_hand():
    p, q = np.array([[0.5, 0.5, 0, 0, 0]]), np.array([[0.25, 0.5, 0.25, 0, 0]])
    assert np.allclose(kl_divergence(p, q), [0.5 * np.log(2)])
    assert np.isinf(kl_divergence(q, p)).all()
    assert np.allclose(total_variation(p, q), [0.25])
    assert total_variation(p, np.array([[0, 0, 0, 0, 1.0]])) == 1


def test_other_actions_are_refused():
    with pytest.raises(ValueError, match="15"):
        move_distribution(torch.zeros(2, 4))


def test_logits_beyond_what_floats_hold_still_give_probabilities():
    logits = torch.zeros(3, 15)
    logits[0] = torch.nan
    logits[1, 4] = torch.inf
    logits[2, 7] = -torch.inf
    moves = move_distribution(logits)
    assert np.allclose(moves[0], move_distribution(torch.zeros(1, 15)))
    assert sorted(moves[1]) == [0, 0, 0, 0, 1]
    assert np.isfinite(moves).all() and np.allclose(moves.sum(1), 1)
