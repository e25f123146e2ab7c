"""Score agents on held-out levels, sampled and greedy, beside the two aimless baselines.

python scripts/evaluate.py maze-bimpala-compact --levels 1000 --out scores.csv
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import tyro

from rlbilinear.agents import load
from rlbilinear.agents.evaluation import BASELINES, evaluate, summary
from rlbilinear.envs import EVALUATION


@dataclass(frozen=True)
class Options:
    """Score agents on held-out levels."""

    agents: tyro.conf.Positional[tuple[str, ...]]
    """names of the zoo, or folders"""
    levels: int = 200
    """how many held-out levels"""
    level_seeds: tuple[int, ...] = ()
    """play exactly these levels instead"""
    episodes: int = 1
    """how many of each level; greedy ones, which are all alike, are played once"""
    skip_unplayable: bool = False
    """leave out levels that are over at the first step, without a reward, whatever one does"""
    mode: str = "easy"
    """the game's distribution mode"""
    baselines: bool = True
    """also score the uniform policies"""
    seed: int = 0
    """of the sampled actions and of the intervals"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    out: Path | None = None
    """write one row for each episode and policy to this CSV file"""
    progress: bool = True
    """show a bar"""


class Scores(NamedTuple):
    """What was played, and what came out."""

    episodes: pd.DataFrame
    """a row an episode, with columns ``policy``, ``actions`` and ``game`` before `evaluate`'s"""
    table: pd.DataFrame
    """means with their 95 % intervals by level"""


def run(options: Options) -> Scores:
    """Score the agents.

    Raises:
        ValueError: an agent, game or mode that there is not, or another option that is not
            accepted; the message names it.
    """
    check(options)
    agents = {name: load(name, options.device) for name in options.agents}
    play = partial(
        evaluate,
        levels=options.level_seeds or EVALUATION.first(options.levels),
        mode=options.mode,
        seed=options.seed,
        skip_unplayable=options.skip_unplayable,
        progress=options.progress,
    )
    tables = {}
    for name, agent in agents.items():
        game = agent.config.game
        tables[name, "sampled", game] = play(agent, episodes=options.episodes)
        tables[name, "greedy", game] = play(agent, greedy=True)
    if options.baselines:
        for game in dict.fromkeys(agent.config.game for agent in agents.values()):
            for name, policy in BASELINES.items():
                key = f"{game}: {name}", "sampled", game
                tables[key] = play(policy, game=game, episodes=options.episodes)
    names = ["policy", "actions", "game"]
    episodes = pd.concat(tables, names=names).reset_index(level=names)
    means = pd.concat({key[:2]: summary(each, seed=options.seed) for key, each in tables.items()})
    text = means.apply(lambda row: f"{row['mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]", 1)
    return Scores(episodes, text.unstack().rename_axis(["policy", "actions"]))


def check(options: Options) -> None:
    """Raise ValueError, naming the option, where one is out of range or given twice."""
    for name, value, least, most in (
        ("levels", options.levels, 1, EVALUATION.count),
        ("episodes", options.episodes, 1, None),
        ("seed", options.seed, 0, None),
    ):
        if value < least or (most is not None and value > most):
            accepted = f"{least} or more" if most is None else f"from {least} to {most}"
            raise ValueError(f"--{name} must be {accepted}, got {value}")
    given = [name.rstrip("/") for name in options.agents]
    if twice := [name for name in given if given.count(name) > 1]:
        raise ValueError(f"agents: {twice[0]} is given twice")


def heading(episodes: pd.DataFrame, options: Options) -> list[str]:
    """Say which levels were played how often, and how many of them nobody can play."""
    if options.level_seeds:
        asked = len(options.level_seeds)
        which = f"Levels {', '.join(map(str, options.level_seeds))}"
    else:
        asked = options.levels
        which = f"{asked} held-out levels (0 to {asked - 1})"
    often = "once" if options.episodes == 1 else f"{options.episodes} times each, greedy once"
    lines = [f"{which}, played {often}: mean [95 % interval by level]"]
    for game, own in episodes.groupby("game", sort=False):
        lost = own.drop_duplicates("level")["unplayable"]
        count = asked - len(lost) if options.skip_unplayable else int(lost.sum())
        if count:
            lines.append(
                f"{game}: {count} of {asked} levels are unplayable (over at the first step without "
                "a reward, whatever one does), "
                + ("and left out" if options.skip_unplayable else "and count like others")
            )
    return lines


def main() -> None:
    """Print the table, and write the episodes when asked."""
    options = tyro.cli(Options, description=__doc__)
    try:
        if options.out is not None and options.out.exists():
            raise FileExistsError(f"{options.out} exists")
        episodes, table = run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    print("\n".join(heading(episodes, options)))
    print(table.to_string())
    if options.out is not None:
        episodes.to_csv(options.out, index=False)
        print(f"episodes written to {options.out}")
