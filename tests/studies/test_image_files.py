"""Images from IDX files, torchvision's folders and scikit-learn's copies."""

import gzip
import struct

import numpy as np
import pytest
import sklearn.datasets

from rlbilinear.studies.images.data import load
from rlbilinear.studies.images.idx import FILES, read_idx

DRAW = np.random.default_rng(0)
SET = {
    "train": DRAW.integers(0, 256, (6, 5, 4), np.uint8),
    "train_labels": np.arange(6, dtype=np.uint8) % 3,
    "test": DRAW.integers(0, 256, (4, 5, 4), np.uint8),
    "test_labels": np.arange(4, dtype=np.uint8) % 3,
}


def idx(array):
    return b"\0\0\x08" + struct.pack(f">B{array.ndim}I", array.ndim, *array.shape) + array.tobytes()


def write(folder, suffix="", dot=False, arrays=SET):
    folder.mkdir(parents=True, exist_ok=True)
    for what, name in FILES.items():
        content = idx(arrays[what])
        name = name.replace("-idx", ".idx") if dot else name
        content = gzip.compress(content) if suffix else content
        (folder / f"{name}{suffix}").write_bytes(content)
    return folder


def same(images):
    assert images.shape == (5, 4) and images.classes == 3
    for ours, theirs in (("train", images.train), ("test", images.test)):
        expected = SET[ours].reshape(len(SET[ours]), 20).astype(np.float32) / 255
        np.testing.assert_array_equal(theirs.numpy(), expected)
    assert images.train_labels.tolist() == SET["train_labels"].tolist()
    assert images.test_labels.tolist() == SET["test_labels"].tolist()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", [False, True])
def test_a_folder_of_idx_files(tmp_path, suffix, dot):
    images = load(write(tmp_path / "my-digits", suffix, dot))
    same(images)
    assert images.name == "my-digits"
    assert len(load(tmp_path / "my-digits", limit=2).train) == 2


@pytest.mark.parametrize(
    ("inner", "name"), [("MNIST/raw", "mnist"), ("FashionMNIST/raw", "fashion-mnist")]
)
def test_torchvisions_root(tmp_path, inner, name):
    write(tmp_path / inner)
    images = load(str(tmp_path))
    same(images)
    assert images.name == name


def test_two_sets_in_one_folder_are_not_chosen_from(tmp_path):
    write(tmp_path / "MNIST" / "raw")
    write(tmp_path / "FashionMNIST" / "raw")
    with pytest.raises(ValueError, match="holds both mnist and fashion-mnist"):
        load(tmp_path)


def test_scikit_learns_copy(tmp_path, monkeypatch):
    copy = tmp_path / "openml" / "openml.org" / "data" / "list" / "mnist_784" / "x.gz"
    copy.parent.mkdir(parents=True)
    copy.touch()
    asked = []

    def fetch(name, *, version, as_frame, parser, data_home):
        asked.append((name, data_home))
        pixels = np.zeros((10_005, 784))
        return sklearn.utils.Bunch(data=pixels, target=["1"] * 10_005)

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    images = load(tmp_path)
    assert asked == [("mnist_784", tmp_path)]
    assert images.name == "mnist" and len(images.train) == 5 and len(images.test) == 10_000


def change(folder, what, content):
    (folder / FILES[what]).write_bytes(content)


@pytest.mark.parametrize(
    ("what", "content", "words"),
    [
        ("train", idx(SET["train"])[:-1], "truncated or altered: an IDX file of shape"),
        ("train", idx(SET["train"]) + b"\0", "truncated or altered"),
        ("train", b"\0\0\x08\x03\0", "truncated: it ends within the 16 bytes"),
        ("train", b"", "is not an IDX file of unsigned bytes"),
        ("train", b"PK\3\4 something else", "is not an IDX file of unsigned bytes"),
        ("train", b"\0\0\x0d\x01" + bytes(8), "is not an IDX file of unsigned bytes"),
        ("train", idx(SET["train_labels"]), "expected .n, rows, columns. and .n,."),
        ("test_labels", idx(SET["train_labels"]), "expected .n, rows, columns. and .n,."),
        ("test", idx(SET["test"][:, :3]), "for testing .3, 4."),
        ("test_labels", idx(np.full(4, 7, np.uint8)), "no training images"),
    ],
)
def test_files_that_are_not_in_order_are_named(tmp_path, what, content, words):
    change(write(tmp_path), what, content)
    with pytest.raises(ValueError, match=words):
        load(tmp_path)


def test_a_damaged_gzip_file_is_named(tmp_path):
    file = tmp_path / "a.gz"
    for content in (b"no gzip", gzip.compress(idx(SET["train"]))[:-9]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.gz is truncated or no gzip file"):
            read_idx(file)


def test_missing_files_are_listed(tmp_path):
    write(tmp_path)
    (tmp_path / FILES["test"]).unlink()
    (tmp_path / FILES["test_labels"]).unlink()
    with pytest.raises(ValueError, match="lacks t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"):
        load(tmp_path)


def test_other_folders_and_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no images: expected train-images-idx3-ubyte"):
        load(tmp_path)
    with pytest.raises(ValueError, match="unknown data 'cifar'; choose from digits, mnist"):
        load("cifar")
