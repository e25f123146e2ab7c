"""Linear probes against scikit-learn used directly, and on concepts planted in noise."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, cross_val_score

from rlbilinear.probes.probe import LinearProbe


def planted(n=80, channels=5, size=6, strength=6.0, seed=0):
    """Maps of noise whose channels lean along one direction where the concept is."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(channels)
    direction /= np.linalg.norm(direction)
    y = (rng.random((n, size, size)) < 0.05).astype(float)
    X = rng.standard_normal((n, channels, size, size)) + strength * np.einsum(
        "nhw,c->nchw", y, direction
    )
    return X.astype(np.float32), y, direction


def cosine(a, b):
    return float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))


def test_shared_probe_finds_the_planted_direction():
    X, y, direction = planted()
    probe = LinearProbe().fit(X[:60], y[:60])
    assert probe.direction.shape == (5,)
    assert cosine(probe.direction, direction) > 0.95
    assert probe.score(X[60:], y[60:]) > 0.9
    assert probe.predict(X).shape == y.shape and set(np.unique(probe.predict(X))) == {0, 1}


def test_shared_probe_is_logistic_regression_on_standardised_pixels():
    X, y, _ = planted(strength=2.0)
    X = X * np.array([1, 10, 0.1, 3, 5], np.float32)[:, None, None] + 7
    probe = LinearProbe(alphas=(2.0,)).fit(X, y)
    pixels = X.transpose(0, 2, 3, 1).reshape(-1, 5).astype(float)
    pixels = (pixels - pixels.mean(0)) / pixels.std(0)
    direct = LogisticRegression(C=0.5, tol=1e-8).fit(pixels, y.ravel())
    np.testing.assert_allclose(
        probe.decision_function(X).ravel(), direct.decision_function(pixels), atol=1e-3
    )
    np.testing.assert_allclose(
        probe.predict_proba(X).ravel(), direct.predict_proba(pixels)[:, 1], atol=1e-3
    )


def test_the_scale_and_offset_of_a_channel_do_not_matter():
    X, y, _ = planted(strength=2.0)
    scale = np.array([1, 10, 0.1, 3, 5], np.float32)[:, None, None]
    plain, scaled = LinearProbe().fit(X, y), LinearProbe().fit(X * scale + 1, y)
    np.testing.assert_allclose(
        scaled.decision_function(X * scale + 1), plain.decision_function(X), atol=1e-3
    )


@pytest.mark.parametrize("value", [0, 3, 0.1, -1e5])
def test_a_dead_channel_has_no_weight(value):
    X, y, _ = planted()
    X[:, 2] = value
    assert abs(LinearProbe().fit(X, y).direction[2]) < 1e-6


def test_soft_labels_are_weights():
    """A label of .3 counts as three positives and seven negatives of weight .1."""
    X, y, _ = planted(n=40, strength=1.0)
    soft = np.random.default_rng(1).choice([0, 0.3, 1], size=y.shape)
    repeated = np.repeat(X, 10, axis=0)
    votes = (np.arange(10)[None, :, None, None] < 10 * soft[:, None]).reshape(-1, *y.shape[1:])
    one = LinearProbe().fit(X, soft)
    ten = LinearProbe(alphas=(10.0,)).fit(repeated, votes.astype(float))
    np.testing.assert_allclose(one.direction, ten.direction, rtol=1e-3, atol=1e-5)
    assert one.score(X, soft) == pytest.approx(
        average_precision_score(votes.ravel(), one.decision_function(repeated).ravel())
    )


def test_score_of_hard_labels_is_average_precision():
    X, y, _ = planted(strength=2.0)
    probe = LinearProbe().fit(X[:60], y[:60])
    scores = probe.decision_function(X[60:])
    assert probe.score(X[60:], y[60:]) == pytest.approx(
        average_precision_score(y[60:].ravel(), scores.ravel())
    )


def test_dense_presence_is_logistic_regression_on_all_units():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 3, 4, 4)).astype(np.float32)
    y = (X[:, 1, 2, 3] > 0).astype(float)
    probe = LinearProbe(spatial="dense").fit(X[:80], y[:80])
    assert probe.direction.shape == (3, 4, 4)
    assert np.unravel_index(np.abs(probe.direction).argmax(), (3, 4, 4)) == (1, 2, 3)
    assert probe.decision_function(X).shape == (120,)
    assert probe.score(X[80:], y[80:]) > 0.8


def test_dense_positions_are_ridge_regression():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2, 3, 3)).astype(np.float32)
    y = np.stack([X[:, 0, 1, 1] * 2 + 5, X[:, 1, 0, 2] - 3], 1)
    probe = LinearProbe(kind="position", spatial="dense", alphas=(3.0,)).fit(X, y)
    assert probe.direction.shape == (2, 2, 3, 3)
    mean, scale = X.mean((0, 2, 3), keepdims=True), X.std((0, 2, 3), keepdims=True)
    rows = ((X - mean) / scale).reshape(60, -1)
    direct = Ridge(alpha=3.0).fit(rows, y)
    np.testing.assert_allclose(probe.predict(X), direct.predict(rows), atol=1e-4)
    assert probe.score(X, y) == pytest.approx(direct.score(rows, y), abs=1e-5)
    one = LinearProbe(kind="position", spatial="dense", alphas=(3.0,)).fit(X, y[:, 0])
    assert one.direction.shape == (2, 3, 3)
    np.testing.assert_allclose(one.predict(X), probe.predict(X)[:, 0], atol=1e-6)


def test_vectors_have_dense_probes():
    X = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    probe = LinearProbe(kind="position", spatial="dense").fit(X, X[:, 3])
    assert probe.direction.shape == (7,) and np.abs(probe.direction).argmax() == 3


def test_alpha_is_chosen_on_held_out_levels():
    """States of a level are copies: a random split would prefer no penalty, levels do not."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.standard_normal((20, 40)), 4, axis=0)
    y = np.repeat(rng.standard_normal(20), 4) + 0.01 * X[:, 0]
    groups = np.repeat(np.arange(20), 4)
    probe = LinearProbe(kind="position", spatial="dense", alphas=(1e-3, 1e4))
    assert probe.fit(X, y, groups).alpha_ == 1e4
    with pytest.raises(ValueError, match="groups"):
        probe.fit(X, y)


def rare(states, seen, positives):
    """A dense concept of a few states: those of the first levels, two states a level."""
    random = np.random.default_rng(0)
    y = np.zeros(states)
    y[:positives] = 1
    X = random.standard_normal((states, 3)).astype(np.float32) + y[:, None].astype(np.float32)
    return X, y, np.repeat(np.arange(states // seen), seen)


@pytest.mark.parametrize("positives", [4, 6, 12])
@pytest.mark.parametrize("spatial", ["shared", "dense"])
def test_a_rare_concept_is_fitted_with_a_choice_of_alpha(positives, spatial):
    X, y, levels = rare(40, 2, positives)
    if spatial == "shared":
        X = X[:, :, None, None]
        y = y[:, None, None]
    probe = LinearProbe(spatial=spatial, alphas=(1.0, 2.0)).fit(X, y, levels)
    assert probe.alpha_ in (1.0, 2.0)


def test_alpha_is_the_best_over_the_folds_with_both_kinds_of_labels():
    X, y, levels = rare(40, 2, 4)  # in two levels: of five folds, two have positive states
    alphas = (1e-2, 1.0, 1e3)
    scores = {}
    for alpha in alphas:
        with pytest.warns(UserWarning, match="least populated class"):
            folds = list(StratifiedGroupKFold(5).split(X, y, levels))
        one = LinearProbe(spatial="dense", alphas=(alpha,))
        scores[alpha] = np.mean(
            [
                one.fit(X[a], y[a]).score(X[b], y[b])
                for a, b in folds
                if y[a].mean() > 0 and y[b].mean() > 0
            ]
        )
    probe = LinearProbe(spatial="dense", alphas=alphas).fit(X, y, levels)
    assert scores[probe.alpha_] == max(scores.values())


def test_too_few_levels_to_choose_alpha_is_said_of_the_folds():
    X, y, levels = rare(40, 2, 2)
    probe = LinearProbe(spatial="dense", alphas=(1.0, 2.0))
    with pytest.raises(ValueError, match="in 5 folds needs as many levels, got 1"):
        probe.fit(X, y, np.zeros(40))
    levels[:] = np.arange(40) // 10
    with pytest.raises(ValueError, match=r"in each of 4 folds all labels .* are alike"):
        LinearProbe(spatial="dense", alphas=(1.0, 2.0), folds=4).fit(X, y, levels)


def test_it_is_a_scikit_learn_estimator():
    X, y, _ = planted()
    probe = LinearProbe(alphas=(5.0,))
    assert clone(probe).get_params() == probe.get_params()
    assert set(probe.get_params()) == {"kind", "spatial", "alphas", "folds"}
    levels = np.repeat(np.arange(20), 4)
    scores = cross_val_score(probe, X, y, groups=levels, cv=GroupKFold(4))
    assert scores.shape == (4,) and scores.min() > 0.8
    with pytest.raises(ValueError, match="not fitted"):
        probe.predict(X)


@pytest.mark.parametrize(
    ("parameters", "x_shape", "y", "message"),
    [
        ({"kind": "position"}, (4, 2, 3, 3), np.ones((4, 2)), "position/shared; choose from"),
        ({"kind": "presense"}, (4, 2, 3, 3), np.ones((4, 3, 3)), "presense/shared; choose from"),
        ({}, (4, 2, 3, 3), np.ones(4), r"\(n, height, width\), got \(4, 2, 3, 3\) and \(4,\)"),
        ({}, (4, 2), np.ones(4), "got"),
        ({}, (4, 2, 3, 3), np.zeros((4, 3, 3)), "not all alike"),
        ({}, (4, 2, 3, 3), np.linspace(0, 2, 36).reshape(4, 3, 3), r"in 0\.\.1"),
        ({"spatial": "dense", "kind": "position"}, (2, 3), np.array([1, np.nan]), "finite"),
        ({"alphas": (0.0,)}, (4, 2, 3, 3), np.eye(36)[0].reshape(4, 3, 3), "positive"),
    ],
)
def test_bad_input_says_what_is_accepted(parameters, x_shape, y, message):
    with pytest.raises(ValueError, match=message):
        LinearProbe(**parameters).fit(np.ones(x_shape, np.float32), y)


def test_other_shapes_than_fitted_are_refused():
    X, y, _ = planted(n=20)
    probe = LinearProbe().fit(X, y)
    with pytest.raises(ValueError, match=r"fitted to channels \(5,\), got shape"):
        probe.decision_function(X[:, :3])
    dense = LinearProbe(kind="position", spatial="dense").fit(X, y[:, 0, 0])
    with pytest.raises(ValueError, match="no probabilities"):
        dense.predict_proba(X)
