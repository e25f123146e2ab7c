"""Images: scikit-learn's bundled digits, MNIST and Fashion-MNIST by name, or any IDX files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.error import URLError

import numpy as np
import sklearn.datasets
import torch
from jaxtyping import Float, Int
from sklearn.model_selection import train_test_split
from torch import Tensor

from rlbilinear.studies.images.idx import find_idx, read_images

DataName = Literal["digits", "mnist", "fashion-mnist"]
OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}
"""Their names in scikit-learn's ``fetch_openml``."""
TORCHVISION = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}
"""Where torchvision's datasets put their IDX files, below their ``root``."""
DIGITS_FOR_TESTING, OPENML_FOR_TESTING = 540, 10_000


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


def load(source: str | Path, *, seed: int = 0, limit: int | None = None) -> Images:
    """Load images and split them.

    Args:
        source: a name, or a folder.

            - ``digits`` come with scikit-learn: 1,797 of 8 x 8 pixels, of which 540 drawn by
              ``seed`` are for testing.
            - ``mnist`` and ``fashion-mnist`` are fetched by `sklearn.datasets.fetch_openml`, which
              keeps what it once fetched; their last 10,000 images are for testing, as published.
            - A folder holds the four IDX files, gzipped or not; or it is the ``root`` of
              torchvision's datasets, or scikit-learn's data folder, with one of the two sets.
        seed: of the digits' split.
        limit: train on so many images only.

    Raises:
        ValueError: another name, or a folder without images, with two sets, or with files that are
            not in order.
        OSError: the images cannot be fetched or read.
    """
    if str(source) == "digits":
        images = _digits(seed)
    elif str(source) in OPENML:
        images = _fetched(str(source), None)
    elif Path(source).is_dir():
        images = _in_folder(Path(source))
    else:
        raise ValueError(
            f"unknown data {str(source)!r}; choose from {', '.join(get_args(DataName))}, "
            "or give a folder of IDX files"
        )
    return Images(
        images.name,
        images.shape,
        images.train[:limit],
        images.train_labels[:limit],
        images.test,
        images.test_labels,
    )


def _digits(seed: int) -> Images:
    bunch = sklearn.datasets.load_digits()
    pixels, labels = bunch.data.astype(np.float32) / 16, bunch.target
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=DIGITS_FOR_TESTING, stratify=labels, random_state=seed
    )
    return _images("digits", (8, 8), pixels[train], labels[train], pixels[test], labels[test])


def _in_folder(folder: Path) -> Images:
    """Read the one set of images that is in a folder."""
    places = {name: folder / inner for name, inner in TORCHVISION.items()}
    if find_idx(folder):
        return _from_idx(folder.absolute().name, folder)
    kept = {name: place for name, place in places.items() if find_idx(place)}
    cached = {name for name in OPENML if _cached(folder, name)} - kept.keys()
    if len(kept) + len(cached) > 1:
        raise ValueError(f"{folder} holds both mnist and fashion-mnist; give a folder with one")
    for name, place in kept.items():
        return _from_idx(name, place)
    for name in cached:
        return _fetched(name, folder)
    raise ValueError(
        f"{folder} holds no images: expected train-images-idx3-ubyte and the other three IDX files "
        f"(each may end in .gz), in it or in {' or '.join(TORCHVISION.values())}, "
        "or scikit-learn's copy of MNIST or Fashion-MNIST"
    )


def _from_idx(name: str, folder: Path) -> Images:
    arrays = read_images(folder)
    rows, columns = arrays["train"].shape[1:]
    train, test = (
        arrays[kind].reshape(len(arrays[kind]), -1).astype(np.float32) / 255
        for kind in ("train", "test")
    )
    return _images(
        name, (rows, columns), train, arrays["train_labels"], test, arrays["test_labels"]
    )


def _cached(folder: Path, name: str) -> bool:
    """Whether scikit-learn keeps a copy of a set below its data folder."""
    return any((folder / "openml").glob(f"**/{OPENML[name]}/**/*.gz"))


def _fetched(name: str, data_home: Path | None) -> Images:
    try:
        bunch = sklearn.datasets.fetch_openml(
            OPENML[name], version=1, as_frame=False, parser="auto", data_home=data_home
        )
    except (URLError, OSError) as error:
        place = sklearn.datasets.get_data_home(data_home)
        raise OSError(
            f"cannot fetch {name}: {error}. It is downloaded once and kept in {place}; without a "
            "network give --data a folder with its IDX files, or use --data digits"
        ) from error
    pixels, labels = bunch.data.astype(np.float32) / 255, np.asarray(bunch.target, np.int64)
    train, test = np.split(np.arange(len(pixels)), [len(pixels) - OPENML_FOR_TESTING])
    return _images(name, (28, 28), pixels[train], labels[train], pixels[test], labels[test])


def _images(
    name: str,
    shape: tuple[int, int],
    train: Float[np.ndarray, "n pixels"],
    train_labels: np.ndarray,
    test: Float[np.ndarray, "m pixels"],
    test_labels: np.ndarray,
) -> Images:
    return Images(
        name,
        shape,
        torch.from_numpy(train),
        torch.from_numpy(train_labels.astype(np.int64)),
        torch.from_numpy(test),
        torch.from_numpy(test_labels.astype(np.int64)),
    )
