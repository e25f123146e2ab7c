"""Images: scikit-learn's bundled digits, and MNIST and Fashion-MNIST where there is a network."""

from dataclasses import dataclass
from typing import Literal, get_args
from urllib.error import URLError

import numpy as np
import sklearn.datasets
import torch
from jaxtyping import Float, Int
from sklearn.model_selection import train_test_split
from torch import Tensor

DataName = Literal["digits", "mnist", "fashion-mnist"]
_OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}
_TEST = {"digits": 540, "mnist": 10_000, "fashion-mnist": 10_000}


@dataclass(frozen=True, eq=False)
class Images:
    """Flattened images with values in [0, 1] and their labels, those for testing kept apart."""

    name: str
    shape: tuple[int, int]
    train: Float[Tensor, "n pixels"]
    train_labels: Int[Tensor, "n"]
    test: Float[Tensor, "m pixels"]
    test_labels: Int[Tensor, "m"]

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.train_labels.max()) + 1


def load(name: DataName, *, seed: int = 0, limit: int | None = None) -> Images:
    """Load images and split them.

    The digits come with scikit-learn (1,797 of 8 x 8 pixels; 540 drawn by ``seed`` are for
    testing). The others are fetched by `sklearn.datasets.fetch_openml`, which keeps what it once
    fetched; their last 10,000 images are for testing, as published.

    Args:
        name: digits, mnist, or fashion-mnist.
        seed: of the digits' split.
        limit: train on so many images only.

    Raises:
        ValueError: another name.
        OSError: the images cannot be fetched.
    """
    if name not in get_args(DataName):
        raise ValueError(f"unknown data {name!r}; choose from {', '.join(get_args(DataName))}")
    if name == "digits":
        bunch = sklearn.datasets.load_digits()
        x, y, side = bunch.data.astype(np.float32) / 16, bunch.target, 8
        train, test = train_test_split(
            np.arange(len(x)), test_size=_TEST[name], stratify=y, random_state=seed
        )
    else:
        bunch = _fetch(name)
        x, y, side = bunch.data.astype(np.float32) / 255, bunch.target, 28
        train, test = np.split(np.arange(len(x)), [len(x) - _TEST[name]])
    train = train[:limit]
    images = torch.from_numpy(x)
    labels = torch.tensor(np.asarray(y, np.int64))
    return Images(name, (side, side), images[train], labels[train], images[test], labels[test])


def _fetch(name: str) -> sklearn.utils.Bunch:
    try:
        return sklearn.datasets.fetch_openml(
            _OPENML[name], version=1, as_frame=False, parser="auto"
        )
    except (URLError, OSError) as error:
        raise OSError(
            f"cannot fetch {name}: {error}. It is downloaded once and kept in "
            f"{sklearn.datasets.get_data_home()}; without a network use --data digits"
        ) from error
