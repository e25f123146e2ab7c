"""Put published methods beside ours on the same pairs: what each reaches, and what it costs.

    rlbilinear baselines
    rlbilinear baselines --agents maze-impala-compact --concepts cheese mouse --out runs/baselines

All methods are fitted to the same states and tried on the same pairs of held-out levels, at the
layer that is best on the fitting pairs. Attribution needs the extra `attribution`.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rlbilinear.agents.folder import new_folder, provenance, write_json
from rlbilinear.commands.outputs import check_folder, writing
from rlbilinear.commands.running import Command, Count, Seed
from rlbilinear.probes.causal.baselines import baselines, table_of
from rlbilinear.probes.causal.baselines_figure import baselines_figure
from rlbilinear.probes.causal.games import FIT_LEVELS, LEVELS

TABLE, FIGURE, SETTINGS = "baselines.csv", "baselines.png", "settings.json"


@dataclass(frozen=True)
class BaselinesOptions:
    """Put published methods beside ours on the same pairs."""

    agents: tuple[str, ...] = ("maze-bimpala-compact",)
    """zoo agents, or folders"""
    concepts: tuple[str, ...] = ("cheese",)
    """names of concepts of the agents' game"""
    layer: str = "auto"
    """where; auto chooses it on the fitting pairs"""
    rank: Count | None = None
    """how many difference directions are ours; chosen with the layer unless given"""
    fit_levels: Count = FIT_LEVELS
    """levels to fit on"""
    levels: Count = LEVELS
    """held-out levels, on which all is decided"""
    seed: Seed = 0
    """seed of everything random"""
    out: Path | None = None
    """folder for the table and the figure"""
    progress: bool = True
    """show progress bars"""


def _baselines(options: BaselinesOptions) -> None:
    """Print a table for each agent and concept, and write what is asked for."""
    if options.out is not None:
        check_folder(options.out, overwrite=False, marker=TABLE)
    tables = []
    for agent in options.agents:
        for concept in options.concepts:
            found = baselines(
                agent,
                concept,
                layer=options.layer,
                rank=options.rank or "auto",
                seed=options.seed,
                fit_levels=options.fit_levels,
                levels=options.levels,
                progress=options.progress,
            )
            print(
                f"\n{agent}, {concept} at {found['layer'].iloc[0]}\n{table_of(found)}", flush=True
            )
            tables.append(found.assign(agent=agent, concept=concept))
    if options.out is None:
        return
    together = pd.concat(tables, ignore_index=True)
    with writing(options.out), new_folder(options.out, overwrite=False, marker=TABLE) as folder:
        together.to_csv(folder / TABLE, index=False)
        baselines_figure(together).savefig(folder / FIGURE)
        write_json(folder / SETTINGS, provenance())
    print(f"\nTable and figure: {options.out}")


main = Command(BaselinesOptions, _baselines, __doc__)
