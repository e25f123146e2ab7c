"""`rlbilinear images --quick` whole, and its parts where they can be known."""

import json
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    from rlbilinear.commands.images import main

    out = tmp_path_factory.mktemp("images") / "results"
    main(["--out", str(out), "--quick", "--no-progress"])
    return out


def test_every_figure_and_table_is_written(results):
    figures = "spectra eigenvectors completeness truncation decompositions hosvd cp similarity"
    figures += " overfitting adversarial depth gates"
    assert {p.stem for p in results.glob("*.png")} == set(figures.split())
    for path in results.glob("*.png"):
        assert imread(path)[::4, ::4, 0].std() > 0.05, path
    made = json.loads((results / "images.json").read_text())
    assert made["options"]["seeds"] == 2 and made["versions"]["torch"]
    assert not {"/", "\\"} & set(made["options"]["out"])


def test_the_numbers_are_those_of_trained_networks(results):
    scores = pd.read_csv(results / "scores.csv")
    assert scores.test.mean() > 0.8
    cut = pd.read_csv(results / "truncation.csv")
    whole = cut[cut.k == cut.k.max()]
    base = scores[(scores.width == 24) & (scores.noise == 0.2)]
    assert cut.k.max() == base["rank"].max() == 24
    for seed, group in whole.groupby("seed"):
        expected = base[base.seed == seed].test.item()
        assert group.accuracy.to_numpy() == pytest.approx(expected, abs=2 / 540)
    gates = pd.read_csv(results / "gates.csv")
    assert (gates.largest_error < 0.1).all()
    attack = pd.read_csv(results / "adversarial.csv")
    by_size = attack[attack["where"] == "whole"].groupby("size")[["masked", "noise"]].mean()
    assert by_size.loc[0.0].masked == pytest.approx(by_size.loc[0.0].noise)
    assert by_size.loc[1.0].masked < by_size.loc[1.0].noise


def test_results_are_not_replaced_unasked(results, ends):
    from rlbilinear.commands.images import main

    assert "exists; choose another place" in ends(2, main, ["--out", str(results), "--quick"])


def test_data_that_cannot_be_had_is_said(monkeypatch):
    from rlbilinear.studies.images import data

    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(data.sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(OSError, match=r"cannot fetch mnist: .*no route.*use --data digits"):
        data.load("mnist")
    with pytest.raises(ValueError, match="choose from digits, mnist, fashion-mnist"):
        data.load("cifar")


def test_large_sets_are_split_as_published(monkeypatch):
    """In the format of `fetch_openml`, where labels are text; fewer images for training."""
    from rlbilinear.studies.images import data

    asked = []

    def fetch(name, **options):
        asked.append((name, options["version"]))
        pixels = np.zeros((10_060, 784), np.uint8)
        pixels[:, 0] = 255
        labels = np.array([str(i % 10) for i in range(10_060)], object)
        return data.sklearn.utils.Bunch(data=pixels, target=labels)

    monkeypatch.setattr(data.sklearn.datasets, "fetch_openml", fetch)
    images = data.load("fashion-mnist", limit=50)
    assert asked[:1] == [("Fashion-MNIST", 1)]
    assert images.train.shape == (50, 784) and images.test.shape == (10_000, 784)
    assert images.shape == (28, 28) and images.classes == 10
    assert images.train.max() == 1 and images.test_labels[:3].tolist() == [0, 1, 2]
    assert len(data.load("mnist").train) == 60


def test_the_digits_are_split_once_and_for_all():
    from rlbilinear.studies.images.data import load

    first, again = load("digits"), load("digits")
    assert len(first.train) == 1257 and len(first.test) == 540
    assert first.train.equal(again.train)
    together = torch.cat([first.train, first.test]).unique(dim=0)
    assert len(together) > 1790  # no image on both sides, but for a few that are the same


def test_known_gates_compute_the_gates():
    from rlbilinear.studies.images.toys import all_inputs, gate_outputs, known_matrices

    x = all_inputs().double()
    values = torch.einsum("ni,gij,nj->ng", x, known_matrices(), x)
    assert values.equal(gate_outputs(x).double())
    ends = torch.linalg.eigvalsh(known_matrices())[:, [0, -1]]
    torch.testing.assert_close(ends, torch.tensor([[-0.5, 0.5], [0, 2], [0, 1.5]]).double())


def test_intervals_are_over_seeds():
    from rlbilinear.studies.images.study import with_intervals

    table = pd.DataFrame({"k": [1] * 4, "seed": [0, 0, 1, 1], "v": [0.0, 2.0, 3.0, 5.0]})
    row = with_intervals(table, ["k"], "v").iloc[0]
    assert row["mean"] == 2.5 and row.high - row.low == pytest.approx(2 * 12.7062047 * 1.5)
