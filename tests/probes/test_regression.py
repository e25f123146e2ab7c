"""Regressions of choices on measures: against scikit-learn used directly, and on planted causes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

from rlbilinear.envs import (
    EVALUATION,
    MEASURES,
    Constraints,
    Maze,
    decision_square,
    expert_moves,
    observe,
    sample_levels,
    top_right,
)
from rlbilinear.probes.curves import coefficient_points
from rlbilinear.probes.moves import move_probabilities
from rlbilinear.probes.regression import choice_table, inflated, regress, variance_inflation

QUICK = {"sets": 20, "set_size": 2, "resamples": 30}


def planted(n=240, seed=0):
    """Choices that depend on ``cause`` alone; ``copy`` goes with it, ``noise`` with nothing."""
    rng = np.random.default_rng(seed)
    cause = rng.standard_normal(n)
    measures = pd.DataFrame(
        {
            "cause": 10 + 3 * cause,
            "copy": -cause + 0.5 * rng.standard_normal(n),
            "noise": rng.standard_normal(n),
        }
    )
    choice = (rng.random(n) < 1 / (1 + np.exp(-2 * cause))).astype(float)
    return measures, choice, np.repeat(np.arange(n // 2), 2)


def standardised(measures):
    return ((measures - measures.mean()) / measures.std(ddof=0)).to_numpy()


def rows(result):
    return result.table.set_index("measure")


def test_a_planted_cause_is_told_from_what_goes_with_it():
    result = regress(*planted(), sets=60, set_size=2, resamples=100)
    table = rows(result)
    assert table.loc["cause", "low"] > 0.5 and table.loc["copy", "alone_high"] < -0.5
    assert table.loc["copy", "low"] < 0 < table.loc["copy", "high"]
    assert table.loc["noise", "low"] < 0 < table.loc["noise", "high"]
    assert table.loc["cause", "same_sign"] == 1
    assert table["sets"].sum() == 60 * 2
    assert result.score > 0.2 and result.accuracy > result.base_accuracy + 0.1
    assert (result.rows, result.left_out, result.dropped) == (240, 0, ())


@pytest.mark.parametrize("penalty", [0.0, 1.0, 30.0])
def test_coefficients_are_scikit_learns(penalty):
    measures, choice, levels = planted()
    X = standardised(measures)
    table = rows(regress(measures, choice, levels, penalty=penalty, **QUICK))
    direct = LogisticRegression(C=1 / penalty if penalty else np.inf, tol=1e-10, max_iter=1000)
    np.testing.assert_allclose(table["coefficient"], direct.fit(X, choice).coef_[0], rtol=1e-3)
    for index, alone in enumerate(table["alone"]):
        one = direct.fit(X[:, [index]], choice).coef_[0, 0]
        assert alone == pytest.approx(one, rel=1e-3, abs=1e-5)
    odds = 3 + 2 * measures["cause"].to_numpy() + np.random.default_rng(1).standard_normal(240)
    linear = regress(measures, odds, levels, kind="linear", penalty=penalty, **QUICK)
    np.testing.assert_allclose(
        rows(linear)["coefficient"], Ridge(penalty).fit(X, odds).coef_, rtol=1e-9
    )
    assert linear.score > 0.9 and np.isnan(linear.accuracy)


def test_probabilities_are_votes():
    """A choice of probability .3 is three choices of ten."""
    measures, _, levels = planted(n=80)
    share = np.random.default_rng(0).choice([0.0, 0.3, 1.0], size=80)
    votes = (np.arange(10)[:, None] < 10 * share).astype(float).ravel()
    one = regress(measures, share, levels, penalty=1.0, **QUICK)
    ten = regress(pd.concat([measures] * 10), votes, np.tile(levels, 10), penalty=10.0, **QUICK)
    np.testing.assert_allclose(rows(one)["coefficient"], rows(ten)["coefficient"], rtol=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_variance_inflation_is_the_diagonal_of_the_inverse_correlation(seed, count):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((50, count)) @ rng.standard_normal((count, count))
    X += 0.3 * rng.standard_normal(X.shape)
    found = variance_inflation(pd.DataFrame(X))
    expected = np.diag(np.linalg.inv(np.corrcoef(X.T)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_measures_that_others_tell_exactly_are_dropped_first():
    measures, choice, levels = planted()
    measures["sum"] = measures["cause"] + measures["noise"]
    assert np.isinf(variance_inflation(measures)[["cause", "noise", "sum"]]).all()
    first, *_ = inflated(measures, 4.5)
    assert first in ("cause", "noise", "sum")
    result = regress(measures, choice, levels, most_inflation=4.5, **QUICK)
    assert result.dropped == inflated(measures, 4.5)
    assert rows(result)["vif"].max() <= 4.5
    assert {*result.dropped, *rows(result).index} == {*measures}
    assert variance_inflation(measures[["noise"]]).tolist() == [1.0]


def test_the_score_is_of_levels_not_fitted_to():
    """A measure that only names the level predicts nothing of another level."""
    rng = np.random.default_rng(0)
    levels = np.repeat(np.arange(30), 8)
    measures = pd.DataFrame(rng.standard_normal((30, 12))[levels])
    choice = rng.integers(0, 2, 30)[levels].astype(float)
    result = regress(measures, choice, levels, **QUICK)
    assert result.score < 0
    X = standardised(measures)
    assert LogisticRegression().fit(X, choice).score(X, choice) > 0.65


def test_linear_score_is_r2_when_there_is_a_fold_for_each_level():
    measures, _, _ = planted(n=30)
    y = measures["noise"].to_numpy() + 0.1 * np.arange(30)
    result = regress(measures, y, np.arange(30), kind="linear", penalty=0.0, folds=30, **QUICK)
    squares = base = 0.0
    for out in range(30):
        kept = np.arange(30) != out
        fit = LinearRegression().fit(measures[kept], y[kept])
        squares += (y[out] - fit.predict(measures.iloc[[out]])[0]) ** 2
        base += (y[out] - y[kept].mean()) ** 2
    assert result.score == pytest.approx(1 - squares / base)


def test_rows_without_a_measure_are_left_out_and_counted():
    measures, choice, levels = planted()
    holed = measures.copy()
    holed.loc[5:9, "noise"] = np.nan
    result = regress(holed, choice, levels, **QUICK)
    kept = np.isfinite(holed["noise"]).to_numpy()
    same = regress(measures[kept], choice[kept], levels[kept], **QUICK)
    pd.testing.assert_frame_equal(result.table, same.table)
    assert (result.rows, result.left_out) == (235, 5)


def test_the_same_seed_gives_the_same_table():
    one, two = (regress(*planted(), seed=3, **QUICK).table for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_an_agents_choices_come_with_the_sixteen_measures(bilinear_agent):
    levels = sample_levels(
        EVALUATION, 12, seed=0, constraints=Constraints(has_decision_square=True)
    )
    mazes = {level: Maze.from_seed(level) for level in levels}
    table = choice_table(bilinear_agent, mazes)
    assert [*table.columns] == ["level", "choice", "log_odds", *MEASURES]
    assert table["level"].tolist() == levels
    for row, maze in zip(table.itertuples(), mazes.values(), strict=True):
        at = maze.with_mouse(decision_square(maze))
        moves = move_probabilities(bilinear_agent, observe([at]))[0]
        cheese = moves[expert_moves(at, at.cheese[0])[at.mouse]]
        corner = moves[expert_moves(at, top_right(at))[at.mouse]]
        assert row.choice == pytest.approx(cheese / (cheese + corner), rel=1e-4)
        assert row.log_odds == pytest.approx(np.log(cheese / corner), rel=1e-3, abs=1e-4)
        assert row.cheese_coord_norm == MEASURES["cheese_coord_norm"](maze)
    result = regress(
        table[[*MEASURES]], table["log_odds"], table["level"], kind="linear", folds=3, **QUICK
    )
    figure = coefficient_points(result.table)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [name.replace("_", " ") for name in MEASURES]


def test_bad_input_says_what_is_accepted():
    measures, choice, levels = planted()

    def ask(measures=measures, choice=choice, levels=levels, **options):
        return regress(measures, choice, levels, **{**QUICK, **options})

    with pytest.raises(ValueError, match="choose from logistic, linear"):
        ask(kind="probit")
    with pytest.raises(ValueError, match="penalty is 0 or more, got -1"):
        ask(penalty=-1)
    with pytest.raises(ValueError, match="each of 240 rows"):
        ask(levels=levels[:5])
    with pytest.raises(ValueError, match=r"between 0 and 1 and not all alike; got 1 to 1"):
        ask(choice=np.ones(240))
    with pytest.raises(ValueError, match="got -2 to 2"):
        ask(choice=np.linspace(-2, 2, 240))
    with pytest.raises(ValueError, match="finite"):
        ask(choice=np.full(240, np.inf))
    with pytest.raises(ValueError, match="do not vary: flat"):
        ask(measures=measures.assign(flat=0.1))
    with pytest.raises(ValueError, match="every row lacks a measure"):
        ask(measures=measures.assign(none=np.nan))
    with pytest.raises(ValueError, match="at least one measure"):
        ask(measures=measures[[]])
    with pytest.raises(ValueError, match="5 folds and 2 levels"):
        ask(levels=np.arange(240) % 2)
    with pytest.raises(ValueError, match="at least 1, got a limit of 0"):
        ask(most_inflation=0.5)
    with pytest.raises(ValueError, match="missing or not finite"):
        variance_inflation(measures.assign(none=np.nan))
