"""Reports on probes against scikit-learn's metrics, and controls on the real simulator."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, r2_score

from rlbilinear.agents import Agent
from rlbilinear.probes.concepts import (
    cheese_position,
    cheese_presence,
    mouse_presence,
    overlap,
    to_cells,
)
from rlbilinear.probes.dataset import collect
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.reading import (
    ALPHAS,
    compare_probes,
    fit_probe,
    patches,
    permute_by_level,
    probe_report,
)

LAYER = "block2"


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact", seed=1, channels=8, blocks=(2, 1), features=8)


@pytest.fixture(scope="module")
def data(agent):
    concepts = [cheese_presence, cheese_position]
    states = collect(agent, range(30), [LAYER, "dense"], concepts, states_per_level=6)
    return states.split(range(18))


def test_report_has_scikit_learns_scores(data):
    fit, held_out = data
    probe = fit_probe(fit, LAYER, cheese_presence)
    (row,) = probe_report(probe, held_out, LAYER, cheese_presence, n_resamples=50).to_dict(
        "records"
    )
    labels = held_out.labels["cheese_presence"]
    logits = probe.decision_function(to_cells(held_out.activations[LAYER], 15))
    flat, scores = labels.ravel(), logits.ravel()
    assert (row["states"], row["levels"]) == (72, 12)
    assert row["base_rate"] == pytest.approx(flat.mean())
    assert row["average_precision"] == pytest.approx(average_precision_score(flat, scores))
    assert row["f1"] == pytest.approx(f1_score(flat, scores > 0))
    assert row["brier"] == pytest.approx(brier_score_loss(flat, expit(scores)))
    there = labels.any((1, 2))
    best = logits[there].reshape(there.sum(), -1).argmax(1)
    right = labels[there].reshape(there.sum(), -1)[np.arange(there.sum()), best]
    assert row["top1"] == pytest.approx(right.mean())
    for name in ("base_rate", "average_precision", "f1", "brier", "top1"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert row["average_precision_high"] - row["average_precision_low"] > 0.01


def test_intervals_are_those_of_average_precision_of_resampled_levels(data):
    fit, held_out = data
    probe = fit_probe(fit, LAYER, cheese_presence)
    row = probe_report(probe, held_out, LAYER, cheese_presence, n_resamples=200, seed=3).iloc[0]
    labels = held_out.labels["cheese_presence"]
    logits = probe.decision_function(to_cells(held_out.activations[LAYER], 15))
    rng = np.random.default_rng(9)
    names = np.unique(held_out.levels)
    resampled = []
    for _ in range(200):
        states = np.concatenate(
            [np.flatnonzero(held_out.levels == name) for name in rng.choice(names, len(names))]
        )
        resampled.append(average_precision_score(labels[states].ravel(), logits[states].ravel()))
    np.testing.assert_allclose(
        row[["average_precision_low", "average_precision_high"]].astype(float),
        np.quantile(resampled, [0.025, 0.975]),
        atol=0.05,
    )


def test_cells_are_read_as_the_feature_map_is(data):
    """Averaging over cells and reading commute, so the direction applies to the map itself."""
    fit, held_out = data
    probe = fit_probe(fit, LAYER, cheese_presence)
    maps = held_out.activations[LAYER]
    np.testing.assert_allclose(
        to_cells(probe.decision_function(maps), 15),
        probe.decision_function(to_cells(maps, 15)),
        atol=1e-3,
    )


def test_presence_compared_with_its_controls(agent, data):
    table = compare_probes(agent, *data, LAYER, cheese_presence, n_resamples=50).set_index("name")
    assert list(table.index) == [
        "probe",
        "permuted",
        "untrained",
        "pixels",
        "ceiling",
        "base rate",
    ]
    precision, rate = table["average_precision"], table.loc["base rate", "base_rate"]
    assert precision["base rate"] == pytest.approx(rate)
    assert table.loc["base rate", "top1"] == pytest.approx(1 / 225)
    assert precision["permuted"] < 5 * rate < precision["pixels"]
    assert precision["ceiling"] > 0.99
    # This agent is untrained itself, with the weights of its control: those of the seed after 0.
    assert precision["untrained"] == precision["probe"] > 5 * rate
    own = probe_report(
        fit_probe(data[0], LAYER, cheese_presence), data[1], LAYER, cheese_presence, n_resamples=50
    ).set_index("name")
    np.testing.assert_allclose(
        table.loc["probe"].iloc[2:].astype(float), own.loc["probe"].iloc[2:].astype(float)
    )


def test_positions_compared_with_their_controls(agent, data):
    probe = LinearProbe(kind="position", spatial="dense", alphas=(1e3,))
    table = compare_probes(agent, *data, LAYER, cheese_position, probe=probe, n_resamples=50)
    table = table.set_index("name")
    assert list(table.index) == ["probe", "permuted", "untrained", "pixels", "base rate"]
    assert abs(table.loc["base rate", "r2"]) < 0.2
    held_out = data[1]
    labels = held_out.labels["cheese_position"]
    there = np.isfinite(labels).all(1)
    fitted = fit_probe(data[0], LAYER, cheese_position, probe)
    predicted = fitted.predict(held_out.activations[LAYER][there])
    assert table.loc["probe", "r2"] == pytest.approx(r2_score(labels[there], predicted))
    assert table.loc["probe", "distance"] == pytest.approx(
        np.hypot(*(predicted - labels[there]).T).mean()
    )


def test_positions_are_read_where_the_map_shows_them(data):
    def planted(states):
        maps = overlap(states.labels["cheese_presence"], (4, 4))[:, None]
        return replace(states, activations={LAYER: maps})

    fit, held_out = map(planted, data)
    probe = fit_probe(fit, LAYER, cheese_position)
    assert probe.alpha_ == min(ALPHAS)
    (row,) = probe_report(probe, held_out, LAYER, cheese_position, n_resamples=50).itertuples()
    assert row.r2 > 0.7 and row.distance < 2


def test_positions_from_vectors(agent, data):
    probe = LinearProbe(kind="position", spatial="dense", alphas=(1e3,))
    table = compare_probes(agent, *data, "dense", cheese_position, probe=probe, n_resamples=20)
    assert np.isfinite(table["r2"]).all() and len(table) == 5


def test_permuted_labels_are_those_of_one_other_level():
    levels = np.repeat([4, 9, 2, 7], [3, 2, 4, 1])
    permuted = permute_by_level(levels.astype(float), levels)
    given = {level: set(permuted[levels == level]) for level in (4, 9, 2, 7)}
    assert all(len(others) == 1 and level not in others for level, others in given.items())
    assert set.union(*given.values()) == {4, 9, 2, 7}
    maps = np.arange(40.0).reshape(10, 2, 2)
    moved = permute_by_level(maps, levels)
    assert all(any((one == each).all() for each in maps) for one in moved)
    with pytest.raises(ValueError, match="at least 2 levels"):
        permute_by_level(np.ones(3), np.ones(3, int))


def test_patches_hold_every_pixel_of_their_place():
    picture = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    cut = patches(picture, (16, 8))
    assert cut.shape == (2, 3 * 4 * 8, 16, 8)
    there = picture[1, :, 20:24, 48:56] / 255
    np.testing.assert_allclose(np.sort(cut[1, :, 5, 6]), np.sort(there.ravel()), rtol=1e-6)
    with pytest.raises(ValueError, match="does not divide"):
        patches(picture, (15, 15))


def test_ceiling_falls_where_cells_share_a_position(data):
    """On 8 x 8 positions, 225 cells cannot all be told apart."""
    labels = data[0].labels["cheese_presence"]
    coarse, fine = (to_cells(overlap(labels, (size, size)), 15) for size in (8, 16))
    precision = [average_precision_score(labels.ravel(), maps.ravel()) for maps in (coarse, fine)]
    assert precision[0] < 0.8 < 0.99 < precision[1]


def test_bad_input_lists_what_there_is(agent, data):
    fit, _ = data
    with pytest.raises(ValueError, match=r"no layer 'block9'; it has block2, dense"):
        fit_probe(fit, "block9", cheese_presence)
    with pytest.raises(ValueError, match=r"no concept 'mouse_presence'; it has cheese_presence"):
        fit_probe(fit, LAYER, mouse_presence)
    with pytest.raises(ValueError, match=r"read from feature maps, dense gives \(8,\)"):
        fit_probe(fit, "dense", cheese_presence)
    with pytest.raises(ValueError, match="both fitted to and held out"):
        compare_probes(agent, fit, fit, LAYER, cheese_presence)
