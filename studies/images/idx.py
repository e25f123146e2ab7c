"""Images in IDX files, the format MNIST is published in, gzipped or not.

A file is four bytes (two zeros, the type of the numbers, how many dimensions), the dimensions as
big-endian 32-bit numbers, and the numbers, row by row. http://yann.lecun.com/exdb/mnist/
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

UNSIGNED_BYTE = 8
"""Code of the only type of numbers that image sets use."""

FILES = {
    "train": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
"""The usual names. Some copies have a dot before ``idx``, and most end in ``.gz``."""


def read_idx(file: Path) -> UInt8[np.ndarray, "*shape"]:
    """Read a file of unsigned bytes.

    Args:
        file: gzipped when its name ends in ``.gz``.

    Raises:
        ValueError: it is not such a file, or is truncated or too long.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is truncated or no gzip file: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE:
        raise ValueError(
            f"{file} is not an IDX file of unsigned bytes: those begin with the bytes 0 0 "
            f"{UNSIGNED_BYTE}, this one with {' '.join(map(str, content[:3])) or 'none'}"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{file} is truncated: it ends within the {start} bytes of its header")
    shape = tuple(map(int, np.frombuffer(content[4:start], ">u4")))
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise ValueError(
            f"{file} is truncated or altered: an IDX file of shape {shape} has {expected} bytes, "
            f"this one {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def find_idx(folder: Path) -> dict[str, Path]:
    """Return the files of `FILES` in a folder, by what they hold; those that are missing are not.

    Both the file and its gzipped copy may be there: the file is taken.
    """
    found: dict[str, Path] = {}
    for what, name in FILES.items():
        for spelling in (name, name.replace("-idx", ".idx")):
            for file in (folder / spelling, folder / f"{spelling}.gz"):
                if file.is_file():
                    found.setdefault(what, file)
    return found


def read_images(folder: Path) -> dict[str, UInt8[np.ndarray, "*shape"]]:
    """Read images and labels for training and testing: the keys of `FILES`.

    Raises:
        ValueError: a file is missing or not in order, or the files do not fit each other.
    """
    files = find_idx(folder)
    if missing := [FILES[what] for what in FILES if what not in files]:
        raise ValueError(f"{folder} lacks {', '.join(missing)} (each may end in .gz)")
    arrays = {what: read_idx(file) for what, file in files.items()}
    for kind in ("train", "test"):
        images, labels = arrays[kind], arrays[f"{kind}_labels"]
        if images.ndim != 3 or labels.shape != images.shape[:1] or not images.size:
            raise ValueError(
                f"{files[kind]} has shape {images.shape} and {files[f'{kind}_labels'].name} "
                f"{labels.shape}; expected (n, rows, columns) and (n,)"
            )
    if arrays["train"].shape[1:] != arrays["test"].shape[1:]:
        raise ValueError(
            f"{folder}: images for training are {arrays['train'].shape[1:]}, "
            f"for testing {arrays['test'].shape[1:]}"
        )
    if arrays["test_labels"].max() > arrays["train_labels"].max():
        raise ValueError(f"{folder}: a class of the test images has no training images")
    return arrays
