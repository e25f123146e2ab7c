"""Ask about a concept along training: when it is readable, when it is used, what its form is.

    rlbilinear along runs/maze/seed1 runs/maze/seed2 runs/maze/seed3 --layer block1 --out runs/along

The runs are those of ``rlbilinear distill`` or ``train``, which keep agents along training. Runs of
one architecture are drawn together, with intervals over runs.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from rlbilinear.agents.folder import provenance, write_json
from rlbilinear.commands.outputs import check_writable, new_file, writing
from rlbilinear.commands.running import Command, Count, Seed
from rlbilinear.probes.along import along_training, trajectory
from rlbilinear.probes.along_figure import along_figure
from rlbilinear.probes.causal.games import causal_concept, game_data

TABLE, FIGURE, SETTINGS = "along.csv", "along.png", "along.json"


@dataclass(frozen=True)
class AlongOptions:
    """Ask about a concept along training."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="PATH [PATH ...]", help_behavior_hint="(required)"),
    ]
    """folders of runs, of one game"""
    out: Path
    """folder for the table and the figure"""
    layer: str = "block1"
    """layer at which is asked"""
    concept: str = "cheese"
    """concept of the agents' game that is in places"""
    fit_levels: Count = 60
    """levels to fit on"""
    levels: Count = 60
    """held-out levels"""
    seed: Seed = 0
    """of everything random"""
    progress: bool = True
    """show progress bars"""


def _along(options: AlongOptions) -> None:
    if not options.runs:
        raise ValueError("no runs: give folders of training runs")
    check_writable(options.out / TABLE)
    agents = {run: trajectory(run) for run in options.runs}
    games = {agent.config.game for kept in agents.values() for agent in kept.values()}
    if len(games) != 1:
        raise ValueError(f"the runs are of several games: {', '.join(map(str, games))}")
    (game,) = games
    concept = causal_concept(str(game), options.concept)
    data = game_data(
        str(game),
        concept.name,
        fit_levels=options.fit_levels,
        levels=options.levels,
        states_per_level=4,
        pairs_per_level=2,
        seed=options.seed,
    )
    tables: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for run, kept in agents.items():
        architecture = kept[max(kept)].config.architecture
        print(f"{run}: {len(kept)} agents of {architecture}", flush=True)
        found = along_training(
            kept, data, options.layer, seed=options.seed, progress=options.progress
        )
        tables[architecture].append(found.assign(run=str(run), architecture=architecture))
    joined = pd.concat([table for runs in tables.values() for table in runs])
    print(joined.drop(columns="run").to_string(index=False, float_format="%.3f"))
    with new_file(options.out / TABLE) as file:
        joined.to_csv(file, index=False)
    with new_file(options.out / FIGURE) as file:
        along_figure(tables).savefig(file, dpi=150)
    with writing(options.out / SETTINGS):
        write_json(options.out / SETTINGS, provenance())
    print(f"\nTable and figure: {options.out}")


main = Command(AlongOptions, _along, __doc__)
