"""R² of the polynomials of an agent's layers, checkpoint by checkpoint of its training."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from tqdm import tqdm

from rlbilinear.agents import Agent, load
from rlbilinear.agents.surrogate import hidden_layers, polynomial_surrogate, regrouped
from rlbilinear.envs import EVALUATION, FITTING, ProcgenVecEnv
from rlbilinear.studies.images.study import with_intervals
from rlbilinear.studies.polynomials.figures import band

Result = Iterator[tuple[str, tuple[pd.DataFrame | None, Figure | None]]]
ENVIRONMENTS = 16
EVERY = 8
"""steps of play from one kept observation to the next"""


def results(folder: Path, *, observations: int, seed: int, progress: bool) -> Result:
    """Measure every checkpoint of every run in a folder, on what the trained agents see.

    A run's observations are the same for all its checkpoints: those of its last agent, which is the
    most able one, in play. Half as many others, of other levels, measure R².

    Raises:
        ValueError: no checkpoints, or an agent without hidden layers.
    """
    rows = []
    for run, checkpoints in _runs(folder).items():
        last = load(checkpoints[-1])
        fitted, held_out = (
            play(last, count, start, seed)
            for count, start in (
                (observations, FITTING.start),
                (-(-observations // 2), EVALUATION.start),
            )
        )
        for path in tqdm(checkpoints, desc=str(run), disable=not progress):
            agent = regrouped(load(path))
            layers = hidden_layers(agent)
            if not layers:
                raise ValueError(f"--training: {path} has no layer to approximate: {agent}")
            surrogate = polynomial_surrogate(
                agent, fitted, layers, reestimate=False, held_out=held_out
            )
            table = surrogate.replacement.table()
            rows.append(table.assign(seed=str(run), frames=int(path.parent.name)))
    table = pd.concat(rows, ignore_index=True)
    table = table[table.degree > 0]
    yield "agent_training", (table, draw(table))


def play(
    agent: Agent, count: int, start_level: int, seed: int
) -> UInt8[np.ndarray, "n channels height width"]:
    """Return observations of an agent in play, on levels from ``start_level`` on."""
    env = ProcgenVecEnv(agent.config.game, ENVIRONMENTS, start_level=start_level, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    kept: list[UInt8[np.ndarray, "envs channels height width"]] = []
    step = 0
    try:
        seen = np.asarray(env.reset())
        while len(kept) * ENVIRONMENTS < count:
            actions, _ = agent.predict(seen, generator=generator)
            seen = np.asarray(env.step(actions)[0])
            step += 1
            if step % EVERY == 0:
                kept.append(seen.copy())
    finally:
        env.close()
    return np.concatenate(kept)[:count]


def summarise(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Return the first, the lowest and the last R² of each layer, means over runs."""
    lines = {}
    for (layer, degree), own in tables["agent_training"].groupby(["layer", "degree"], sort=False):
        for column in ("gaussian_median", "measured_median"):
            path = own.groupby("frames")[column].mean()
            lines[f"{column.split('_')[0]} R² of {layer}, degree {degree}"] = (
                f"{path.iloc[0]:.3f} at {path.index[0]} frames, lowest {path.min():.3f} at "
                f"{path.idxmin()}, {path.iloc[-1]:.3f} at {path.index[-1]}"
            )
    return lines


def draw(table: pd.DataFrame) -> Figure:
    """Draw what linear and quadratic approximants leave unexplained, layer by layer."""
    layers = list(table.layer.unique())
    figure = Figure(figsize=(3.4 * len(layers) + 0.6, 3.6), layout="constrained")
    panels = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for axes, layer in zip(panels, layers, strict=True):
        for degree, colour in ((1, "tab:blue"), (2, "tab:orange")):
            own = table[(table.layer == layer) & (table.degree == degree)]
            if own.measured_median.min() > 1 - 1e-6:  # a polynomial of that degree itself
                continue
            for column, style in (("measured_median", "-"), ("gaussian_median", ":")):
                rest = own.assign(rest=1 - own[column])
                bands = with_intervals(rest, ["frames"], "rest")
                name = ("linear", "quadratic")[degree - 1]
                label = f"{name}, " + ("measured" if style == "-" else "closed form")
                band(axes, bands, "frames", colour, label, style)
        axes.set(title=layer, xlabel="frames of training", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("1 - R², median over outputs")
    panels[0].legend(fontsize=8)
    return figure


def _runs(folder: Path) -> dict[Path, list[Path]]:
    """Return the checkpoints of every run in a folder, in the order of training."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(folder.glob("**/checkpoints/*/agent")):
        run = path.parent.parent.parent
        found.setdefault(run.relative_to(folder) if run != folder else Path(run.name), []).append(
            path
        )
    if not found:
        raise ValueError(f"--training: no checkpoints/*/agent in {folder}")
    return found
