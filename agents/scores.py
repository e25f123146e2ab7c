"""Scores for comparing agents: returns on one scale for all games, and both sides of the gap.

The generalisation gap is the return on the levels that an agent learned from minus the return on
levels held out. Both sides are played by the same evaluator, after training, on as many levels.
"""

from pathlib import Path

import pandas as pd

from rlbilinear.agents.checkpoint import WEIGHTS, load
from rlbilinear.agents.evaluation import evaluate
from rlbilinear.agents.folder import new_file, sha256
from rlbilinear.envs import EVALUATION, TRAINING, Levels
from rlbilinear.envs.games import check_game
from rlbilinear.envs.levels import check_disjoint

SCORE_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "easy": {
        "bigfish": (1, 40),
        "bossfight": (0.5, 13),
        "caveflyer": (3.5, 12),
        "chaser": (0.5, 13),
        "climber": (2, 12.6),
        "coinrun": (5, 10),
        "dodgeball": (1.5, 19),
        "fruitbot": (-1.5, 32.4),
        "heist": (3.5, 10),
        "jumper": (3, 10),
        "leaper": (3, 10),
        "maze": (5, 10),
        "miner": (1.5, 13),
        "ninja": (3.5, 10),
        "plunder": (4.5, 30),
        "starpilot": (2.5, 64),
    },
    "hard": {
        "bigfish": (0, 40),
        "bossfight": (0.5, 13),
        "caveflyer": (2, 13.4),
        "chaser": (0.5, 14.2),
        "climber": (1, 12.6),
        "coinrun": (5, 10),
        "dodgeball": (1.5, 19),
        "fruitbot": (-0.5, 27.2),
        "heist": (2, 10),
        "jumper": (1, 10),
        "leaper": (1.5, 10),
        "maze": (4, 10),
        "miner": (1.5, 20),
        "ninja": (2, 10),
        "plunder": (3, 30),
        "starpilot": (1.5, 35),
    },
}
"""By mode and game, the returns that count as 0 and 1 (Cobbe et al. 2020, appendix C): that of an
agent that sees nothing, and the highest that is possible or was reached."""

FINAL = "final_levels.csv"
"""In a run's folder: a row for each level that the trained agent was scored on."""

SETS = ("training", "held_out")
"""Levels the agent learned from, and levels held out."""


def score_range(game: str, mode: str = "easy") -> tuple[float, float]:
    """Return the returns that count as 0 and 1: ``(return - low) / (high - low)`` normalises.

    Raises:
        ValueError: an unknown game, or a mode without a published range.
    """
    check_game(game)
    if not isinstance(mode, str) or mode not in SCORE_RANGES:
        raise ValueError(
            f"normalised scores are defined in modes {' and '.join(SCORE_RANGES)}, not {mode!r}"
        )
    return SCORE_RANGES[mode][game]


def training_levels(count: int) -> Levels:
    """Return the levels of a run with ``count`` training levels; 0 for all of them."""
    return Levels(TRAINING.start, count) if count else TRAINING


def final_scores(
    run: Path,
    *,
    levels: int,
    count: int,
    mode: str = "easy",
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Score a finished run's agent on training levels and on held-out levels, alike.

    Actions are sampled, as in training. The table is kept in the run's folder, and taken from
    there while the agent's weights, the mode and the number of levels are the same.

    Args:
        run: folder of a run of `rlbilinear.agents.train`.
        levels: number of training levels; 0 for all that are reserved for training.
        count: levels of each set to play; of training levels, no more than there are.
        mode: the game's distribution mode.
        device: where to play.
        progress: show a bar.

    Returns:
        The columns of `agents.evaluation.evaluate`, after ``levels`` (training or held_out),
        ``mode`` and ``weights`` (the start of their SHA-256).

    Raises:
        CheckpointError: no trained agent, or one that is damaged.
        ValueError: a count that is not positive.
    """
    seen = training_levels(levels)
    check_disjoint([seen, EVALUATION])
    chosen = dict(
        zip(SETS, (seen.first(min(count, seen.count)), EVALUATION.first(count)), strict=True)
    )
    agent = load(run / "agent", device)
    weights = sha256(run / "agent" / WEIGHTS)[:16]
    key = [(name, mode, weights, level) for name, some in chosen.items() for level in some]
    file = run / FINAL
    if file.is_file():
        kept = pd.read_csv(file)
        if {"levels", "mode", "weights", "level", "unplayable"} <= {*kept} and key == [
            *zip(kept["levels"], kept["mode"], kept["weights"], kept["level"], strict=True)
        ]:
            return kept
    played = {
        name: evaluate(agent, some, mode=mode, progress=progress) for name, some in chosen.items()
    }
    table = pd.concat(played, names=["levels"]).reset_index(level=0).reset_index(drop=True)
    table.insert(1, "mode", mode)
    table.insert(2, "weights", weights)
    with new_file(file) as temporary:
        table.to_csv(temporary, index=False)
    return table
