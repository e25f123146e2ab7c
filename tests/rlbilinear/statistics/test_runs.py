"""Statistics by run, against independent routes."""

import itertools

import numpy as np
import pytest
from scipy import stats

from rlbilinear.statistics import runs as statistics


def test_one_game_is_the_t_test_of_one_sample():
    values = np.random.default_rng(0).normal(3, 2, size=5)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = statistics.t_interval(values)
    np.testing.assert_allclose(found, (values.mean(), expected.low, expected.high))


def test_two_games_are_welchs_test():
    random = np.random.default_rng(1)
    a, b = random.normal(size=4), random.normal(2, 5, size=7)
    welch = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)
    found = statistics.mean_over_games({"a": a, "b": b})
    expected = ((a.mean() + b.mean()) / 2, welch.low / 2, welch.high / 2)
    np.testing.assert_allclose(found, expected)


def test_the_interval_over_games_covers_what_it_says():
    random = np.random.default_rng(2)
    inside = 0
    for _ in range(1000):
        games = {str(i): random.normal(i, 1 + i, size=3) for i in range(3)}
        _, low, high = statistics.mean_over_games(games)
        inside += low < 1 < high
    assert inside >= 930  # Welch's is conservative with three runs


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0]])
def test_no_spread_no_interval(values):
    mean, low, high = statistics.t_interval(values)
    assert mean == values[0] and np.isnan(low) and np.isnan(high)
    assert np.isnan(statistics.mean_over_games({"a": np.array(values), "b": np.arange(3.0)}).low)


def test_interquartile_mean_drops_a_quarter_at_each_end():
    games = [np.array([1e6, 1, 2, 3]), np.array([4, 5, 6, -1e6])]
    assert statistics.pooled_iqm(games) == np.mean([2, 3, 4, 5])
    assert statistics.mean_of_games([np.array([1.0, 3.0]), np.array([10.0])]) == 6


def test_stratified_bootstrap_is_that_of_all_samples_enumerated():
    games = {"a": np.array([0.0, 1.0]), "b": np.array([10.0, 30.0])}
    found = statistics.stratified_bootstrap([games], statistics.pooled_iqm, resamples=20_000)
    samples = [itertools.product(values, repeat=2) for values in games.values()]
    all_means = [
        stats.trim_mean(np.concatenate(both), 0.25) for both in itertools.product(*samples)
    ]
    assert found.estimate == stats.trim_mean([0, 1, 10, 30], 0.25)
    low, high = np.quantile(all_means, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_stratified_bootstrap_draws_the_two_sides_apart():
    random = np.random.default_rng(3)
    one, other = ({"a": random.normal(size=40)} for _ in range(2))
    found = statistics.stratified_bootstrap(
        [one, other], lambda a, b: a[0].mean(-1) - b[0].mean(-1), resamples=20_000
    )
    a, b = one["a"], other["a"]
    error = np.sqrt(a.var() / len(a) + b.var() / len(b))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    assert np.isnan(statistics.stratified_bootstrap([{"a": np.ones(1)}], statistics.pooled_iqm).low)


def test_probability_of_improvement_is_mann_and_whitneys():
    random = np.random.default_rng(4)
    ones = [random.integers(4, size=6).astype(float) for _ in range(3)]
    others = [random.integers(4, size=5).astype(float) for _ in range(3)]
    expected = np.mean(
        [stats.mannwhitneyu(a, b).statistic / 30 for a, b in zip(ones, others, strict=True)]
    )
    assert statistics.probability_of_improvement(ones, others) == pytest.approx(expected)


@pytest.mark.parametrize("deviation", [0.01, 0.1, 0.4])
def test_runs_needed_are_the_fewest(deviation):
    n = statistics.runs_needed(deviation, 0.1)

    def half_width(n):
        return stats.t.interval(0.95, n - 1, scale=deviation / np.sqrt(n))[1]

    assert half_width(n) <= 0.1 and (n == 2 or half_width(n - 1) > 0.1)
    assert statistics.runs_needed(100, 0.1) is None


@pytest.mark.parametrize("n", [2, 5])
def test_the_spread_is_known_to_these_factors(n):
    low, high = statistics.spread_known_within(n)
    found = np.random.default_rng(5).normal(size=(20_000, n)).std(axis=1, ddof=1)
    assert np.mean((low * found < 1) & (high * found > 1)) == pytest.approx(0.95, abs=0.006)


def test_no_game_or_no_run_is_an_error():
    for wrong in ({}, {"a": np.array([])}):
        with pytest.raises(ValueError, match="at least one"):
            statistics.mean_over_games(wrong)
