"""Statistics whose unit is the level.

States of one level resemble each other, so a level counts as one observation: intervals resample
levels, and tests flip the signs of whole levels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import optimize, stats

from rlbilinear.statistics.intervals import Interval, percentiles

Levels = Shaped[np.ndarray, "n"]
Statistic = Callable[[np.ndarray], float]


class PairedDifference(NamedTuple):
    """The mean difference of two conditions, level by level.

    Attributes:
        difference: mean over levels of a level's mean difference.
        low: lower end of its confidence interval.
        high: upper end.
        effect_size: Cohen's d of paired differences: their mean over their standard deviation
            across levels. Infinite when all levels differ alike, 0 when none differs.
        p_value: two-sided, of the sign-flip permutation test.
        n_levels: number of levels.
    """

    difference: float
    low: float
    high: float
    effect_size: float
    p_value: float
    n_levels: int


class Versus(NamedTuple):
    """Values beside several controls.

    Attributes:
        strongest: the control with the largest mean.
        control: its mean.
        p_value: of exceeding every control.
    """

    strongest: str
    control: float
    p_value: float


def bootstrap_interval(
    values: Shaped[np.ndarray, "n *rest"],
    levels: Levels,
    statistic: Statistic = np.mean,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of the cluster bootstrap: whole levels are drawn with replacement.

    Args:
        values: one row for each state; ``statistic`` gets the rows of the levels drawn. For a
            statistic of several arrays pass ``np.arange(n)`` and index them in it.
        levels: the level of each row.
        statistic: rows (m, *rest) -> number.
        seed: seed of the resampling.
        n_resamples: number of bootstrap samples.
        confidence: confidence level of the interval.

    Raises:
        ValueError: lengths differ, values are not finite, or there are fewer than two levels.
    """
    values = _finite(values)
    if statistic is np.mean and values.ndim == 1:
        return bootstrap_of_means(
            values[:, None],
            levels,
            lambda means: means[..., 0],
            seed=seed,
            n_resamples=n_resamples,
            confidence=confidence,
        )
    rows = _rows_by_level(values, levels)
    resampled = [
        statistic(values[np.concatenate([rows[level] for level in one])])
        for one in _drawn(len(rows), n_resamples, seed)
    ]
    return percentiles(statistic(values), np.array(resampled), confidence)


def bootstrap_of_means(
    values: Shaped[np.ndarray, "n columns"],
    levels: Levels,
    function: Callable[[Float[np.ndarray, "*batch columns"]], Float[np.ndarray, "*batch"]],
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """`bootstrap_interval` of a function of means, such as a ratio, for all resamples at once.

    Args:
        values: one row for each state.
        levels: the level of each row.
        function: of the columns' means.
        seed: seed of the resampling.
        n_resamples: number of bootstrap samples.
        confidence: confidence level of the interval.

    Raises:
        ValueError: lengths differ, values are not finite, or there are fewer than two levels.
    """
    values = _finite(values)
    rows = _rows_by_level(values, levels)
    sums = np.stack([values[some].sum(0) for some in rows])
    counts = np.array([len(some) for some in rows])
    drawn = _drawn(len(rows), n_resamples, seed)
    means = sums[drawn].sum(1) / counts[drawn].sum(1)[:, None]
    return percentiles(function(values.mean(0)), function(means), confidence)


def level_means(values: Float[np.ndarray, "n"], levels: Levels) -> Float[np.ndarray, "levels"]:
    """Average the values of each level; levels are in ascending order.

    Raises:
        ValueError: lengths differ, values are not finite, or there are fewer than two levels.
    """
    values = _finite(values)
    return np.array([values[rows].mean() for rows in _rows_by_level(values, levels)])


def paired_difference(
    a: Float[np.ndarray, "n"],
    b: Float[np.ndarray, "n"],
    levels: Levels,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    n_permutations: int = 10_000,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare two conditions measured on the same states: ``a - b``, each level counting once.

    The test's null hypothesis is that a level's difference is as likely as its negative. All
    sign patterns are tried when there are at most ``n_permutations`` of them, else that many
    random ones, with p-value (as extreme + 1) / (tried + 1) (Phipson and Smyth 2010).

    Args:
        a: the first condition, one value for each state.
        b: the second, of the same states in the same order.
        levels: the level of each state.
        seed: seed of the resampling.
        n_resamples: bootstrap samples for the interval.
        n_permutations: sign patterns for the test.
        confidence: confidence level of the interval.

    Raises:
        ValueError: shapes differ, values are not finite, or there are fewer than two levels.
    """
    a, b = _finite(a), _finite(b)
    if a.shape != b.shape:
        raise ValueError(f"paired conditions must have one shape, got {a.shape} and {b.shape}")
    means = level_means(a - b, levels)
    interval = bootstrap_interval(
        means, np.arange(len(means)), seed=seed, n_resamples=n_resamples, confidence=confidence
    )
    p_value = _sign_flip_test(means, n_permutations, seed)
    return PairedDifference(*interval, _cohens_d(means), p_value, len(means))


def against_all(
    values: Float[np.ndarray, "n"],
    controls: Mapping[str, Float[np.ndarray, "n"]],
    levels: Levels,
    *,
    seed: int = 0,
) -> Versus:
    """Compare values with every control, state by state: the claim is that they exceed all.

    The p-value is the largest of the `paired_difference` tests, which needs no correction for the
    number of controls (an intersection-union test, Berger 1982).

    Raises:
        ValueError: there is no control, or as for `paired_difference`.
    """
    if not controls:
        raise ValueError("expected at least one control")
    strongest = max(controls, key=lambda name: float(np.mean(controls[name])))
    return Versus(
        strongest,
        float(np.mean(controls[strongest])),
        max(
            paired_difference(values, control, levels, seed=seed).p_value
            for control in controls.values()
        ),
    )


def holm(p_values: Sequence[float] | Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    """Adjust p-values for a family of tests (Holm 1979), in the order given.

    Raises:
        ValueError: a p-value outside 0..1.
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"expected a list of p-values in 0..1, got {p_values}")
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted


def smallest_effect(
    n_levels: int, sd: float = 1.0, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest mean paired difference that ``n_levels`` levels show with this power.

    Of the two-sided paired t-test: t has noncentrality ``difference / sd * sqrt(n_levels)`` and
    exceeds its upper critical value with probability ``power``. (That it falls below the lower
    one, which would be the wrong sign, is not counted.)

    Args:
        n_levels: number of levels, at least 2.
        sd: standard deviation of the differences across levels; at 1 the answer is Cohen's d.
        power: probability of finding the effect, above ``alpha`` and below 1.
        alpha: level of the test.

    Raises:
        ValueError: an argument out of its range.
    """
    if n_levels < 2 or not sd >= 0 or not 0 < alpha < power < 1:
        raise ValueError(
            "expected n_levels >= 2, sd >= 0 and 0 < alpha < power < 1, "
            f"got {n_levels}, {sd}, alpha {alpha}, power {power}"
        )
    freedom = n_levels - 1
    critical = stats.t.isf(alpha / 2, freedom)

    def excess(noncentrality: float) -> float:
        return stats.nct.sf(critical, freedom, noncentrality) - power

    upper = 1.0
    while excess(upper) < 0:
        upper *= 2
    return sd * optimize.brentq(excess, 0, upper) / np.sqrt(n_levels)


def _drawn(levels: int, resamples: int, seed: int) -> Int[np.ndarray, "resamples levels"]:
    return np.random.default_rng(seed).integers(levels, size=(resamples, levels))


def _cohens_d(differences: Float[np.ndarray, "levels"]) -> float:
    mean, sd = differences.mean(), differences.std(ddof=1)
    if sd == 0:
        return float(np.sign(mean) * np.inf) if mean else 0.0
    return float(mean / sd)


def _sign_flip_test(differences: Float[np.ndarray, "levels"], n: int, seed: int) -> float:
    levels = len(differences)
    exact = 2**levels <= n
    if exact:
        flips = np.arange(2**levels)[:, None] >> np.arange(levels) & 1
    else:
        flips = np.random.default_rng(seed).integers(0, 2, size=(n, levels))
    null = np.abs((1 - 2 * flips) @ differences)
    rounding = 1e-12 * np.abs(differences).sum()
    as_extreme = np.count_nonzero(null >= np.abs(differences.sum()) - rounding)
    return as_extreme / len(flips) if exact else (as_extreme + 1) / (len(flips) + 1)


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} of {values.size} values are not finite")
    return values


def _rows_by_level(values: np.ndarray, levels: Levels) -> list[np.ndarray]:
    levels = np.asarray(levels)
    if levels.ndim != 1 or values.ndim < 1 or len(levels) != len(values):
        raise ValueError(f"levels of shape {levels.shape} for values of shape {values.shape}")
    _, which, counts = np.unique(levels, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ValueError(f"statistics by level need at least 2 levels, got {len(counts)}")
    return np.split(np.argsort(which, kind="stable"), np.cumsum(counts)[:-1])
