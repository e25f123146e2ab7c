"""Final scores of architectures, with intervals over runs, and the verdicts they allow."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from rlbilinear.agents.comparison.tables import FINISHED, KEY, MEASURES, Collected
from rlbilinear.agents.scores import score_range
from rlbilinear.statistics import Interval, bootstrap_interval
from rlbilinear.statistics.runs import (
    Scores,
    mean_of_games,
    mean_over_games,
    pooled_iqm,
    probability_of_improvement,
    runs_needed,
    stratified_bootstrap,
    t_interval,
)

ALL_GAMES = "all games"
NOTHING = Interval(np.nan, np.nan, np.nan)


def summarise(found: Collected) -> pd.DataFrame:
    """Return a row for each game and architecture.

    Returns:
        ``parameters``, ``frames``, ``hours`` (mean), ``seeds`` (finished runs), and for each
        measure and unit (such as ``held_out_return``) the mean and, from two seeds on, the ends
        of its t-interval over seeds (``_low``, ``_high``).
    """
    rows = []
    for (game, architecture), runs in found.status.groupby(KEY[:2], sort=False):
        done = runs[runs["state"] == FINISHED]
        row: dict[str, Any] = {
            "game": game,
            "architecture": architecture,
            "parameters": runs["parameters"].iloc[0],
            "frames": done["frames"].max() if len(done) else np.nan,
            "hours": done["hours"].mean(),
            "seeds": len(done),
        }
        final = found.final[
            (found.final["game"] == game) & (found.final["architecture"] == architecture)
        ]
        for measure in MEASURES:
            of = final[final["measure"] == measure]
            for unit in ("return", "normalised"):
                mean = t_interval(of[unit]) if len(of) else Interval(np.nan, np.nan, np.nan)
                name = f"{measure}_{unit}"
                row |= _columns(name, mean)
        rows.append(row)
    return pd.DataFrame(rows)


def aggregate(found: Collected) -> pd.DataFrame:
    """Return normalised scores over the games that all architectures have finished runs in.

    Returns:
        A row for each architecture and measure: the interquartile mean and the mean over runs and
        games, with stratified bootstrap intervals, and the numbers of games and of seeds (the
        fewest of a game). Empty where there is no such game.
    """
    games = common_games(found)
    rows = []
    for architecture in dict.fromkeys(found.status["architecture"]) if games else ():
        for measure in MEASURES:
            scores = scores_of(found, architecture, measure, games)
            iqm = stratified_bootstrap([scores], pooled_iqm)
            mean = stratified_bootstrap([scores], mean_of_games)
            rows.append(
                {
                    "architecture": architecture,
                    "measure": measure,
                    "games": len(games),
                    "seeds": min(len(values) for values in scores.values()),
                    **_columns("iqm", iqm),
                    **_columns("mean", mean),
                }
            )
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["architecture", "measure"])


def paired_differences(found: Collected, *, margin: float) -> pd.DataFrame:
    """Return the paired differences of every two architectures, seed by seed, in each game.

    Args:
        found: the runs.
        margin: normalised scores that differ by less count as comparable.

    Returns:
        A row for each pair, game (and all games, where there are several) and measure:
        ``difference`` of normalised scores, ``one`` minus ``other``, with its t-interval over
        seeds (``_low``, ``_high``); ``return_difference``, the same of returns, in one game;
        ``iqm_difference`` with its stratified bootstrap interval, over all games;
        ``improvement``, how likely a run of the one exceeds a run of the other; ``verdict`` on
        ``difference``; ``seeds_for_margin``, the number of seeds with which its interval would
        reach no further than the margin to each side; ``of_these_agents``, the difference with an
        interval over levels, which knows nothing of other trainings.
    """
    rows = []
    architectures = [*dict.fromkeys(found.status["architecture"])]
    for one, other in combinations(architectures, 2):
        for measure in MEASURES:
            by_game = {
                game: pairs
                for game in dict.fromkeys(found.status["game"])
                if len(pairs := _pairs(found, game, one, other, measure))
            }
            entries = [([game], game) for game in by_game]
            if len(by_game) > 1:
                entries.append(([*by_game], ALL_GAMES))
            for games, name in entries:
                rows.append(
                    {
                        "one": one,
                        "other": other,
                        "game": name,
                        "measure": measure,
                        **_difference([by_game[game] for game in games], margin, one, other),
                        **_columns(
                            "of_these_agents", _over_levels(found, games, one, other, measure)
                        ),
                    }
                )
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["one", "other", "game", "measure"])


def verdict(interval: Interval, seeds: int, margin: float, one: str, other: str) -> str:
    """Say in words what an interval of a difference of normalised scores allows to say."""
    if seeds < 2:
        return "one seed says nothing of the architectures"
    if np.isnan(interval.low):
        return "undecided: seeds show no spread"
    inside = -margin < interval.low and interval.high < margin
    if interval.low > 0 or interval.high < 0:
        better = one if interval.low > 0 else other
        return f"{better} is higher" + (f", by less than {margin:g}" if inside else "")
    return f"comparable (within {margin:g})" if inside else "undecided"


def scores_of(found: Collected, architecture: str, measure: str, games: Sequence[str]) -> Scores:
    """Return the normalised scores of an architecture's finished runs by game."""
    final = found.final
    chosen = final[(final["architecture"] == architecture) & (final["measure"] == measure)]
    return {game: chosen[chosen["game"] == game]["normalised"].to_numpy() for game in games}


def common_games(found: Collected) -> list[str]:
    """Return the games in which every architecture has a finished run."""
    done = found.status[found.status["state"] == FINISHED]
    architectures = {*found.status["architecture"]}
    return [
        game
        for game in dict.fromkeys(found.status["game"])
        if {*done[done["game"] == game]["architecture"]} == architectures
    ]


def _pairs(found: Collected, game: str, one: str, other: str, measure: str) -> pd.DataFrame:
    """Return the final scores of the seeds that both architectures have finished, side by side."""
    final = found.final[(found.final["game"] == game) & (found.final["measure"] == measure)]
    sides = [
        final[final["architecture"] == name].set_index("seed")[["return", "normalised"]]
        for name in (one, other)
    ]
    return pd.concat(sides, axis=1, join="inner", keys=["one", "other"])


def _difference(games: Sequence[pd.DataFrame], margin: float, one: str, other: str) -> dict:
    """Return the differences of pairs in one game or over several."""
    ones = [pairs["one", "normalised"].to_numpy() for pairs in games]
    others = [pairs["other", "normalised"].to_numpy() for pairs in games]
    by_game = {str(i): a - b for i, (a, b) in enumerate(zip(ones, others, strict=True))}
    seeds = min(len(values) for values in ones)
    mean = mean_over_games(by_game)
    iqm = returns = NOTHING
    if len(games) > 1:
        sides = [{str(i): values for i, values in enumerate(side)} for side in (ones, others)]
        iqm = stratified_bootstrap(sides, lambda a, b: pooled_iqm(a) - pooled_iqm(b))
    else:
        returns = t_interval(games[0]["one", "return"] - games[0]["other", "return"])
    needed = None
    if seeds > 1:
        variances = [values.var(ddof=1) for values in by_game.values()]
        needed = runs_needed(np.sqrt(np.sum(variances)) / len(games), margin)
    return {
        "seeds": seeds,
        **_columns("difference", mean),
        **_columns("return_difference", returns),
        **_columns("iqm_difference", iqm),
        "improvement": probability_of_improvement(ones, others),
        "verdict": verdict(mean, seeds, margin, one, other),
        "seeds_for_margin": needed,
    }


def _over_levels(
    found: Collected, games: Sequence[str], one: str, other: str, measure: str
) -> Interval:
    """Return the interval over levels of a difference between the agents that there are.

    Nothing for the gap, whose two sides have no level in common, and for several games.
    """
    if measure == "gap" or len(games) > 1:
        return NOTHING
    (game,) = games
    seeds = _pairs(found, game, one, other, measure).index
    counted = found.counted
    played = counted[
        (counted["game"] == game) & (counted["levels"] == measure) & counted["seed"].isin(seeds)
    ]
    means = played.pivot_table(index="level", columns="architecture", values="return")
    low, high = score_range(game, played["mode"].iloc[0])
    change = ((means[one] - means[other]) / (high - low)).to_numpy()
    return Interval(*bootstrap_interval(change, means.index.to_numpy()))


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
