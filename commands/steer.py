"""Ask a maze agent where the ways to cheese and corner part, and steer it by vectors.

    rlbilinear steer --agent maze-impala-compact
    rlbilinear steer --agent model_rand_region_5.pth --mode hard --save runs/published

Takes the published ReLU policies as they are (.pth of train-procgen-pytorch; only tensors are
read), and saves them as folders that every other command can read.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rlbilinear.agents import Agent, agent_from_pth, load
from rlbilinear.agents.folder import new_folder
from rlbilinear.commands.outputs import check_folder, writing
from rlbilinear.commands.running import Command
from rlbilinear.envs import EVALUATION, Constraints, Maze, sample_levels
from rlbilinear.envs.levels import WORLD_SIZE
from rlbilinear.probes.curves import decision_points
from rlbilinear.probes.vectors import decision_summary, decision_table

TABLE, FIGURE = "decisions.csv", "decisions.png"


@dataclass(frozen=True)
class SteerOptions:
    """Ask a maze agent where the ways to cheese and corner part, and steer it by vectors."""

    agent: str = "maze-impala-compact"
    """a zoo agent, a folder, or a .pth file of train-procgen-pytorch"""
    layer: str = "block3"
    """where the vectors are added; block3 of impala is the published block2.res1"""
    coefficient: float = 1.0
    """factor of the vectors"""
    levels: int = 100
    """held-out levels with a decision square"""
    mode: str = "easy"
    """distribution mode of the levels; the published policies play hard"""
    seed: int = 0
    """seed of the choice of levels, random vectors and intervals"""
    save: Path | None = None
    """also save the agent as a folder"""
    out: Path | None = None
    """folder for the table and the figure"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""


def open_agent(name: str, device: str) -> Agent:
    """Load an agent of the zoo, of a folder, or of a .pth file.

    Raises:
        ValueError: none of these, or a file of another network.
        OSError: no such file.
    """
    return agent_from_pth(name, device=device) if name.endswith(".pth") else load(name, device)


def decisions(options: SteerOptions) -> tuple[Agent, pd.DataFrame]:
    """Return the agent and its decisions, a row for each level and condition.

    Raises:
        ValueError: an agent, layer or mode that there is not, or too few levels.
    """
    agent = open_agent(options.agent, options.device)
    if options.mode not in WORLD_SIZE:
        raise ValueError(f"maze has no mode {options.mode!r}; choose from {', '.join(WORLD_SIZE)}")
    levels = sample_levels(
        EVALUATION,
        options.levels,
        seed=options.seed,
        mode=options.mode,
        # A maze that fills its world has no place for a path on to the world's corner.
        constraints=Constraints(
            maze_dim=(3, WORLD_SIZE[options.mode] - 2), has_decision_square=True
        ),
    )
    mazes = {level: Maze.from_seed(level, options.mode) for level in levels}
    table = decision_table(
        agent, mazes, options.layer, coefficient=options.coefficient, seed=options.seed
    )
    return agent, table


def _steer(options: SteerOptions) -> None:
    """Print the table of means, and write what is asked for."""
    for folder in (options.save, options.out):
        if folder is not None:
            check_folder(folder, overwrite=False, marker="")
    agent, table = decisions(options)
    summary = decision_summary(table, seed=options.seed)
    if options.save is not None:
        agent.save(options.save)
    if options.out is not None:
        with writing(options.out), new_folder(options.out, overwrite=False, marker=TABLE) as folder:
            table.to_csv(folder / TABLE, index=False)
            decision_points(summary).savefig(folder / FIGURE)
    text = summary.apply(
        lambda row: f"{row['probability']:.3f} [{row['low']:.3f}, {row['high']:.3f}]", axis=1
    )
    shown = summary.assign(probability=text).pivot_table(
        "probability", "condition", "way", aggfunc="first", sort=False
    )
    print(f"{options.levels} decision squares, vectors at {options.layer}, 95 % interval by level")
    print(shown.to_string())
    for what, path in (("Agent", options.save), ("Table and figure", options.out)):
        if path is not None:
            print(f"{what}: {path}")


main = Command(SteerOptions, _steer, __doc__)
