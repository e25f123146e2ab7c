"""Regressions of an agent's choices on measures of the mazes, and how firm they are.

After "Behavioural statistics for a maze-solving agent" (Grietzer and Turner 2023), who regressed
whether an agent takes the cheese on sixteen measures (`rlbilinear.envs.MEASURES`). Measures of one
maze say much the same, so a coefficient alone says little: beside it stand the coefficient without
the other measures, its variance inflation, its interval over levels, and whether it keeps its sign
among other sets of measures.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import expit, rel_entr
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from rlbilinear.agents import Agent
from rlbilinear.envs import Maze, measure_table, observe
from rlbilinear.probes.vectors import Decisions

Kind = Literal["logistic", "linear"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Regression:
    """A regression of choices on measures.

    Attributes:
        table: a row for each measure: ``measure``; ``alone``, its coefficient without the others,
            with the interval ``alone_low``, ``alone_high``; ``coefficient`` beside the others, with
            ``low`` and ``high``; ``vif``, the variance inflation factor; ``same_sign``, the share
            of random sets of measures with it in which its coefficient has the sign that it has
            alone; ``sets``, how many these were. All coefficients are of standardised measures.
            Intervals are of 95 % from the bootstrap by level.
        score: on held-out levels: of a logistic regression the share of the deviance that it
            explains (McFadden's R²), of a linear one R²; 0 says no better than the mean.
        accuracy: of a logistic regression, how often it says right which of the two is likelier, on
            held-out levels; nan of a linear one.
        base_accuracy: of always saying the commoner one.
        rows: how many choices were used.
        left_out: how many were not, as a measure of theirs is missing.
        dropped: measures left out because of their variance inflation, in that order.
    """

    table: pd.DataFrame
    score: float
    accuracy: float
    base_accuracy: float
    rows: int
    left_out: int
    dropped: tuple[str, ...]


def choice_table(agent: Agent, mazes: Mapping[int, Maze]) -> pd.DataFrame:
    """Return what an agent chooses where the ways to cheese and corner part, and the measures.

    Args:
        agent: whom to ask.
        mazes: by level, mazes with one cheese and a decision square.

    Returns:
        A row for each maze: ``level``; ``choice``, the probability of the cheese's way among the
        two, in 0..1; ``log_odds`` of it; then the sixteen measures.

    Raises:
        ValueError: a maze without its cheese or without a decision square, by its level.
    """
    decisions = Decisions.of(mazes)
    cheese, corner = decisions.probabilities(agent.logits(observe(decisions.mazes)))
    with np.errstate(divide="ignore"):  # a probability may be 0 to the last digit
        log_odds = np.log(cheese) - np.log(corner)
    table = measure_table(mazes.values())
    table.insert(0, "level", decisions.levels)
    table.insert(1, "choice", cheese / (cheese + corner))
    table.insert(2, "log_odds", log_odds)
    return table


def variance_inflation(measures: pd.DataFrame) -> pd.Series:
    """Return how much each measure's dependence on the others widens its coefficient's variance.

    ``1 / (1 - R²)`` of the measure regressed on the others; 1 for none, infinite when they tell it
    exactly.

    Raises:
        ValueError: a measure that does not vary, or values that are missing or not finite.
    """
    X = _standardised(measures)
    factors = []
    for column in range(X.shape[1]):
        others = np.delete(X, column, 1)
        share = 0.0
        if others.shape[1]:
            share = LinearRegression().fit(others, X[:, column]).score(others, X[:, column])
        factors.append(1 / (1 - share) if share < 1 - 1e-10 else np.inf)
    return pd.Series(factors, index=measures.columns, name="vif")


def inflated(measures: pd.DataFrame, most: float) -> tuple[str, ...]:
    """Return which measures to drop so that no variance inflation factor is above ``most``.

    In the order in which they go: always the one of the largest factor.

    Raises:
        ValueError: ``most`` is below 1; or as of `variance_inflation`.
    """
    if most < 1:
        raise ValueError(f"variance inflation factors are at least 1, got a limit of {most}")
    dropped: list[str] = []
    while len(measures.columns) > 1:
        factors = variance_inflation(measures)
        if factors.max() <= most:
            break
        dropped.append(str(factors.idxmax()))
        measures = measures.drop(columns=dropped[-1])
    return tuple(dropped)


def regress(
    measures: pd.DataFrame,
    choice: Float[np.ndarray, "n"],
    levels: Shaped[np.ndarray, "n"],
    *,
    kind: Kind = "logistic",
    penalty: float = 1.0,
    most_inflation: float | None = None,
    sets: int = 200,
    set_size: int = 4,
    resamples: int = 200,
    folds: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> Regression:
    """Regress choices on measures, and say how firm each coefficient is.

    Args:
        measures: a row for each choice, a column for each measure (see
            `rlbilinear.envs.measure_table`); rows where one is missing are left out.
        choice: of a logistic regression in 0..1: what was done, 0 or 1, or its probability; of a
            linear one any number.
        levels: the level of each choice: what is resampled and held out.
        kind: ``logistic`` or ``linear``.
        penalty: ``alpha / 2 |w|²`` against the sum of the losses (half the squares of a linear
            one), so that choices that a measure separates have finite coefficients; 0 for none.
        most_inflation: first drop measures until no variance inflation factor is larger.
        sets: random sets of measures tried.
        set_size: measures in each; all when there are not more.
        resamples: of the bootstrap by level.
        folds: of the held-out score.
        seed: of sets and bootstrap.
        progress: show a bar for the bootstrap.

    Raises:
        ValueError: lengths differ, an argument is not accepted, choices all alike, a measure that
            does not vary, or fewer levels than folds; the message says which.
    """
    kept = _usable(measures, choice, levels, kind, penalty)
    y, groups = np.asarray(choice, float)[kept], np.asarray(levels)[kept]
    if not folds >= 2 or len(np.unique(groups)) < folds:
        raise ValueError(
            f"expected 2 or more folds, and as many levels: got {folds} folds and "
            f"{len(np.unique(groups))} levels"
        )
    used = measures[kept]
    dropped = () if most_inflation is None else inflated(used, most_inflation)
    used = used.drop(columns=[*dropped])
    X = _standardised(used)
    fit = partial(_fit, kind, penalty)
    alone = _alone(fit, X, y)
    drawn = _bootstrap(fit, X, y, groups, resamples, seed, progress)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    same_sign, tried = _signs_kept(fit, X, y, np.sign(alone), sets, set_size, seed)
    table = pd.DataFrame(
        {
            "measure": used.columns,
            "alone": alone,
            "alone_low": low[0],
            "alone_high": high[0],
            "coefficient": fit(X, y).coefficients,
            "low": low[1],
            "high": high[1],
            "vif": variance_inflation(used).to_numpy(),
            "same_sign": same_sign,
            "sets": tried,
        }
    )
    predicted, mean = _held_out(fit, used.to_numpy(float), y, groups, folds)
    return Regression(
        table,
        **_scores(kind, y, predicted, mean),
        rows=len(y),
        left_out=len(measures) - len(y),
        dropped=dropped,
    )


class Fitted(NamedTuple):
    """A linear predictor."""

    coefficients: Float[np.ndarray, "measures"]
    intercept: float


Fit = Callable[[Float[np.ndarray, "n measures"], Float[np.ndarray, "n"]], Fitted]


def _fit(kind: Kind, penalty: float, X: np.ndarray, y: np.ndarray) -> Fitted:
    if kind == "linear":
        linear = Ridge(alpha=penalty).fit(X, y)
        return Fitted(linear.coef_, float(linear.intercept_))
    # A choice of probability p counts p times as 1 and 1 - p times as 0.
    rows = np.concatenate([np.flatnonzero(y > 0), np.flatnonzero(y < 1)])
    signs = np.repeat([1, 0], [(y > 0).sum(), (y < 1).sum()])
    weights = np.where(signs, y[rows], 1 - y[rows])
    model = LogisticRegression(
        C=1 / penalty if penalty else np.inf, solver="newton-cholesky", max_iter=1000
    )
    model.fit(X[rows], signs, sample_weight=weights)
    return Fitted(model.coef_[0], float(model.intercept_[0]))


def _alone(fit: Fit, X: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "measures"]:
    return np.array([fit(column[:, None], y).coefficients[0] for column in X.T])


def _bootstrap(
    fit: Fit,
    X: np.ndarray,
    y: np.ndarray,
    levels: np.ndarray,
    resamples: int,
    seed: int,
    progress: bool,
) -> Float[np.ndarray, "resamples 2 measures"]:
    """Fit, alone and together, to levels drawn with replacement."""
    rng = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(levels == level) for level in np.unique(levels)]
    fits = []
    for _ in tqdm(range(resamples), "resamples", disable=not progress):
        rows = np.concatenate([rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))])
        fits.append([_alone(fit, X[rows], y[rows]), fit(X[rows], y[rows]).coefficients])
    return np.array(fits)


def _signs_kept(
    fit: Fit,
    X: np.ndarray,
    y: np.ndarray,
    signs: np.ndarray,
    sets: int,
    size: int,
    seed: int,
) -> tuple[Float[np.ndarray, "measures"], Int[np.ndarray, "measures"]]:
    """Return how often a measure's sign is ``signs`` among random others, and of how many sets."""
    rng = np.random.default_rng(seed)
    count = X.shape[1]
    same, tried = np.zeros(count), np.zeros(count, int)
    for _ in range(sets):
        chosen = rng.choice(count, min(size, count), replace=False)
        same[chosen] += np.sign(fit(X[:, chosen], y).coefficients) == signs[chosen]
        tried[chosen] += 1
    return np.divide(same, tried, out=np.full(count, np.nan), where=tried > 0), tried


def _held_out(
    fit: Fit, measures: np.ndarray, y: np.ndarray, levels: np.ndarray, folds: int
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Return the linear predictor of each choice, and the mean choice, from other levels."""
    predicted, means = np.empty(len(y)), np.empty(len(y))
    for inside, outside in GroupKFold(folds).split(measures, groups=levels):
        scaler = StandardScaler().fit(measures[inside])
        fitted = fit(scaler.transform(measures[inside]), y[inside])
        predicted[outside] = (
            scaler.transform(measures[outside]) @ fitted.coefficients + fitted.intercept
        )
        means[outside] = y[inside].mean()
    return predicted, means


def _scores(kind: Kind, y: np.ndarray, predicted: np.ndarray, mean: np.ndarray) -> dict[str, float]:
    if kind == "linear":
        score = 1 - ((y - predicted) ** 2).sum() / ((y - mean) ** 2).sum()
        return {"score": score, "accuracy": np.nan, "base_accuracy": np.nan}
    likelier = y > 0.5
    return {
        "score": 1 - _deviance(y, expit(predicted)) / _deviance(y, mean),
        "accuracy": float(((predicted > 0) == likelier).mean()),
        "base_accuracy": float(((mean > 0.5) == likelier).mean()),
    }


def _deviance(y: np.ndarray, p: np.ndarray) -> float:
    return float((rel_entr(y, p) + rel_entr(1 - y, 1 - p)).sum())


def _standardised(measures: pd.DataFrame) -> Float[np.ndarray, "n measures"]:
    X = measures.to_numpy(float)
    if not np.isfinite(X).all():
        raise ValueError("measures are missing or not finite; leave out those rows")
    scale = X.std(0)
    constant = [
        str(name)
        for name, flat in zip(measures, scale <= 1e-12 * np.abs(X).max(0), strict=True)
        if flat
    ]
    if constant or not len(X):
        raise ValueError(
            f"these measures do not vary: {', '.join(constant) or 'there are no rows'}"
        )
    return (X - X.mean(0)) / scale


def _usable(
    measures: pd.DataFrame, choice: np.ndarray, levels: np.ndarray, kind: Kind, penalty: float
) -> Bool[np.ndarray, "n"]:
    """Return which rows have all measures, after checking the arguments."""
    y = np.asarray(choice, float)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    if not 0 <= penalty < np.inf:
        raise ValueError(f"a penalty is 0 or more, got {penalty}")
    if y.shape != (len(measures),) or np.shape(levels) != y.shape:
        raise ValueError(
            f"expected a choice and a level for each of {len(measures)} rows of measures, got "
            f"shapes {y.shape} and {np.shape(levels)}"
        )
    if not len(measures.columns):
        raise ValueError("expected at least one measure")
    if not np.isfinite(y).all():
        raise ValueError("choices must be finite numbers")
    kept = np.isfinite(measures.to_numpy(float)).all(1)
    if not kept.any():
        raise ValueError("every row lacks a measure")
    low, high = y[kept].min(), y[kept].max()
    if low == high or (kind == "logistic" and not 0 <= low < high <= 1):
        wanted = "between 0 and 1 and " if kind == "logistic" else ""
        raise ValueError(f"choices are {wanted}not all alike; got {low:g} to {high:g}")
    return kept
