"""Measurements of classifiers and their approximants: tables, without drawing.

A row is of one seed, so that intervals are over networks.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear import Polynomial, QuadraticForm, approximate, estimate_gaussian
from rlbilinear.adversarial import (
    QuadraticMasks,
    attack_curve,
    quadratic_masks,
    singular_directions,
    without_directions,
)
from rlbilinear.classifiers import accuracy
from rlbilinear.layer_subsets import compare_outputs, sweep_subsets
from rlbilinear.studies.images.data import Images
from rlbilinear.studies.polynomials.classifiers import History
from rlbilinear.swapping import group_layers, replaceable

NAMES = ("constant", "linear", "quadratic", "cubic", "quartic")
"""of approximants, by degree"""


@dataclass(frozen=True, eq=False)
class Approximated:
    """A classifier with one hidden layer, and its best polynomial under the training images."""

    seed: int
    network: nn.Sequential
    polynomial: Polynomial

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the network, its best linear function and its best quadratic, by name."""
        return {
            "network": self.network,
            "linear": self.polynomial.truncate(1),
            "quadratic": self.polynomial.truncate(2),
        }


def approximated(images: Images, histories: Iterable[History], degree: int) -> list[Approximated]:
    """Approximate trained classifiers under the mean and covariance of the training images."""
    gaussian = estimate_gaussian(images.train)
    return [
        Approximated(h.seed, h.trained, approximate(h.trained, degree, *gaussian))
        for h in histories
    ]


def r2(images: Images, found: Iterable[Approximated]) -> pd.DataFrame:
    """R² of each class's logit by degree: in closed form, and measured on the test images."""
    tables = [
        each.polynomial.r2_on(images.test).table().assign(seed=each.seed).query("degree > 0")
        for each in found
    ]
    return pd.concat(tables, ignore_index=True).rename(columns={"output": "class"})


def through_training(images: Images, histories: Iterable[History], degree: int = 4) -> pd.DataFrame:
    """R² of approximants of every degree at each checkpoint, and what they predict.

    Returns:
        A row for each seed, checkpoint and degree from 1 on: ``gaussian_r2`` and ``measured_r2``
        (on test images; means over the classes' logits, each centred), ``kl`` of the approximant
        from the network in nats and ``agreement`` of the predicted class, ``accuracy`` and ``loss``
        (cross-entropy in nats, on test images) of the approximant, and of the network
        ``network_accuracy``, ``network_train_accuracy`` and ``network_loss``.
    """
    gaussian = estimate_gaussian(images.train)
    rows = []
    for history in histories:
        for step, network in history.checkpoints:
            polynomial = approximate(network, degree, *gaussian)
            both = polynomial.r2_on(images.test)
            own = accuracy(network, images.test, images.test_labels)
            learned = accuracy(network, images.train, images.train_labels)
            loss = _loss(network, images)
            for n in range(1, degree + 1):
                truncated = polynomial.truncate(n)
                found = compare_outputs(network, truncated, images.test, images.test_labels)
                rows.append(
                    {
                        "seed": history.seed,
                        "step": step,
                        "degree": n,
                        "gaussian_r2": both.gaussian[n].mean().item(),
                        "measured_r2": both.measured[n].mean().item(),
                        "kl": found.kl,
                        "agreement": found.agreement,
                        "finite": found.finite,
                        "accuracy": found.accuracy,
                        "loss": _loss(truncated, images),
                        "network_accuracy": own,
                        "network_train_accuracy": learned,
                        "network_loss": loss,
                    }
                )
    return pd.DataFrame(rows)


def _loss(predict: Callable[[Tensor], Tensor], images: Images) -> float:
    """Return the mean cross-entropy of logits on the test images, in nats."""
    with torch.no_grad():
        return nn.functional.cross_entropy(predict(images.test), images.test_labels).item()


def layers(
    images: Images, histories: Iterable[History], degrees: Sequence[int] = (1, 2)
) -> pd.DataFrame:
    """Every subset of a deep classifier's layers replaced, with statistics re-estimated or not."""
    tables = []
    for history in histories:
        network = group_layers(history.trained)
        table = sweep_subsets(
            network,
            replaceable(network),
            degrees,
            images.train,
            images.test,
            images.test_labels,
        )
        tables.append(table.assign(seed=history.seed))
    return pd.concat(tables, ignore_index=True)


def removals(images: Images, found: Iterable[Approximated], repeats: int) -> pd.DataFrame:
    """Accuracy when directions are taken out of the inputs, against noise of equal norm.

    Directions are the right singular vectors of the linear approximant's weights, the most
    important first; beside them as many drawn at random, and as many principal components of the
    training images, which carry much more of an image's norm. Each image gets noise of the norm
    that was taken out of it.

    Returns:
        A row for each seed, predictor, kind of directions and k: ``accuracy``; ``noise``, under
        noise of equal norm; ``norm``, the share of an image's norm that is taken out, in the mean.
    """
    x, labels = images.test, images.test_labels
    principal = torch.linalg.svd(images.train - images.train.mean(0), full_matrices=False)[2]
    rows = []
    for each in found:
        generator = torch.Generator().manual_seed(each.seed)
        singular = singular_directions(each.polynomial.coefficients(1))
        drawn = torch.randn(x.shape[1], len(singular), generator=generator)
        random = torch.linalg.qr(drawn)[0].T
        kinds = {"linear approximant": singular, "random": random, "principal": principal}
        for kind, directions in kinds.items():
            for k in range(len(singular) + 1):
                less = without_directions(x, directions[:k])
                size = (x - less).norm(dim=1, keepdim=True)
                noisy = [_with_noise(x, size, generator) for _ in range(repeats)]
                for name, predict in each.predictors().items():
                    under = [accuracy(predict, some, labels) for some in noisy]
                    rows.append(
                        {
                            "seed": each.seed,
                            "predictor": name,
                            "directions": kind,
                            "k": k,
                            "accuracy": accuracy(predict, less, labels),
                            "noise": sum(under) / repeats,
                            "norm": (size / x.norm(dim=1, keepdim=True)).mean().item(),
                        }
                    )
    return pd.DataFrame(rows)


def masks_of(each: Approximated) -> dict[str, QuadraticMasks]:
    """Return masks of every class's first positive eigenvector, by what they are read from.

    ``quadratic part`` is the quadratic approximant's form alone. A network close to linear has
    little in it, so ``with linear part`` takes the whole quadratic as a form of ``(x - mean, 1)``,
    whose eigenvectors lean along the class's linear part; the last coordinate is dropped.
    """
    quadratic = each.polynomial.truncate(2)
    forms = [quadratic.quadratic_form(row) for row in torch.eye(quadratic.out_features)]
    whole = quadratic_masks([homogeneous(f, quadratic.gaussian.mean) for f in forms])
    pixels = whole.masks[:, :-1]
    return {
        "quadratic part": quadratic_masks(forms),
        "with linear part": replace(whole, masks=pixels / pixels.norm(dim=1, keepdim=True)),
    }


def homogeneous(form: QuadraticForm, centre: Float[Tensor, "inputs"]) -> QuadraticForm:
    """Return a form as one of ``(x - centre, 1)`` without linear part, up to its constant."""
    centre = centre.to(form.left)
    left, right = (nn.functional.pad(f, (0, 1)) for f in (form.left, form.right))
    one = nn.functional.one_hot(torch.tensor([len(centre)]), len(centre) + 1).to(left)
    line = nn.functional.pad(form.gradient(centre), (0, 1))[None]
    return QuadraticForm(
        torch.cat([left, line]),
        torch.cat([right, one]),
        nn.functional.pad(form.weight, (0, 1), value=1.0),
        torch.zeros_like(line[0]),
        torch.zeros_like(form.constant),
    )


def masked(
    images: Images, found: Iterable[Approximated], sizes: Sequence[float], repeats: int
) -> pd.DataFrame:
    """Accuracy under every class's first mask, against Gaussian noise of equal norm.

    The masks are read off the quadratic approximant and given to the network as well. Sizes are in
    units of the mean norm of an image. Of both signs of a mask, between which its form does not
    tell, the one stronger against the network is taken, chosen on training images.

    Returns:
        A row for each seed, kind of mask (``masks``), predictor, class and size: ``masked`` and
        ``noise`` (accuracies), and ``towards``, the share of other classes' images that are taken
        for the mask's class.
    """
    unit = images.test.norm(dim=1).mean().item()
    rows = []
    for each in found:
        for kind, masks in masks_of(each).items():
            for c in sorted(set(masks.classes.tolist())):
                mask = _stronger_sign(images, each, masks.of(c), c, unit / 2)
                for name, predict in each.predictors().items():
                    curve = attack_curve(
                        predict,
                        images.test,
                        images.test_labels,
                        mask,
                        c,
                        [size * unit for size in sizes],
                        repeats=repeats,
                        seed=each.seed,
                    )
                    rows += [
                        {
                            "seed": each.seed,
                            "masks": kind,
                            "predictor": name,
                            "class": c,
                            "size": size,
                            "masked": curve.masked[i].item(),
                            "noise": curve.noisy[:, i].mean().item(),
                            "towards": curve.towards[i].item(),
                        }
                        for i, size in enumerate(sizes)
                    ]
    return pd.DataFrame(rows)


def _stronger_sign(
    images: Images, each: Approximated, mask: Float[Tensor, "pixels"], c: int, size: float
) -> Float[Tensor, "pixels"]:
    some = slice(1000)
    tried = attack_curve(
        each.network,
        images.train[some],
        images.train_labels[some],
        mask,
        c,
        [size, -size],
        repeats=1,
    )
    return mask if tried.masked[0] <= tried.masked[1] else -mask


def _with_noise(
    x: Float[Tensor, "n inputs"], size: Float[Tensor, "n 1"], generator: torch.Generator
) -> Float[Tensor, "n inputs"]:
    noise = torch.randn(x.shape, generator=generator).to(x)
    return x + size * noise / noise.norm(dim=1, keepdim=True)
