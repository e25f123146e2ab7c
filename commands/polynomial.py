"""Approximate networks by their best linear, quadratic, ... polynomials, in closed form.

    rlbilinear polynomial --out runs/polynomial
    rlbilinear polynomial --out runs/polynomial-relu --agent maze-impala-compact
    rlbilinear polynomial --out runs/polynomial-training --training runs/compare/fruitbot

Writes figures (PNG), tables (CSV), and options, versions and scores (JSON). Without ``--agent``, of
classifiers of real images: R² of approximants through training, in closed form and measured; every
subset of a deep network's layers replaced; eigenvectors of the best quadratic; attacks read off the
approximants. With ``--agent``, of a ReLU agent: R² of each layer's quadratic surrogate, how the
agent plays when layers are replaced one by one and together, and eigenfilters of a probe's
direction, beside a bilinear agent. With ``--training``, of the agents in a training run's
checkpoints: R² of each layer's linear and quadratic approximants, from the first to the last.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from rlbilinear.classifiers import Training
from rlbilinear.commands.outputs import check_folder, write_study
from rlbilinear.commands.running import Command, Count, Seed
from rlbilinear.statistics import t_interval
from rlbilinear.studies.images.data import load
from rlbilinear.studies.polynomials import agent_training, relu_agents, study
from rlbilinear.studies.polynomials import figures as draw
from rlbilinear.studies.polynomials.classifiers import MODULES, train

MARKER = "polynomial.json"
DEGREE = 4
"""the highest degree whose R² is given"""


@dataclass(frozen=True)
class PolynomialOptions:
    """Approximate networks by their best polynomials."""

    out: Path
    """folder for figures and tables"""
    data: str = "digits"
    """digits (bundled, 8 x 8), mnist or fashion-mnist (28 x 28, downloaded once), or a folder of
    IDX files"""
    activation: str = "relu"
    """activation of the classifiers: relu, gelu, silu or tanh"""
    hidden: Count = 128
    """hidden units of the classifiers with one hidden layer"""
    deep: tuple[Count, ...] = (64, 64, 64)
    """hidden units of each layer of the deep classifiers, whose layers are replaced"""
    seeds: Count = 5
    """classifiers of each kind; intervals are over them"""
    epochs: Count = 200
    """passes over the images"""
    batch: Count = 128
    """images per gradient step"""
    learning_rate: float = 3e-3
    """learning rate of AdamW"""
    checkpoints: Count = 12
    """checkpoints between the first and the last step, in equal ratios"""
    limit: Count | None = None
    """train on this many images only"""
    agent: str | None = None
    """a ReLU agent, from the zoo or a folder: measure it instead of classifiers"""
    training: Path | None = None
    """folder of training runs with checkpoints: measure their agents instead of classifiers"""
    beside: str = "maze-bimpala-compact"
    """bilinear agent to compare the ReLU agent with: a zoo agent, or a folder"""
    levels: Count = 64
    """levels on which agents play, held out from everything else"""
    states: Count = 128
    """levels whose states approximants are fitted to; with --training, number of observations"""
    seed: Seed = 0
    """with --agent or --training, seed of states and of sampled actions"""
    quick: bool = False
    """few networks, epochs and levels: to see that everything runs"""
    overwrite: bool = False
    """replace the results in the folder"""
    progress: bool = True
    """show progress bars"""


Result = Iterator[tuple[str, tuple[pd.DataFrame | None, Figure | None]]]


def _polynomial(options: PolynomialOptions) -> None:
    """Measure, draw, and write."""
    check_folder(options.out, overwrite=options.overwrite, marker=MARKER)
    options = quick(options) if options.quick else options
    tables, pictures, summary = measured(options)
    for name, value in summary.items():
        print(f"{name:52s} {value}")
    made = {**asdict(options), "out": options.out.name, "data": Path(options.data).name}
    if options.training is not None:
        made["training"] = options.training.name
    record = {"options": made, "summary": summary}
    write_study(options.out, tables, pictures, record, marker=MARKER, overwrite=options.overwrite)
    print(f"\nFigures and tables: {options.out}")


def quick(options: PolynomialOptions) -> PolynomialOptions:
    """Return options that run everything in a short time."""
    return replace(
        options,
        seeds=2,
        epochs=8,
        hidden=16,
        deep=(12, 12),
        checkpoints=3,
        levels=4,
        states=8,
    )


def measured(
    options: PolynomialOptions,
) -> tuple[dict[str, pd.DataFrame], dict[str, Figure], dict[str, str]]:
    """Measure classifiers or agents; return tables, figures and a summary.

    Raises:
        ValueError: an option is not accepted; the message names it.
    """
    if options.activation not in MODULES:
        raise ValueError(
            f"--activation: unknown {options.activation!r}; choose from {', '.join(MODULES)}"
        )
    results, summarise = (image_results, summarise_images)
    if options.agent is not None and options.training is not None:
        raise ValueError("--agent, --training: choose one of them")
    if options.agent is not None:
        results, summarise = (agent_results, relu_agents.summarise)
    elif options.training is not None:
        results, summarise = (training_results, agent_training.summarise)
    found = list(results(options))
    tables = {name: table for name, (table, _) in found if table is not None}
    pictures = {name: picture for name, (_, picture) in found if picture is not None}
    return tables, pictures, summarise(tables)


def image_results(options: PolynomialOptions) -> Result:
    """Train classifiers of images, and measure their approximants."""
    images = load(options.data, limit=options.limit)
    training = Training(options.epochs, options.batch, options.learning_rate)
    seeds = [replace(training, seed=seed) for seed in range(options.seeds)]
    bar = tqdm(total=2 * len(seeds), desc="training", disable=not options.progress)
    shallow, deep = [], []
    for each in seeds:
        shallow.append(
            train(images, (options.hidden,), options.activation, each, options.checkpoints)
        )
        bar.update()
        deep.append(train(images, options.deep, options.activation, each))
        bar.update()
    bar.close()
    found = study.approximated(images, shallow, DEGREE)
    repeats = 1 if options.quick else 3
    sizes = (0.0, 0.5, 1.0) if options.quick else tuple(i / 8 for i in range(11))

    def through_training() -> tuple[pd.DataFrame | None, Figure | None]:
        table = study.through_training(images, shallow, DEGREE)
        return table, draw.through_training(table)

    def r2() -> tuple[pd.DataFrame | None, Figure | None]:
        table = study.r2(images, found)
        return table, draw.r2(table)

    def eigenvectors() -> tuple[pd.DataFrame | None, Figure | None]:
        return None, draw.eigenvectors(images, found[0])

    def layers() -> tuple[pd.DataFrame | None, Figure | None]:
        table = study.layers(images, deep)
        return table, draw.layers(table)

    def removals() -> tuple[pd.DataFrame | None, Figure | None]:
        table = study.removals(images, found, repeats)
        return table, draw.removals(table)

    def masks() -> tuple[pd.DataFrame | None, Figure | None]:
        table = study.masked(images, found, sizes, repeats)
        pictures = {kind: list(masks.masks) for kind, masks in study.masks_of(found[0]).items()}
        return table, draw.masks(images, pictures, table)

    steps: list[Callable[[], tuple[pd.DataFrame | None, Figure | None]]]
    steps = [through_training, r2, eigenvectors, layers, removals, masks]
    for step in tqdm(steps, desc="measuring", disable=not options.progress):
        yield step.__name__, step()


def agent_results(options: PolynomialOptions) -> Result:
    """Measure a ReLU agent's surrogates beside a bilinear agent."""
    assert options.agent is not None
    yield from relu_agents.results(
        options.agent,
        options.beside,
        levels=options.levels,
        states=options.states,
        seed=options.seed,
        quick=options.quick,
        progress=options.progress,
    )


def training_results(options: PolynomialOptions) -> Result:
    """Measure the agents in the checkpoints of training runs."""
    assert options.training is not None
    yield from agent_training.results(
        options.training,
        observations=options.states,
        seed=options.seed,
        progress=options.progress,
    )


def summarise_images(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Return the main numbers, with intervals over networks."""
    training, layers = tables["through_training"], tables["layers"]
    lines = {}
    ends = {"untrained": training.step.min(), "trained": training.step.max()}
    for degree in (1, 2):
        name = study.NAMES[degree]
        own = training[training.degree == degree]
        for when, step in ends.items():
            for column in ("gaussian_r2", "measured_r2"):
                lines[f"{column} of the {name}, {when}"] = _line(own[own.step == step][column], 4)
        best = own.groupby("step").measured_r2.mean().idxmax()
        line = _line(own[own.step == best].measured_r2, 4)
        lines[f"measured_r2 of the {name}, highest"] = f"{line} after {best} steps"
    last = training[training.step == ends["trained"]]
    lines["test accuracy of the network"] = _line(last[last.degree == 1].network_accuracy)
    for degree in (1, 2):
        own = last[last.degree == degree]
        lines[f"test accuracy of its best {study.NAMES[degree]}"] = _line(own.accuracy)
    everything = layers[(layers.replaced == layers.replaced.max())]
    for (degree, again), group in everything.groupby(["degree", "reestimated"]):
        how = "re-estimated" if again else "of the original"
        lines[f"KL, all layers {study.NAMES[int(degree)]}, statistics {how}"] = _line(group.kl, 4)
    removed = tables["removals"]
    own = removed[(removed.predictor == "network") & (removed.k == 3)]
    for kind, group in own.groupby("directions", sort=False):
        lines[f"accuracy without 3 directions ({kind})"] = _line(group.accuracy)
        lines[f"accuracy under noise of equal norm ({kind})"] = _line(group.noise)
    masked = tables["masks"]
    own = masked[(masked.predictor == "network") & (masked["size"] == 0.5)]
    for kind, group in own.groupby("masks", sort=False):
        means = group.groupby("seed")[["masked", "noise"]].mean()
        lines[f"accuracy under masks of half the norm ({kind})"] = _line(means.masked)
    lines["accuracy under noise of half the norm"] = _line(means.noise)
    return lines


def _line(values: pd.Series, digits: int = 3) -> str:
    mean, low, high = t_interval(values)
    interval = "" if np.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{mean:.{digits}f}{interval}"


main = Command(PolynomialOptions, _polynomial, __doc__)
