import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlbilinear.probes.alike import alike, match_channels

SEEDS = st.integers(0, 2**32 - 1)


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=SEEDS, channels=st.integers(8, 24), kernel=st.sampled_from([(), (3, 3)]))
def test_the_same_agent_with_other_channel_numbers(seed, channels, kernel):
    """Channels are permuted, negated and scaled: they are found, and all is alike."""
    rng = np.random.default_rng(seed)
    order, signs = rng.permutation(channels), rng.choice([-1.0, 1.0], channels)
    activations = randn(200, channels, 3, 2, seed=seed)
    flipped = torch.from_numpy(signs).reshape(-1, 1, 1)
    other = (activations * flipped)[:, order] * 3 + 1
    matching = match_channels(activations, other)
    np.testing.assert_array_equal(order[matching.channels], np.arange(channels))
    np.testing.assert_allclose(matching.correlations, 1)
    filters = randn(2, channels, *kernel, seed=seed + 1)
    theirs = (filters * flipped.reshape(-1, *[1] * len(kernel)))[:, order]
    torch.testing.assert_close(matching.to_first(theirs), filters)
    found = alike(filters, theirs, matching, resamples=99)
    assert found.similarity == pytest.approx(1) and found.p <= 0.02 and found.chance < 0.9


@given(seed=SEEDS)
def test_similarity_is_of_what_the_directions_span(seed):
    one, other = randn(2, 10, seed=seed), randn(2, 10, seed=seed + 1)
    matching = match_channels(*[randn(50, 10, seed=seed + 2)] * 2)
    mixed = torch.tensor([[2.0, 1.0], [0.5, -3.0]], dtype=torch.float64) @ other
    found, same = (alike(one, each, matching, resamples=20) for each in (other, mixed))
    np.testing.assert_allclose(found, same, atol=1e-12)
    angles = torch.linalg.svdvals(torch.linalg.qr(one.T).Q.T @ torch.linalg.qr(other.T).Q)
    assert found.similarity == pytest.approx(float(angles.square().mean()))


def test_unrelated_directions_are_rarely_called_alike():
    """p is at most 0.05 in no more than 0.05 of the draws: 400 draws, wrong by luck in 1e-6."""
    matching = match_channels(*[randn(50, 12, seed=0)] * 2)
    below = sum(
        alike(
            randn(1, 12, seed=2 * draw), randn(1, 12, seed=2 * draw + 1), matching, resamples=59
        ).p
        <= 0.05
        for draw in range(400)
    )
    assert below <= stats.binom.isf(1e-6, 400, 0.05)


def test_a_channel_that_never_changes_matches_nothing_well():
    activations = randn(50, 4, seed=0)
    activations[:, 2] = 1.0
    matching = match_channels(activations, activations)
    np.testing.assert_array_equal(matching.channels, np.arange(4))
    assert matching.correlations[2] == 0


def test_bad_input():
    activations, directions = randn(5, 4, seed=0), randn(1, 4, seed=1)
    with pytest.raises(ValueError, match=r"one shape.*\(5, 4\) and \(5, 3\)"):
        match_channels(activations, activations[:, :3])
    matching = match_channels(activations, activations)
    for wrong in (directions[:, :3], directions[:0]):
        with pytest.raises(ValueError, match="one shape"):
            alike(directions, wrong, matching)
