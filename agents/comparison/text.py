"""The report as text: what was compared, the results, and what remains open."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from rlbilinear.agents.comparison.alike import unequal
from rlbilinear.agents.comparison.summary import ALL_GAMES
from rlbilinear.agents.comparison.tables import (
    DIFFERENT,
    EVALUATION,
    FINISHED,
    MISSING,
    Collected,
)
from rlbilinear.statistics.runs import FEW, spread_known_within

ALIKE = 1.05
"""Architectures whose sizes are within this factor are of one size."""


def report(
    found: Collected,
    summary: pd.DataFrame,
    aggregates: pd.DataFrame,
    pairs: pd.DataFrame,
    margin: float,
) -> str:
    """Return the whole report."""
    parts = [
        *what_was_compared(found),
        *so_far(found),
        *scores(found, summary, aggregates),
        *(part for _, group in _by_pair(pairs) for part in pair(group, margin)),
        *limits(found, pairs, margin),
    ]
    return "\n".join(parts)


def what_was_compared(found: Collected) -> Iterator[str]:
    """Say which runs there are, and in what they differ."""
    status = found.status
    axes = ", ".join(
        f"{status[name].nunique()} {label}{'' if status[name].nunique() == 1 else 's'}"
        for name, label in (("game", "game"), ("architecture", "architecture"), ("seed", "seed"))
    )
    left_out = status[status["state"] != FINISHED]
    done = len(status) - len(left_out)
    yield f"{axes}: {done} of {len(status)} runs finished ({found.frames:,} frames)"
    for _, run in left_out.iterrows():
        why = f" ({run['why']})" if run["why"] else ""
        yield f"  {run['state']}: {run['game']} {run['architecture']} seed {run['seed']}{why}"
    if len(left_out):
        yield "  Final scores and their intervals leave these runs out."
    others = unequal(found.entries)
    yield "Training is equal in all runs" + (", but for:" if others else ".")
    yield from (f"  {line}" for line in others)


def so_far(found: Collected) -> Iterator[str]:
    """Give the last evaluation that all runs of an unfinished game have had."""
    rows = []
    for game, runs in found.status.groupby("game", sort=False):
        runs = runs[~runs["state"].isin((DIFFERENT, MISSING))]
        if (runs["state"] == FINISHED).all():
            continue
        held_out = found.evaluations[
            (found.evaluations["game"] == game) & (found.evaluations["measured"] == EVALUATION)
        ]
        counts = held_out.groupby("frames").size()
        common = counts.index[counts == len(runs)]
        if not len(common):
            continue
        for architecture, of in held_out[held_out["frames"] == common.max()].groupby(
            "architecture", sort=False
        ):
            rows.append(
                {
                    "game": game,
                    "frames": f"{common.max():,}",
                    "architecture": architecture,
                    "return of each seed": ", ".join(f"{value:.3g}" for value in of["return"]),
                }
            )
    if rows:
        yield "\nSo far: held-out levels, at the last evaluation that all runs of a game have had"
        yield _table(rows)


def scores(found: Collected, summary: pd.DataFrame, aggregates: pd.DataFrame) -> Iterator[str]:
    """Give returns, gaps and normalised scores of the final agents."""
    done = summary[summary["seeds"] > 0]
    if not len(done):
        yield "\nNo run has finished yet: there are no final scores."
        return
    counts = found.counted.groupby(["levels", "game", "architecture", "seed"]).size()
    seen, held_out = (counts[name].max() for name in ("training", "held_out"))
    yield "\nReturns of the final agents, sampled actions; mean [95 % t-interval over seeds]"
    yield _table(
        {
            "game": row["game"],
            "architecture": row["architecture"],
            "parameters": f"{row['parameters']:,}",
            "hours": f"{row['hours']:.3g}",
            "seeds": row["seeds"],
            f"{seen} training levels": _interval(row, "training_return"),
            f"{held_out} held-out levels": _interval(row, "held_out_return"),
            "gap": _interval(row, "gap_return"),
        }
        for _, row in done.iterrows()
    )
    yield from unplayable(found)
    yield "\nNormalised: 0 is an agent that sees nothing, 1 the most that can be had (Cobbe et al.)"
    yield _table(
        {
            "game": row["game"],
            "architecture": row["architecture"],
            "training levels": _interval(row, "training_normalised", 3),
            "held-out levels": _interval(row, "held_out_normalised", 3),
            "gap": _interval(row, "gap_normalised", 3),
        }
        for _, row in done.iterrows()
    )
    if len(aggregates) and aggregates["games"].iloc[0] > 1:
        yield (
            f"\nOver {aggregates['games'].iloc[0]} games: interquartile mean of normalised scores, "
            "and mean [95 % stratified bootstrap over runs]"
        )
        yield _table(
            {
                "architecture": row["architecture"],
                "levels": row["measure"].replace("_", "-"),
                "interquartile mean": _interval(row, "iqm", 3),
                "mean": _interval(row, "mean", 3),
            }
            for _, row in aggregates.iterrows()
        )


def unplayable(found: Collected) -> Iterator[str]:
    """Say how many levels nobody can play, where there are such."""
    levels = found.levels.drop_duplicates(["game", "levels", "level"])
    counts = levels.groupby(["game", "levels"], sort=False)["unplayable"].agg(["sum", "size"])
    some = [
        f"{row['sum']} of {row['size']} {name.replace('_', '-')} levels of {game}"
        for (game, name), row in counts[counts["sum"] > 0].iterrows()
    ]
    if some:
        yield (
            f"Unplayable are {', '.join(some)}: over at the first step without a reward, whatever "
            "one does.\n"
            + ("They are left out." if found.skip_unplayable else "They count like others.")
        )


def pair(rows: pd.DataFrame, margin: float) -> Iterator[str]:
    """Give the differences of two architectures."""
    one, other = rows[["one", "other"]].iloc[0]
    yield f"\n{one} minus {other}"
    yield (
        "Normalised scores, paired by seed; mean [95 % t-interval over seeds]; [95 % interval over "
        "levels, of\nthese very agents]; P(higher): a run of the first exceeds one of the second"
    )
    yield _table(
        {
            "game": row["game"],
            "levels": row["measure"].replace("_", "-"),
            "seeds": row["seeds"],
            "difference": _interval(row, "difference", 3, sign="+"),
            "these agents": _ends(row, "of_these_agents"),
            "P(higher)": f"{row['improvement']:.2f}",
            f"verdict (margin {margin:g})": row["verdict"],
        }
        for _, row in rows.iterrows()
    )
    over_games = rows[(rows["game"] == ALL_GAMES) & (rows["measure"] == "held_out")]
    for _, row in over_games.iterrows():
        iqm = _interval(row, "iqm_difference", 3, sign="+")
        yield f"  Interquartile means over games, held-out: {iqm}, stratified bootstrap over runs"


def limits(found: Collected, pairs: pd.DataFrame, margin: float) -> Iterator[str]:
    """Say what cannot be said yet."""
    yield "\nWhat this does not yet allow to say"
    lines: list[str] = []
    held_out = pairs[pairs["measure"] == "held_out"]
    for _, rows in _by_pair(held_out):
        lines.extend(_undecided(rows, margin))
    if not len(held_out):
        lines.append("Any difference: no two architectures have finished a game with one seed.")
    fewest = held_out["seeds"].min() if len(held_out) else 0
    if len(held_out) and fewest < FEW and (held_out["game"] == ALL_GAMES).any():
        lines.append(
            f"With {fewest} seeds the bootstrap over runs has few values to draw from: its "
            "intervals are too narrow. The t-intervals are the ones to read."
        )
    if len(held_out) and len(_by_pair(held_out)) > 1:
        lines.append(
            f"{len(_by_pair(held_out))} pairs are compared, each at 95 %: the intervals are not "
            "corrected for their number."
        )
    if held_out["game"].nunique() > 1:
        lines.append(
            "The intervals over games hold for these games only, and say nothing of others."
        )
    sizes = found.status.groupby("architecture", sort=False)["parameters"].max()
    if sizes.max() > ALIKE * sizes.min():
        lines.append(
            f"What size does: {sizes.idxmax()} has {sizes.max() / sizes.min():.1f} times the "
            f"weights of {sizes.idxmin()} (impala-matched has as many as the bilinear network)."
        )
    modes = {entry.options.levels for entry in found.entries}
    seen = " or ".join(f"{count} training levels" if count else "all levels" for count in modes)
    lines.append(
        f"Everything is at {found.frames:,} frames, with {seen} and these hyperparameters: longer "
        "training, or a learning rate better for one of them, may turn it."
    )
    yield from (f"- {line}" for line in lines)


def _undecided(rows: pd.DataFrame, margin: float) -> Iterator[str]:
    """Say what the seeds of a pair leave open, in which games."""
    names = " and ".join(rows[["one", "other"]].iloc[0])
    single = rows[rows["seeds"] < 2]
    if len(single):
        yield (
            f"Anything of {names} in {_games(single)}: one seed each compares two agents, no "
            "architectures."
        )
    alike = rows[(rows["seeds"] > 1) & rows["difference_low"].isna()]
    if len(alike):
        yield (
            f"Anything of {names} in {_games(alike)}: seeds of the same score show no spread to "
            "judge by."
        )
    wide = rows[rows["verdict"] == "undecided"]
    if len(wide):
        fits = [
            f"{row['difference_low']:+.2g} to {row['difference_high']:+.2g}" for row in _of(wide)
        ]
        yield (
            f"Whether {names} differ, and which is better, in {_games(wide, fits)}: all of these "
            "differences fit the seeds there are."
        )
        needed = [_seeds(row) for row in _of(wide)]
        fewest = wide["seeds"].min()
        least, most = spread_known_within(fewest)
        yield (
            f"That they are comparable within {margin:g}. If they are, it takes, at the spread "
            f"measured, this many seeds to show it: {_games(wide, needed)}. Measured on {fewest} "
            f"seeds, the spread may be {least:.2g} to {most:.2g} times as large."
        )
    open_ = rows[rows["verdict"].str.startswith(("undecided", "one seed"))]
    apart = open_[(open_["of_these_agents_low"] > 0) | (open_["of_these_agents_high"] < 0)]
    if len(apart):
        yield (
            f"That the architectures differ where these very agents do, in "
            f"{_games(apart, [_ends(row, 'of_these_agents') for row in _of(apart)])}: others, "
            "trained alike, need not."
        )


def _games(rows: pd.DataFrame, said: Sequence[str] | None = None) -> str:
    """List the games of some rows, each with what is said of it."""
    if said is None:
        return ", ".join(rows["game"])
    return ", ".join(f"{game} ({text})" for game, text in zip(rows["game"], said, strict=True))


def _of(rows: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in rows.iterrows()]


def _seeds(row: pd.Series) -> str:
    """Say how many seeds bring the half-width of an interval to the margin."""
    number = row["seeds_for_margin"]
    if number is None or np.isnan(number):
        return "more than 1,000"
    return f"{number:.0f}" if number > row["seeds"] else "more: it is near the margin"


def _by_pair(pairs: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    return [*pairs.groupby(["one", "other"], sort=False)]


def _interval(row: pd.Series, name: str, digits: int = 2, sign: str = "") -> str:
    mean, low, high = (row[name + end] for end in ("", "_low", "_high"))
    text = f"{mean:{sign}.{digits}f}"
    return text if np.isnan(low) else f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def _ends(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if np.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"


def _table(rows: Iterable[Mapping[str, object]]) -> str:
    """Lay rows out in columns, texts to the left and numbers to the right."""
    table = pd.DataFrame([*rows])
    lines = [[*table], *table.astype(str).values.tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [name in ("seeds", "hours", "parameters", "frames") for name in table]
    return "\n".join(
        "  "
        + "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )
