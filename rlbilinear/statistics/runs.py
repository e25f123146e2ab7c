"""Statistics whose unit is the run: what several seeds say of an architecture.

Levels tell how well one trained agent is known; only seeds tell what another training would give.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from rlbilinear.statistics.intervals import CONFIDENCE, Interval, percentiles

FEW = 5
"""With fewer runs a game, the bootstrap's intervals are too narrow to lean on."""

Scores = Mapping[str, Float[np.ndarray, "runs"]]
"""Normalised scores of runs, by game."""

Games = Sequence[Float[np.ndarray, "*resamples runs"]]
"""Scores of runs, or many resamples of them, game by game."""


def t_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean of runs with its Student interval; one run, or equal ones, have none."""
    return mean_over_games({"": np.asarray(values, float)})


def mean_over_games(by_game: Scores) -> Interval:
    """Return the mean of the games' means, with its interval over runs; the games are fixed.

    Each game has a variance of its own; the degrees of freedom are Welch and Satterthwaite's. A
    game with one run, or with runs that are all the same to the last digit, leaves no interval:
    its spread was not measured.

    Raises:
        ValueError: no game, or one without runs.
    """
    _check(by_game)
    means = np.array([np.mean(values) for values in by_game.values()])
    counts = np.array([len(values) for values in by_game.values()])
    spreads = [np.ptp(values) for values in by_game.values()]
    if counts.min() < 2 or min(spreads) == 0:
        return Interval(float(means.mean()), np.nan, np.nan)
    parts = np.array([np.var(values, ddof=1) for values in by_game.values()]) / counts
    freedom = parts.sum() ** 2 / (parts**2 / (counts - 1)).sum()
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(parts.sum()) / len(counts)
    return Interval(*(float(means.mean() + shift) for shift in (0, -half, half)))


def pooled_iqm(games: Games) -> Float[np.ndarray, "*resamples"]:
    """Return the interquartile mean, the mean of the middle half, of all runs of all games."""
    return stats.trim_mean(np.concatenate(games, axis=-1), 0.25, axis=-1)


def mean_of_games(games: Games) -> Float[np.ndarray, "*resamples"]:
    """Return the mean of the games' means."""
    return np.mean([values.mean(axis=-1) for values in games], axis=0)


def stratified_bootstrap(
    architectures: Sequence[Scores],
    statistic: Callable[..., Float[np.ndarray, "*resamples"]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return a statistic of all runs with its percentile interval: runs drawn within each game.

    As in Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
    precipice" (rliable). A game with one run leaves no interval.

    Args:
        architectures: whose scores the statistic takes.
        statistic: statistic of each architecture's games, one argument for each architecture.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Raises:
        ValueError: no game, or one without runs.
    """
    for by_game in architectures:
        _check(by_game)
    samples = [[np.asarray(values, float) for values in one.values()] for one in architectures]
    estimate = float(statistic(*samples))
    if min(len(values) for games in samples for values in games) < 2:
        return Interval(estimate, np.nan, np.nan)
    random = np.random.default_rng(seed)

    def drawn(values: Float[np.ndarray, "runs"]) -> Float[np.ndarray, "resamples runs"]:
        return values[random.integers(len(values), size=(resamples, len(values)))]

    found = statistic(*([drawn(values) for values in games] for games in samples))
    return percentiles(estimate, found)


def probability_of_improvement(
    one: Sequence[Float[np.ndarray, "runs"]], other: Sequence[Float[np.ndarray, "runs"]]
) -> float:
    """Return how likely a run of one exceeds a run of the other, averaged over games.

    Ties count half (Mann and Whitney's U over the number of pairs).
    """
    chances = [
        (np.greater.outer(a, b) + 0.5 * np.equal.outer(a, b)).mean()
        for a, b in zip(one, other, strict=True)
    ]
    return float(np.mean(chances))


def runs_needed(deviation: float, margin: float, most: int = 1000) -> int | None:
    """Return how many runs make the half-width of a t-interval the margin; None beyond ``most``.

    Args:
        deviation: standard deviation between runs.
        margin: the half-width.
        most: where to stop looking.
    """
    for n in range(2, most + 1):
        if stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * deviation / np.sqrt(n) <= margin:
            return n
    return None


def spread_known_within(n: int) -> tuple[float, float]:
    """Return by which factors the standard deviation may differ from that of ``n`` normal runs."""
    tails = stats.chi2.ppf(((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2), n - 1)
    low, high = np.sqrt((n - 1) / tails)
    return float(low), float(high)


def _check(by_game: Scores) -> None:
    if not by_game or min(len(values) for values in by_game.values()) < 1:
        raise ValueError("expected at least one game, each with at least one run")
