"""Sparse probes: on channels planted in noise, against scikit-learn used directly, on an agent."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import Lasso

from rlbilinear.probes.concepts import cheese_position, cheese_presence
from rlbilinear.probes.curves import sparsity_curve
from rlbilinear.probes.dataset import collect
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.reading import compare_probes, fit_probe, probe_report
from rlbilinear.probes.sparse import METHODS, SparseProbe, sparsity_table

CHOOSING = [method for method in METHODS if method != "random"]


def planted(n=60, channels=8, size=5, seed=0):
    """Channels 2 and 5 have the concept, 5 more strongly; 6 is 5 with noise; 7 is dead."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, size, size)) < 0.1).astype(float)
    X = rng.standard_normal((n, channels, size, size))
    X[:, 2] += 2 * y
    X[:, 5] += 3 * y
    X[:, 6] = X[:, 5] + 0.3 * rng.standard_normal(y.shape)
    X[:, 7] = 4.0
    return X.astype(np.float32), y


@pytest.mark.parametrize("method", CHOOSING)
def test_planted_channels_are_found(method):
    X, y = planted()
    probe = SparseProbe(3, method=method).fit(X, y)
    assert probe.channels_[0] == 5 and sorted(probe.ranking_) == list(range(8))
    # Alone, the noisy copy says more than channel 2; beside 5 it says nothing new.
    assert set(probe.channels_[:3]) == {2, 5, 6}
    assert probe.channels_[1] == (2 if method == "l1" else 6)
    assert probe.ranking_[-1] == 7


def test_f_test_ranks_as_scikit_learn_does():
    X, y = planted(seed=3)
    rows = np.moveaxis(X, 1, -1).reshape(-1, 8).astype(float)[:, :7]
    kept = SelectKBest(f_classif, k=3).fit(rows, y.ravel()).get_support(indices=True)
    assert set(SparseProbe(3).fit(X, y).channels_) == set(kept)


def test_l1_is_the_order_in_which_the_lasso_takes_channels():
    X, y = planted(seed=4)
    X[:, 0] += 0.5 * y
    rows = np.moveaxis(X, 1, -1).reshape(-1, 8).astype(float)
    rows = (rows - rows.mean(0)) / np.where(rows.std(0) > 0, rows.std(0), 1)
    penalties = np.geomspace(1, 1e-5, 400)
    active = [Lasso(alpha).fit(rows, y.ravel()).coef_ != 0 for alpha in penalties]
    first = [np.argmax(taken) if taken.any() else len(penalties) for taken in np.transpose(active)]
    probe = SparseProbe(4, method="l1").fit(X, y)
    assert probe.channels_.tolist() == np.argsort(first, kind="stable")[:4].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_it_is_a_linear_probe_of_its_channels(method):
    X, y = planted()
    probe = SparseProbe(2, method=method, seed=1).fit(X, y)
    alone = LinearProbe().fit(X[:, probe.channels_], y)
    assert probe.direction.shape == (8,)
    assert np.flatnonzero(probe.coef_).tolist() == sorted(probe.channels_)
    np.testing.assert_allclose(probe.coef_[probe.channels_], alone.coef_)
    np.testing.assert_allclose(
        probe.decision_function(X), alone.decision_function(X[:, probe.channels_]), atol=1e-4
    )
    assert probe.score(X, y) == pytest.approx(alone.score(X[:, probe.channels_], y))


def test_all_channels_are_the_linear_probe():
    X, y = planted()
    np.testing.assert_allclose(
        SparseProbe(8).fit(X, y).coef_, LinearProbe().fit(X, y).coef_, atol=1e-6
    )


def test_given_channels_are_read_in_place_of_chosen_ones():
    X, y = planted()
    probe = SparseProbe(channels=[4, 1]).fit(X, y)
    assert probe.channels_.tolist() == [4, 1]
    assert np.flatnonzero(probe.coef_).tolist() == [1, 4]


@pytest.mark.parametrize("method", CHOOSING)
def test_positions_are_read_from_the_channels_whose_units_tell_them(method):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((80, 2))
    X = rng.standard_normal((80, 4, 3, 3)).astype(np.float32)
    X[:, 2] += 3 * np.einsum("nt,thw->nhw", y, rng.standard_normal((2, 3, 3)))
    X[:, 1] += y[:, 0, None, None]
    probe = SparseProbe(2, method=method, kind="position", spatial="dense").fit(X, y)
    assert probe.channels_.tolist() == [2, 1]
    assert probe.direction.shape == (2, 4, 3, 3)
    assert not probe.coef_[:, [0, 3]].any() and probe.coef_[:, [1, 2]].all()
    one = SparseProbe(1, method=method, kind="position", spatial="dense").fit(X, y[:, 1])
    assert one.direction.shape == (4, 3, 3) and one.channels_.tolist() == [2]


def test_penalties_are_chosen_on_held_out_levels():
    """States of a level are copies: a random split would prefer no penalty, levels do not."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.standard_normal((20, 40)), 4, axis=0)
    y = np.repeat(rng.standard_normal(20), 4) + 0.01 * X[:, 0]
    levels = np.repeat(np.arange(20), 4)
    probe = SparseProbe(30, kind="position", spatial="dense", alphas=(1e-3, 1e4))
    assert probe.fit(X, y, levels).alpha_ == 1e4
    with pytest.raises(ValueError, match="groups"):
        probe.fit(X, y)


def test_it_is_a_scikit_learn_estimator():
    probe = SparseProbe(3, method="l1", alphas=(5.0,), seed=2)
    assert clone(probe).get_params() == probe.get_params()
    assert probe.get_params()["k"] == 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"k": 0}, "1 to the 8 channels, got 0"),
        ({"k": 9}, "1 to the 8 channels, got 9"),
        ({"method": "variance"}, "choose from f_test, mutual_information, l1, random"),
        ({"channels": [1, 1]}, "different whole numbers from 0 to 7"),
        ({"channels": [8]}, "different whole numbers from 0 to 7"),
        ({"channels": []}, "different whole numbers"),
        ({"kind": "position"}, "position/shared; choose from"),
    ],
)
def test_bad_parameters_say_what_is_accepted(parameters, message):
    with pytest.raises(ValueError, match=message):
        SparseProbe(**parameters).fit(*planted())


def test_soft_labels_have_no_mutual_information():
    X, y = planted()
    with pytest.raises(ValueError, match="0 or 1, not between"):
        SparseProbe(method="mutual_information").fit(X, y * 0.5)


@pytest.fixture(scope="module")
def sides(bilinear_agent):
    concepts = [cheese_presence, cheese_position]
    return [
        collect(bilinear_agent, range(start, start + 12), ["pool1", "dense"], concepts)
        for start in (100_000, 0)
    ]


def test_the_table_is_the_protocol_of_linear_probes(bilinear_agent, sides):
    fit, held_out = sides
    table = sparsity_table(
        bilinear_agent,
        fit,
        held_out,
        "pool1",
        cheese_presence,
        methods=["f_test", "l1"],
        random_draws=2,
        n_resamples=20,
    )
    groups = table.groupby(["features", "method", "draw"], sort=False)
    assert [*groups.groups] == [
        ("trained network", "f_test", 0),
        ("trained network", "l1", 0),
        ("trained network", "random", 0),
        ("trained network", "random", 1),
        ("permuted labels", "f_test", 0),
        ("untrained network", "f_test", 0),
    ]
    for _, rows in groups:
        assert rows["k"].tolist() == [1, 2, 4, 6]
        ranking = rows["channels"].iloc[-1]
        assert all(rows["channels"] == [ranking[:k] for k in rows["k"]])
    all_channels = table[table["k"] == 6].set_index("features")["average_precision"]
    full = compare_probes(bilinear_agent, fit, held_out, "pool1", cheese_presence, n_resamples=20)
    full = full.set_index("name")["average_precision"]
    for features, name in (
        ("trained network", "probe"),
        ("permuted labels", "permuted"),
        ("untrained network", "untrained"),
    ):
        np.testing.assert_allclose(all_channels[features], full[name], atol=1e-3)
    one = probe_report(
        fit_probe(fit, "pool1", cheese_presence, SparseProbe(1)),
        held_out,
        "pool1",
        cheese_presence,
        n_resamples=20,
    )
    assert one["average_precision"].item() == table["average_precision"][0]
    figure = sparsity_curve(table)
    assert figure.axes[0].get_ylabel().startswith("average precision")


def test_positions_of_vectors_have_a_table_too(bilinear_agent, sides):
    table = sparsity_table(
        bilinear_agent,
        *sides,
        "dense",
        cheese_position,
        ks=[1, 8],
        methods=["l1"],
        random_draws=0,
        n_resamples=20,
    )
    assert len(table) == 6 and table["r2"].notna().all()
    assert "R²" in sparsity_curve(table, score="r2").axes[0].get_ylabel()


def test_bad_tables_are_refused(bilinear_agent, sides):
    fit, held_out = sides

    def ask(other=held_out, layer="pool1", concept=cheese_presence, **options):
        return sparsity_table(bilinear_agent, fit, other, layer, concept, **options)

    with pytest.raises(ValueError, match="both fitted to and held out"):
        ask(fit)
    with pytest.raises(ValueError, match="it has pool1, dense"):
        ask(layer="block2")
    with pytest.raises(ValueError, match="one or more of f_test"):
        ask(methods=[])
    with pytest.raises(ValueError, match="from 1 to the 6 channels"):
        ask(ks=[1, 7])
    with pytest.raises(ValueError, match="the table lacks features"):
        sparsity_curve(pd.DataFrame({"k": [1]}))
