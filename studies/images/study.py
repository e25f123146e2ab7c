"""What is measured of bilinear image classifiers: tables, without drawing.

Every function takes trained classifiers and gives a pandas table with a row for each seed, so that
intervals are over networks and not over images.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlbilinear import QuadraticForm
from rlbilinear.adversarial import QuadraticMasks, attack_curve, quadratic_masks
from rlbilinear.chains import as_convolutional, chain, r_squared
from rlbilinear.classifiers import BilinearClassifier, Training, accuracy, train_classifier
from rlbilinear.cp import fit_cp
from rlbilinear.deep_hosvd import deep_hosvd
from rlbilinear.hosvd import hosvd
from rlbilinear.sparsity import cross_completeness, effective_rank
from rlbilinear.stack import BilinearStack
from rlbilinear.statistics import t_interval
from rlbilinear.studies.images.data import Images
from rlbilinear.tensor import BilinearTensor
from rlbilinear.tucker import tucker2


class Recipe(NamedTuple):
    """What tells one classifier from another."""

    width: int
    noise: float
    seed: int


@dataclass(frozen=True, eq=False)
class Trained:
    """A classifier with what is read of its weights: every class's form of the pixels."""

    recipe: Recipe
    model: BilinearClassifier
    tensor: BilinearTensor
    forms: list[QuadraticForm]
    values: list[Float[Tensor, "k"]]
    vectors: list[Float[Tensor, "k pixels"]]


def train(images: Images, recipe: Recipe, training: Training) -> Trained:
    """Train a classifier; the recipe's noise and seed take the place of the training's."""
    model = untrained(images, recipe).model
    _fit(model, images, recipe, training)
    return read(recipe, model)


def train_deep(images: Images, recipe: Recipe, training: Training) -> BilinearClassifier:
    """Train a classifier of two bilinear layers with skip connections."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        pixels = images.shape[0] * images.shape[1]
        model = BilinearClassifier(
            pixels, images.classes, width=recipe.width, layers=2, residual=True
        )
    _fit(model, images, recipe, training)
    return model


def untrained(images: Images, recipe: Recipe) -> Trained:
    """Make a classifier with the weights that training would start from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        pixels = images.shape[0] * images.shape[1]
        return read(recipe, BilinearClassifier(pixels, images.classes, width=recipe.width))


def _fit(model: BilinearClassifier, images: Images, recipe: Recipe, training: Training) -> None:
    options = {**vars(training), "noise": recipe.noise, "seed": recipe.seed}
    train_classifier(model, images.train, images.train_labels, Training(**options))


def read(recipe: Recipe, model: BilinearClassifier) -> Trained:
    """Decompose a classifier's class forms."""
    tensor = model.pixel_tensor()
    forms = tensor.quadratic_forms()
    spectra = forms.eigh()
    values, vectors = [s.values for s in spectra], [s.vectors for s in spectra]
    if not all(map(len, values)):
        raise ValueError("the weights collapsed to zero in training: take less weight decay")
    return Trained(recipe, model, tensor, list(forms), values, vectors)


def scores(images: Images, trained: Iterable[Trained]) -> pd.DataFrame:
    """Measure each classifier's accuracy, and what its spectra say of its training."""
    rows = []
    for t in trained:
        rows.append(
            {
                **t.recipe._asdict(),
                "train": accuracy(t.model, images.train, images.train_labels),
                "test": accuracy(t.model, images.test, images.test_labels),
                "rank": int(np.median([len(v) for v in t.values])),
                "effective_rank": np.mean([effective_rank(v).item() for v in t.values]),
                "energy_where_dark": _energy_where_dark(images, t),
                "roughness": np.mean([_roughness(images, v[0]) for v in t.vectors]),
            }
        )
    return pd.DataFrame(rows)


def truncation(images: Images, trained: Iterable[Trained]) -> pd.DataFrame:
    """Measure accuracy when every class keeps k eigenvectors, up to the numerical rank.

    Those of largest |value|; and beside it as many drawn at random: what the order is worth.
    """
    rows = []
    for t in trained:
        generator = torch.Generator().manual_seed(t.recipe.seed)
        orders: dict[str, list[Tensor]] = {
            "largest": [torch.arange(len(v)) for v in t.values],
            "random": [torch.randperm(len(v), generator=generator) for v in t.values],
        }
        x, labels = images.test.double(), images.test_labels
        most = max(len(v) for v in t.values)
        for kept, order in orders.items():
            partial = torch.zeros(len(x), most + 1, len(t.values))
            for c, (values, vectors) in enumerate(zip(t.values, t.vectors, strict=True)):
                terms = values[order[c]] * (x @ vectors[order[c]].T) ** 2
                sums = terms.cumsum(1)
                partial[:, 1 : len(values) + 1, c] = sums
                partial[:, len(values) + 1 :, c] = sums[:, -1:]
            right = (partial.argmax(2) == labels[:, None]).double().mean(0)
            rows += [
                {"seed": t.recipe.seed, "kept": kept, "k": k, "accuracy": right[k].item()}
                for k in range(1, most + 1)
            ]
    return pd.DataFrame(rows)


def similarity(pairs: Iterable[tuple[Trained, Trained]], top: int, what: str) -> pd.DataFrame:
    """Compare classifiers: their class forms, and their eigenvectors by rank.

    Each of the first eigenvectors of a class is compared with the most similar of the other
    classifier's first ``top`` of that class. Two networks of one seed are left out.
    """
    rows = []
    for a, b in pairs:
        if a.recipe.seed == b.recipe.seed:
            continue
        forms = [f.cosine(g).item() for f, g in zip(a.forms, b.forms, strict=True)]
        cosines = [
            (v[:top] @ w[:top].T).abs().amax(1) for v, w in zip(a.vectors, b.vectors, strict=True)
        ]
        same = "same width" if a.recipe.width == b.recipe.width else "different widths"
        for rank in range(min(top, *map(len, cosines))):
            rows.append(
                {
                    "what": f"{what}, {same}",
                    "seed": a.recipe.seed,
                    "other_seed": b.recipe.seed,
                    "width": a.recipe.width,
                    "other_width": b.recipe.width,
                    "rank": rank,
                    "eigenvectors": np.mean([c[rank].item() for c in cosines]),
                    "forms": np.mean(forms),
                }
            )
    return pd.DataFrame(rows)


def completeness(trained: Iterable[Trained], most: int) -> pd.DataFrame:
    """Measure the share of a class's form in its own, and in other classes', eigenvectors."""
    rows = []
    for t in trained:
        table = cross_completeness(t.forms, most)
        own = torch.eye(len(table), dtype=torch.bool)
        for k in range(most):
            of = {"own": table[own, k].mean().item(), "others": table[~own, k].mean().item()}
            rows += [
                {"seed": t.recipe.seed, "k": k + 1, "eigenvectors": name, "share": share}
                for name, share in of.items()
            ]
    return pd.DataFrame(rows)


def decompositions(
    images: Images, trained: Iterable[Trained], ranks: Sequence[int], steps: int
) -> pd.DataFrame:
    """Measure accuracy and error of each decomposition of the tensors as its size grows."""
    x, labels = images.test.double(), images.test_labels
    rows = []
    for t in trained:
        for name, size, tensor, energy in _decomposed(t.tensor, ranks, steps):
            row = {"seed": t.recipe.seed, "decomposition": name, "size": size, "energy": energy}
            rows.append({**row, "accuracy": accuracy(tensor, x, labels)})
    return pd.DataFrame(rows)


def _decomposed(
    tensor: BilinearTensor, ranks: Sequence[int], steps: int
) -> Iterator[tuple[str, int, BilinearTensor, float]]:
    """Yield decompositions: name, size, what is kept, and its share of the squared norm."""
    total = tensor.norm**2
    components = hosvd(tensor)
    for k in range(1, len(components.outputs) + 1):
        missing = components.error(k) ** 2 / total
        yield "HOSVD components", k, components.truncate(k), 1 - missing.item()
    terms = components.interactions()
    most = int(terms.components.unique(return_counts=True)[1].max())
    for k in [k for k in ranks if k <= most]:
        kept = terms.keep(k)
        missing = kept.error**2 / total
        yield "eigenvectors of each component", k, kept.tensor(), 1 - missing.item()
    for k in [k for k in ranks if k <= tensor.in_features]:
        tucker = tucker2(tensor, k)
        yield "Tucker-2 directions", k, tucker.tensor(), tucker.share.item()
    for k in ranks:
        cp = fit_cp(tensor, k, steps=steps)
        yield "CP terms", k, cp.tensor(), cp.cosine**2


def depth(images: Images, model: BilinearClassifier, ranks: Sequence[int]) -> pd.DataFrame:
    """Measure what is ignored of a deep classifier by deep HOSVD, and by eigenvector chains.

    R² is of the logits on test images, of chains the mean over classes; accuracy is that of the
    predicted logits.
    """
    stack, x, labels = model.stack(), images.test, images.test_labels
    with torch.no_grad():
        true = stack(x)
    convs = BilinearStack([as_convolutional(stage) for stage in stack.stages])
    inputs = x.double()[:, :, None, None]
    rows = []

    def add(by: str, kept: int, logits: Float[Tensor, "n classes"]) -> None:
        parts = [r_squared(t, p) for t, p in zip(true.T, logits.T, strict=True)]
        right = (logits.argmax(1) == labels).double().mean().item()
        rows.append({"by": by, "kept": kept, "r2": np.mean(parts), "accuracy": right})

    for k in ranks:
        add("deep HOSVD", k, deep_hosvd(stack, k)(x))
    for k in [k for k in ranks if k <= 16]:  # a chain has k² directions
        maps = [chain(convs, u, filters=k)(inputs) for u in torch.eye(true.shape[1])]
        add("eigenvector chain", k, torch.stack(maps, dim=1).flatten(1))
    return pd.DataFrame(rows)


def attacks(
    images: Images, trained: Iterable[Trained], sizes: Sequence[float], repeats: int
) -> pd.DataFrame:
    """Measure accuracy under every class's mask, whole or in the dark, beside noise of equal norm.

    In the dark: only where few training images are lit, off the digits. Sizes are in units of the
    mean norm of an image. A mask's sign is free: the stronger one on training images is taken.
    """
    unit = images.test.norm(dim=1).mean().item()
    norms = [size * unit for size in sizes]
    dark = (_dark(images)).double()
    rows = []
    for t in trained:
        found = masks_of(t)
        for c in sorted(set(found.classes.tolist())):
            for where, mask in (("whole", found.of(c)), ("dark", dark * found.of(c))):
                if not mask.any():
                    continue
                seen = images.train[:1000], images.train_labels[:1000]
                trial = attack_curve(t.model, *seen, mask, c, [unit / 2, -unit / 2], repeats=1)
                sign = 1 if trial.masked[0] <= trial.masked[1] else -1
                curve = attack_curve(
                    t.model,
                    images.test,
                    images.test_labels,
                    sign * mask,
                    c,
                    norms,
                    repeats=repeats,
                    seed=t.recipe.seed,
                )
                made = {"trained_noise": t.recipe.noise, "seed": t.recipe.seed}
                rows += [
                    {
                        **made,
                        "class": c,
                        "where": where,
                        "size": size,
                        "masked": curve.masked[i].item(),
                        "noise": curve.noisy[:, i].mean().item(),
                        "towards": curve.towards[i].item(),
                    }
                    for i, size in enumerate(sizes)
                ]
    return pd.DataFrame(rows)


def masks_of(trained: Trained) -> QuadraticMasks:
    """Return the masks of a classifier: one for each class, from its embedding's side."""
    return quadratic_masks(
        list(trained.model.class_forms()), embedding=trained.model.embedding.weight.detach()
    )


def with_intervals(table: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Return mean, low, high of a column over seeds, for each group (`t_interval`)."""
    per_seed = table.groupby([*by, "seed"], sort=False)[value].mean().reset_index()
    rows = []
    for key, group in per_seed.groupby(by, sort=False):
        mean, low, high = t_interval(group[value])
        rows.append({**dict(zip(by, key, strict=True)), "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def _dark(images: Images) -> Bool[Tensor, "pixels"]:
    """Return the pixels that fewer than 5 % of the training images light."""
    return (images.train > 0.1).float().mean(0) < 0.05


def _energy_where_dark(images: Images, trained: Trained) -> float:
    """Return the share of the classes' first eigenvectors in the dark.

    A network that fits chance puts weight where a pixel is lit in a few training images only.
    """
    first = torch.stack([vectors[0] for vectors in trained.vectors])
    return (first[:, _dark(images)] ** 2).sum(1).mean().item()


def _roughness(images: Images, vector: Float[Tensor, "pixels"]) -> float:
    """Return the squared differences of neighbouring pixels, over those of white noise."""
    picture = vector.reshape(images.shape)
    rough = picture.diff(dim=0).square().mean() + picture.diff(dim=1).square().mean()
    return (rough / (4 * picture.square().mean())).item()
