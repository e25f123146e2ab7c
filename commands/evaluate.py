"""Score agents on held-out levels, sampled and greedy, beside the two uniform baselines.

    rlbilinear evaluate maze-bimpala-compact --levels 1000 --out scores.csv

Each policy plays each level once; intervals are over levels.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from rlbilinear.agents import load, names
from rlbilinear.agents.evaluation import BASELINES, evaluate, summary
from rlbilinear.commands.outputs import check_new_file, new_file
from rlbilinear.commands.running import Command, Count, Seed
from rlbilinear.envs import EVALUATION
from rlbilinear.envs.games import check_game, check_mode


@dataclass(frozen=True)
class EvaluateOptions:
    """Score agents on held-out levels."""

    agents: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="AGENT [AGENT ...]", help_behavior_hint=""),
    ]
    """zoo agents by name, or folders of agents"""
    levels: Count = 200
    """number of held-out levels"""
    mode: str = "easy"
    """distribution mode of the game"""
    baselines: bool = True
    """also score the uniform policies"""
    seed: Seed = 0
    """seed of the sampled actions and of the intervals"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    out: Path | None = None
    """write one row for each level and policy to this CSV file"""
    progress: bool = True
    """show a bar"""


def score(options: EvaluateOptions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all episodes, and the table of means with their 95 % intervals.

    Raises:
        ValueError: no agents, or an unknown agent, game or mode.
    """
    if not options.agents:
        raise ValueError(
            f"no agent was given: name zoo agents ({', '.join(names())}) or folders of agents"
        )
    agents = {name: load(name, options.device) for name in options.agents}
    for agent in agents.values():
        check_game(agent.config.game)
        check_mode(agent.config.game, options.mode)
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


def _evaluate(options: EvaluateOptions) -> None:
    """Print the table, and write the episodes when asked."""
    if options.out is not None:
        check_new_file(options.out)
    episodes, table = score(options)
    print(f"{options.levels} held-out levels, mean [95 % interval by level]")
    print(table.to_string())
    if options.out is not None:
        with new_file(options.out) as file:
            episodes.to_csv(file, index=False)
        print(f"episodes written to {options.out}")


main = Command(EvaluateOptions, _evaluate, __doc__)
