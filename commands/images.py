"""Train bilinear classifiers of real images, and read them from their weights.

    rlbilinear images --out runs/images

Writes figures (PNG), tables (CSV), and options, versions and scores (JSON): spectra, digit-shaped
eigenvectors, accuracy against truncation, decompositions, similarity across seeds and sizes,
overfitting with and without input noise, adversarial masks against noise of equal norm, a deeper
network, and boolean gates with their known interaction matrices. It takes about a minute on one
core. For the larger sets train fewer networks: --data mnist --epochs 10 --batch 1024 --seeds 2
--widths 32
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from rlbilinear.classifiers import BilinearClassifier, Training, accuracy
from rlbilinear.commands.outputs import check_folder, write_study
from rlbilinear.commands.running import Command, Count, Scale
from rlbilinear.cp import fit_cp
from rlbilinear.hosvd import hosvd
from rlbilinear.statistics import t_interval
from rlbilinear.studies.images import figures as draw
from rlbilinear.studies.images import study, toys
from rlbilinear.studies.images.data import Images, load
from rlbilinear.studies.images.study import Recipe, Trained

MARKER = "images.json"
Measurement = Literal[
    "spectra",
    "truncation",
    "decompositions",
    "similarity",
    "overfitting",
    "adversarial",
    "depth",
    "gates",
]


@dataclass(frozen=True)
class ImagesOptions:
    """Train bilinear classifiers of real images, and read them from their weights."""

    out: Path
    """folder for figures and tables"""
    data: str = "digits"
    """digits (bundled, 8 x 8), mnist or fashion-mnist (28 x 28, downloaded once), or a folder of
    IDX files"""
    seeds: Count = 5
    """networks of each kind; intervals are over them"""
    width: Count = 64
    """width of the embedding and of the bilinear layer"""
    widths: tuple[Count, ...] = (16, 32, 128)
    """other widths, for similarity across sizes"""
    epochs: Count = 60
    """passes over the images"""
    batch: Count = 128
    """images per gradient step"""
    learning_rate: float = 3e-3
    """learning rate of AdamW"""
    weight_decay: Scale = 0.0
    """weight decay of AdamW; too much collapses small networks to zero"""
    noise: Scale = 0.2
    """standard deviation of the input noise in training; pixels are in [0, 1]"""
    noises: tuple[Scale, ...] = (0.0, 0.4)
    """other standard deviations, for overfitting"""
    limit: Count | None = None
    """train on this many images only"""
    mask_sizes: tuple[Scale, ...] = tuple(i / 10 for i in range(11))
    """sizes of adversarial masks, in mean norms of an image"""
    measure: tuple[Measurement, ...] = get_args(Measurement)
    """what is measured; by default everything"""
    quick: bool = False
    """two seeds, few epochs and sizes: to see that everything runs"""
    overwrite: bool = False
    """replace the results in the folder"""
    progress: bool = True
    """show progress bars"""


@dataclass(frozen=True, eq=False)
class Networks:
    """The trained classifiers, by what they are for."""

    base: list[Trained]
    """with the main width and noise, one for each seed"""
    sizes: list[Trained]
    """with the other widths"""
    noises: list[Trained]
    """with the other noises"""
    untrained: list[Trained]
    """those of `base`, before training"""
    deep: BilinearClassifier | None
    """with two bilinear layers, if its depth is measured"""


def _images(options: ImagesOptions) -> None:
    """Train, measure, draw, and write."""
    check_folder(options.out, overwrite=options.overwrite, marker=MARKER)
    options = quick(options) if options.quick else options
    images = load(options.data, limit=options.limit)
    tables, pictures = measure(options, images, train_networks(options, images))
    summary = summarise(tables)
    for name, value in summary.items():
        print(f"{name:70s} {value}")
    made = {**asdict(options), "out": options.out.name, "data": images.name}
    record = {"options": made, "summary": summary, "images": len(images.train)}
    write_study(options.out, tables, pictures, record, marker=MARKER, overwrite=options.overwrite)
    print(f"\nFigures and tables: {options.out}")


def quick(options: ImagesOptions) -> ImagesOptions:
    """Return options that run everything in a few seconds."""
    return replace(
        options,
        seeds=2,
        epochs=12,
        width=24,
        widths=(12,),
        noises=(0.0,),
        mask_sizes=(0.0, 0.5, 1.0),
    )


def train_networks(options: ImagesOptions, images: Images) -> Networks:
    """Train all networks."""
    training = Training(options.epochs, options.batch, options.learning_rate, options.weight_decay)
    seeds = range(options.seeds)
    base = [Recipe(options.width, options.noise, seed) for seed in seeds]
    widths = {*options.widths} - {options.width}
    sizes = [r._replace(width=width) for width in sorted(widths) for r in base]
    other_noises = {*options.noises} - {options.noise}
    noises = [r._replace(noise=noise) for noise in sorted(other_noises) for r in base]
    bar = tqdm([*base, *sizes, *noises], desc="training", disable=not options.progress)
    trained = [study.train(images, recipe, training) for recipe in bar]
    first, second = len(base), len(base) + len(sizes)
    return Networks(
        trained[:first],
        trained[first:second],
        trained[second:],
        [study.untrained(images, recipe) for recipe in base],
        study.train_deep(images, base[0], training) if "depth" in options.measure else None,
    )


def measure(
    options: ImagesOptions, images: Images, networks: Networks
) -> tuple[dict[str, pd.DataFrame], dict[str, Figure]]:
    """Make all tables and figures."""
    tables: dict[str, pd.DataFrame] = {}
    pictures: dict[str, Figure] = {}
    for step in tqdm(options.measure, desc="measuring", disable=not options.progress):
        for name, (table, picture) in STEPS[step](options, images, networks):
            if table is not None:
                tables[name] = table
            if picture is not None:
                pictures[name] = picture
    return tables, pictures


Result = Iterator[tuple[str, tuple[pd.DataFrame | None, Figure | None]]]


def spectra(options: ImagesOptions, images: Images, networks: Networks) -> Result:
    """Score all networks; draw spectra, eigenvectors as images, completeness."""
    first = networks.base[0]
    scores = study.scores(images, [*networks.base, *networks.sizes, *networks.noises])
    yield "scores", (scores, None)
    yield "spectra", (None, draw.spectra(first))
    yield "eigenvectors", (None, draw.eigenvectors(images, first))
    complete = study.completeness(networks.base, 8 if options.quick else 25)
    yield "completeness", (complete, draw.completeness(complete))


def truncations(options: ImagesOptions, images: Images, networks: Networks) -> Result:
    """Keep few eigenvectors of every class."""
    cut = study.truncation(images, networks.base)
    full = study.scores(images, networks.base)
    yield "truncation", (cut, draw.truncation(cut, full))


def decompositions(options: ImagesOptions, images: Images, networks: Networks) -> Result:
    """Decompose the whole tensors."""
    first = networks.base[0]
    full = study.scores(images, networks.base)
    ranks = (8,) if options.quick else (1, 2, 4, 8, 16, 32, 64)
    table = study.decompositions(images, networks.base, ranks, 10 if options.quick else 150)
    yield "decompositions", (table, draw.decompositions(table, full))
    yield "hosvd", (None, draw.components(images, hosvd(first.tensor)))
    cp = fit_cp(first.tensor, 8 if options.quick else 32, steps=10 if options.quick else 150)
    yield "cp", (None, draw.products(images, cp))


def similarities(options: ImagesOptions, images: Images, networks: Networks) -> Result:
    """Compare eigenvectors and forms across seeds and sizes, untrained networks beside."""
    top = 5 if options.quick else 10
    trained = itertools.combinations([*networks.base, *networks.sizes], 2)
    untrained = itertools.combinations(networks.untrained, 2)
    table = pd.concat(
        [study.similarity(trained, top, "trained"), study.similarity(untrained, top, "untrained")]
    )
    yield "similarity", (table, draw.similarity(table))


def overfits(options: ImagesOptions, images: Images, networks: Networks) -> Result:
    """Compare networks with more and less noise."""
    both = sorted([*networks.base, *networks.noises], key=lambda t: t.recipe.noise)
    table = study.scores(images, both)
    firsts = [t for t in both if t.recipe.seed == 0]
    yield "overfitting", (table, draw.overfitting(images, firsts, table))


def attacked(options: ImagesOptions, images: Images, networks: Networks) -> Result:
    """Add masks that were read from the weights, and noise of equal norm."""
    victims = [*networks.base, *networks.noises]
    table = study.attacks(images, victims, options.mask_sizes, 1 if options.quick else 3)
    found = study.masks_of(networks.base[0])
    masks = [found.of(c) for c in sorted(set(found.classes.tolist()))]
    yield "adversarial", (table, draw.adversarial(images, masks, table))


def deep(options: ImagesOptions, images: Images, networks: Networks) -> Result:
    """Predict the outputs of a deep network from a part of its weights."""
    assert networks.deep is not None
    ranks = (1, 4) if options.quick else (1, 2, 4, 8, 16, 32, 64)
    table = study.depth(images, networks.deep, [k for k in ranks if k <= options.width])
    right = accuracy(networks.deep, images.test, images.test_labels)
    yield "depth", (table, draw.depth(table, right))


def gates(options: ImagesOptions, images: Images, networks: Networks) -> Result:
    """Learn boolean gates, whose interaction matrices are known."""
    decays, seeds, epochs = ((0.0,), 1, 600) if options.quick else ((0.0, 0.5, 5.0), 3, 1000)
    table, matrices = toys.compare_gates(decays, seeds, epochs)
    yield "gates", (table, draw.gates(matrices))


STEPS: dict[Measurement, Callable[[ImagesOptions, Images, Networks], Result]] = {
    "spectra": spectra,
    "truncation": truncations,
    "decompositions": decompositions,
    "similarity": similarities,
    "overfitting": overfits,
    "adversarial": attacked,
    "depth": deep,
    "gates": gates,
}


def summarise(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Return the main numbers of what was measured, with intervals over networks."""
    lines: dict[str, str] = {}
    if "scores" in tables:
        full = tables["scores"]
        base = full[(full.width == full.width.iloc[0]) & (full.noise == full.noise.iloc[0])]
        lines |= {
            "test accuracy": _line(base.test),
            "numerical rank": f"{base['rank'].median():.0f}",
        }
        lines["effective rank"] = _line(base.effective_rank)
    if "truncation" in tables:
        cut = tables["truncation"]
        for k in (1, 2, 5, 10):
            of = cut[(cut.kept == "largest") & (cut.k == k)].accuracy
            if len(of):
                lines[f"accuracy with {k} eigenvectors a class"] = _line(of)
    if "decompositions" in tables:
        for name, of in tables["decompositions"].groupby("decomposition", sort=False):
            most = of["size"].max()
            lines[f"accuracy with {most} {name}"] = _line(of[of["size"] == most].accuracy)
    if "adversarial" in tables:
        attack = tables["adversarial"]
        for noise, of in attack[attack["size"] == 0.5].groupby("trained_noise"):
            whole, dark = (of[of["where"] == where].groupby("seed") for where in ("whole", "dark"))
            name = f"trained with noise {noise:g}: accuracy"
            lines[f"{name} under masks of half an image's norm"] = _line(whole.masked.mean())
            lines[f"{name} under such masks in the dark"] = _line(dark.masked.mean())
            lines[f"{name} under such noise"] = _line(whole.noise.mean())
    if "overfitting" in tables:
        for noise, group in tables["overfitting"].groupby("noise"):
            lines[f"test accuracy, trained with noise {noise:g}"] = _line(group.test)
            lines[f"dark energy, trained with noise {noise:g}"] = _line(group.energy_where_dark)
    if "gates" in tables:
        for decay, group in tables["gates"].groupby("weight_decay"):
            lines[f"gates, error with weight decay {decay:g}"] = f"{group.largest_error.max():.2g}"
    return lines


def _line(values: pd.Series) -> str:
    mean, low, high = t_interval(values)
    interval = "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"
    return f"{mean:.3f}{interval}"


main = Command(ImagesOptions, _images, __doc__)
