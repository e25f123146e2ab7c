"""Classifiers of images with an elementwise activation, kept at checkpoints through training."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from rlbilinear.classifiers import Training, train_classifier
from rlbilinear.studies.images.data import Images

MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
"""Activations that a classifier may have."""


class Checkpoint(NamedTuple):
    """A classifier after so many steps."""

    step: int
    network: nn.Sequential


@dataclass(frozen=True, eq=False)
class History:
    """A classifier through training: the first checkpoint is untrained, the last is the result."""

    seed: int
    checkpoints: list[Checkpoint]

    @property
    def trained(self) -> nn.Sequential:
        """The classifier after the last step."""
        return self.checkpoints[-1].network


def mlp(inputs: int, classes: int, hidden: Sequence[int], activation: str) -> nn.Sequential:
    """Make a classifier; its initial weights are drawn from torch's generator.

    Raises:
        ValueError: unknown activation; the choices are listed.
    """
    if activation not in MODULES:
        raise ValueError(f"unknown activation {activation!r}; choose from {', '.join(MODULES)}")
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = []
    for before, after in zip(sizes, hidden, strict=False):
        layers += [nn.Linear(before, after), MODULES[activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def train(
    images: Images,
    hidden: Sequence[int],
    activation: str,
    training: Training,
    checkpoints: int = 0,
) -> History:
    """Train a classifier from the training's seed, and keep it on the way.

    Args:
        images: to train on.
        hidden: widths of the hidden layers.
        activation: one of `MODULES`.
        training: how, and with which seed.
        checkpoints: besides the first and the last, at steps in equal ratios.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        pixels = images.shape[0] * images.shape[1]
        network = mlp(pixels, images.classes, hidden, activation)
    steps = training.epochs * -(-len(images.train) // training.batch)
    wanted = {*np.geomspace(1, steps, checkpoints + 1).round().astype(int).tolist()} - {steps}
    kept = [Checkpoint(0, copy.deepcopy(network))]

    def keep(step: int) -> None:
        if step in wanted and checkpoints:
            kept.append(Checkpoint(step, copy.deepcopy(network)))

    train_classifier(network, images.train, images.train_labels, training, on_step=keep)
    return History(training.seed, [*kept, Checkpoint(steps, network)])


def train_several(
    images: Images,
    hidden: Sequence[int],
    activation: str,
    training: Training,
    seeds: Sequence[int],
    checkpoints: int = 0,
) -> list[History]:
    """Train a classifier from each seed."""
    return [
        train(images, hidden, activation, replace(training, seed=seed), checkpoints)
        for seed in seeds
    ]
