"""Statistics by level, against scipy, hand numbers and simulation."""

import numpy as np
import pytest
from scipy import stats

from rlbilinear.statistics import (
    against_all,
    bootstrap_interval,
    bootstrap_of_means,
    holm,
    level_means,
    paired_difference,
    smallest_effect,
)


def clustered(rng, levels=40, per_level=5, between=1.0, within=0.2):
    ids = np.repeat(np.arange(levels), per_level)
    shift = between * rng.standard_normal(levels)
    return shift[ids] + within * rng.standard_normal(len(ids)), ids


def test_bootstrap_agrees_with_scipy_when_each_level_has_one_value():
    values = np.random.default_rng(0).exponential(size=60)
    ours = bootstrap_interval(values, np.arange(60), n_resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=1
    ).confidence_interval
    assert ours.estimate == values.mean()
    np.testing.assert_allclose(ours[1:], theirs, atol=0.01)


def test_bootstrap_of_the_mean_is_the_general_bootstrap():
    values, ids = clustered(np.random.default_rng(0))
    general = bootstrap_interval(values, ids, lambda rows: rows.mean(), n_resamples=300)
    np.testing.assert_allclose(bootstrap_interval(values, ids, n_resamples=300), general)


def test_bootstrap_of_means_is_the_general_bootstrap_of_a_ratio():
    values, ids = clustered(np.random.default_rng(0))
    columns = np.stack([values, 5 + values**2], 1)[7:]  # levels of unequal size
    general = bootstrap_interval(
        columns, ids[7:], lambda rows: rows[:, 0].mean() / rows[:, 1].mean(), n_resamples=300
    )
    found = bootstrap_of_means(
        columns, ids[7:], lambda means: means[..., 0] / means[..., 1], n_resamples=300
    )
    np.testing.assert_allclose(found, general)


def test_bootstrap_passes_whole_rows_to_the_statistic():
    rng = np.random.default_rng(0)
    pairs = rng.standard_normal((30, 2))
    seen = bootstrap_interval(pairs, np.arange(30), lambda rows: rows[:, 1].max(), n_resamples=20)
    assert seen.estimate == pairs[:, 1].max() >= seen.high


def test_bootstrap_by_level_covers_where_a_bootstrap_by_state_does_not():
    rng = np.random.default_rng(0)
    by_level, by_state = 0, 0
    for seed in range(200):
        values, ids = clustered(rng)
        interval = bootstrap_interval(values, ids, n_resamples=300, seed=seed)
        by_level += interval.low <= 0 <= interval.high
        naive = bootstrap_interval(values, np.arange(len(ids)), n_resamples=300, seed=seed)
        by_state += naive.low <= 0 <= naive.high
    assert 0.89 <= by_level / 200 <= 0.99
    assert by_state / 200 < 0.8


def test_level_order_and_names_do_not_matter():
    values, ids = clustered(np.random.default_rng(0))
    shuffled = np.random.default_rng(1).permutation(len(ids))
    names = np.array([f"level {i:02d}" for i in ids])
    np.testing.assert_allclose(
        bootstrap_interval(values[shuffled], names[shuffled]), bootstrap_interval(values, ids)
    )


def test_level_means_weigh_levels_not_states():
    values, ids = np.array([1.0, 2.0, 3.0, 10.0]), np.array([7, 7, 7, 3])
    np.testing.assert_allclose(level_means(values, ids), [10.0, 2.0])
    result = paired_difference(values, np.zeros(4), ids)
    assert (result.difference, result.n_levels) == (6.0, 2)


def test_exact_permutation_test_agrees_with_scipy():
    d = np.random.default_rng(3).normal(0.5, 1, size=9)
    theirs = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    assert paired_difference(d, np.zeros(9), np.arange(9)).p_value == pytest.approx(theirs.pvalue)


def test_monte_carlo_permutation_test_agrees_with_the_t_test():
    d = np.random.default_rng(4).normal(0.3, 1, size=60)
    ours = paired_difference(d, np.zeros(60), np.arange(60))
    assert ours.p_value == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    assert ours.effect_size == pytest.approx(d.mean() / d.std(ddof=1))


def test_p_values_are_uniform_when_nothing_differs():
    rng = np.random.default_rng(0)
    p = [
        paired_difference(
            *rng.standard_normal((2, 30)), np.arange(30), n_resamples=10, n_permutations=999
        ).p_value
        for _ in range(300)
    ]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.09


@pytest.mark.parametrize(("a", "effect", "p"), [(1.0, np.inf, 2 / 2**6), (0.0, 0.0, 1.0)])
def test_levels_that_all_differ_alike(a, effect, p):
    result = paired_difference(np.full(6, a), np.zeros(6), np.arange(6))
    assert (result.difference, result.effect_size, result.p_value) == (a, effect, p)


def test_swapping_the_conditions_mirrors_the_result():
    rng = np.random.default_rng(5)
    a, b, ids = rng.standard_normal(50), rng.standard_normal(50), np.repeat(np.arange(10), 5)
    one, other = paired_difference(a, b, ids), paired_difference(b, a, ids)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == other.p_value


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert holm([]).shape == (0,)


def test_smallest_effect_has_its_power():
    assert smallest_effect(34) == pytest.approx(0.495, abs=1e-3)  # 34 pairs: the textbook's d = .5
    assert smallest_effect(34, sd=3) == pytest.approx(3 * smallest_effect(34))
    effect = smallest_effect(12, power=0.9)
    samples = np.random.default_rng(0).normal(effect, 1, size=(20_000, 12))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval(np.ones(3), np.ones(2)), "shape"),
        (lambda: bootstrap_interval(np.ones(3), np.ones(3)), "at least 2 levels"),
        (lambda: bootstrap_interval(np.array([1, np.nan]), np.arange(2)), "not finite"),
        (lambda: paired_difference(np.ones(3), np.ones(2), np.arange(3)), "one shape"),
        (lambda: holm([0.5, 1.5]), "p-values in 0..1"),
        (lambda: smallest_effect(1), "n_levels >= 2"),
        (lambda: smallest_effect(10, power=0.01), "alpha < power"),
    ],
)
def test_bad_input_says_what_was_given(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_against_all_takes_the_strongest_control_and_the_largest_p():
    rng = np.random.default_rng(0)
    levels = np.arange(40)
    values = 0.5 + 0.1 * rng.standard_normal(40)
    controls = {
        "none": np.zeros(40),
        "strong but steady": 0.3 + 0.01 * rng.standard_normal(40),
        "weak but wild": 0.2 + 2 * rng.standard_normal(40),
    }
    versus = against_all(values, controls, levels)
    assert versus.strongest == "strong but steady"
    assert versus.control == pytest.approx(controls["strong but steady"].mean())
    each = {name: paired_difference(values, c, levels).p_value for name, c in controls.items()}
    assert versus.p_value == each["weak but wild"] > each["strong but steady"]
    with pytest.raises(ValueError, match="at least one control"):
        against_all(values, {}, levels)
