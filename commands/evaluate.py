"""Score agents on held-out levels, sampled and greedy, beside the two uniform baselines.

    rlbilinear evaluate maze-bimpala-compact --levels 1000 --out scores.csv

Each policy plays each level once; intervals are over levels.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import pandas as pd
import tyro

from rlbilinear.agents import load, names
from rlbilinear.agents.evaluation import BASELINES, evaluate, summary
from rlbilinear.commands.outputs import check_new_file, new_file
from rlbilinear.commands.running import Command, Count, Seed, Several
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
    level_seeds: Several[int] = ()
    """play exactly these levels instead"""
    episodes: Count = 1
    """episodes of each level; greedy ones, which are all alike, are played once"""
    skip_unplayable: bool = False
    """leave out levels that are over at the first step without a reward, whatever the agent does"""
    mode: str = "easy"
    """distribution mode of the game"""
    baselines: bool = True
    """also score the uniform policies"""
    seed: Seed = 0
    """seed of the sampled actions and of the intervals"""
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


def score(options: EvaluateOptions) -> Scores:
    """Score the agents.

    Raises:
        ValueError: no agents, an unknown agent, game or mode, or another option that is not
            accepted; the message names it.
    """
    if not options.agents:
        raise ValueError(
            f"no agent was given: name zoo agents ({', '.join(names())}) or folders of agents"
        )
    check_evaluation(options)
    agents = {name: load(name, options.device) for name in options.agents}
    for agent in agents.values():
        check_game(agent.config.game)
        check_mode(agent.config.game, options.mode)
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
    keys = ["policy", "actions", "game"]
    episodes = pd.concat(tables, names=keys).reset_index(level=keys)
    means = pd.concat({key[:2]: summary(each, seed=options.seed) for key, each in tables.items()})
    text = means.apply(lambda row: f"{row['mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]", 1)
    return Scores(episodes, text.unstack().rename_axis(["policy", "actions"]))


def check_evaluation(options: EvaluateOptions) -> None:
    """Raise ValueError, naming the option, where there are too many levels, or an agent twice."""
    if options.levels > EVALUATION.count:
        raise ValueError(f"--levels: expected 1 to {EVALUATION.count}, got {options.levels}")
    given = [name.rstrip("/") for name in options.agents]
    if twice := [name for name in given if given.count(name) > 1]:
        raise ValueError(f"agents: {twice[0]} is given twice")


def heading(episodes: pd.DataFrame, options: EvaluateOptions) -> list[str]:
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


def _evaluate(options: EvaluateOptions) -> None:
    """Print the table, and write the episodes when asked."""
    if options.out is not None:
        check_new_file(options.out)
    episodes, table = score(options)
    print("\n".join(heading(episodes, options)))
    print(table.to_string())
    if options.out is not None:
        with new_file(options.out, overwrite=False) as file:
            episodes.to_csv(file, index=False)
        print(f"episodes written to {options.out}")


main = Command(EvaluateOptions, _evaluate, __doc__)
