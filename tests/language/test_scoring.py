import math

import pytest
import torch

from rlbilinear.language.scoring import batched, divergence, score, token_losses


def uniform(tokens):
    return torch.zeros(*tokens.shape, 10)


def test_uniform_predictions_have_the_vocabulary_as_perplexity():
    tokens = torch.randint(10, (6, 8))
    found = score(uniform, batched(tokens, 4, "cpu"), original=uniform)
    assert found.perplexity == pytest.approx(10, rel=1e-6)
    assert found.kl == pytest.approx(0, abs=1e-9)


def test_divergence_is_the_sum_over_tokens():
    p, q = (torch.randn(3, 7, generator=torch.Generator().manual_seed(i)) for i in range(2))
    wanted = (p.softmax(-1) * (p.softmax(-1) / q.softmax(-1)).log()).sum(-1)
    torch.testing.assert_close(divergence(p, q), wanted)


def test_losses_are_of_the_next_token():
    logits = torch.full((1, 3, 4), 0.0)
    logits[0, 0, 2] = 100.0
    tokens = torch.tensor([[1, 2, 3]])
    assert token_losses(logits, tokens)[0].tolist() == pytest.approx([0, math.log(4)])


def test_nothing_to_score_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        score(uniform, [])
