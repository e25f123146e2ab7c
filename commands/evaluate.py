"""Score agents on held-out levels, sampled and greedy, beside the two aimless baselines.

python scripts/evaluate.py maze-bimpala-compact --levels 1000 --out scores.csv
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
    mode: str = "easy"
    """the game's distribution mode"""
    baselines: bool = True
    """also score the uniform policies"""
    seed: int = 0
    """of the sampled actions and of the intervals"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    out: Path | None = None
    """write one row for each level and policy to this CSV file"""
    progress: bool = True
    """show a bar"""


def run(options: Options) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all episodes, and the table of means with their 95 % intervals.

    Raises:
        ValueError: an agent, game or mode that there is not.
    """
    agents = {name: load(name, options.device) for name in options.agents}
    levels = EVALUATION.first(options.levels)
    play = partial(
        evaluate,
        levels=levels,
        mode=options.mode,
        seed=options.seed,
        progress=options.progress,
    )
    tables = {
        (name, choice): play(agent, greedy=choice == "greedy")
        for name, agent in agents.items()
        for choice in ("sampled", "greedy")
    }
    if options.baselines:
        for game in {agent.config.game for agent in agents.values()}:
            for name, policy in BASELINES.items():
                tables[f"{game}: {name}", "sampled"] = play(policy, game=game)
    episodes = pd.concat(tables, names=["policy", "actions"]).reset_index(level=(0, 1))
    means = pd.concat({key: summary(table, seed=options.seed) for key, table in tables.items()})
    text = means.apply(lambda row: f"{row['mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]", 1)
    return episodes, text.unstack().rename_axis(["policy", "actions"])


def main() -> None:
    """Print the table, and write the episodes when asked."""
    options = tyro.cli(Options, description=__doc__)
    try:
        if options.out is not None and options.out.exists():
            raise FileExistsError(f"{options.out} exists")
        episodes, table = run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    print(f"{options.levels} held-out levels, mean [95 % interval by level]")
    print(table.to_string())
    if options.out is not None:
        episodes.to_csv(options.out, index=False)
        print(f"episodes written to {options.out}")
