"""Divergences of policies, against exact arithmetic."""

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear.statistics import grouped, kl_divergence, kl_of_logits


def exact(ours, theirs):
    with mpmath.workdps(60):
        logs = []
        for logits in (ours, theirs):
            values = [mpmath.mpf(each) for each in logits]
            total = mpmath.log(mpmath.fsum(map(mpmath.exp, values)))
            logs.append([each - total for each in values])
        return float(mpmath.fsum(mpmath.exp(p) * (p - q) for p, q in zip(*logs, strict=True)))


@given(st.data(), st.sampled_from([1.0, 10.0, 100.0, 1e3, 1e4]), st.integers(2, 15))
def test_logits_of_any_size(data, size, outcomes):
    logits = st.lists(st.floats(-size, size), min_size=outcomes, max_size=outcomes)
    ours, theirs = data.draw(logits), data.draw(logits)
    found = kl_of_logits(*(torch.tensor(each, dtype=torch.float64) for each in (ours, theirs)))
    # Each term is rounded to 2e-16 of logits up to the size.
    assert found.item() == pytest.approx(exact(ours, theirs), rel=1e-12, abs=1e-15 * (1 + size))


def test_one_large_logit():
    ours, theirs = torch.zeros(1, 15), torch.zeros(1, 15)
    theirs[0, 3] = 800
    assert kl_of_logits(ours, theirs).item() == pytest.approx(743.9586164656, rel=1e-12)


def test_outcomes_without_probability():
    half = torch.tensor([0.5, 0.5, 0.0]).log()
    assert kl_divergence(half, half).item() == 0
    assert kl_divergence(half, torch.tensor([1.0, 0.0, 0.0]).log()).item() == torch.inf
    assert kl_divergence(half, torch.tensor([0.25, 0.5, 0.25]).log()).item() == pytest.approx(
        0.5 * torch.tensor(2.0).log().item()
    )
    assert kl_divergence(torch.full((3,), torch.nan), half).isnan()
    with pytest.raises(ValueError, match="log-probabilities"):
        kl_divergence(half, half.exp())


def test_groups_add_their_probabilities():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    found = grouped(p.log(), [(0, 3), (1,), (2,)]).exp()
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.2, 0.3]], dtype=torch.float64))
    tiny = grouped(torch.tensor([[-1e4, -1e4]], dtype=torch.float64), [(0, 1)])
    assert tiny.item() == pytest.approx(-1e4 + 0.6931471805599453, rel=1e-15)
