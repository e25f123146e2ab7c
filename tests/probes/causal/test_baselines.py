"""Published methods, each against an independent computation, on policies built by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from blobs import GREEN, RED, as_class, as_scalar, data_of, in_places, reading
from rlbilinear.probes.causal.baselines import baselines, setting, table_of
from rlbilinear.probes.causal.baselines_figure import baselines_figure
from rlbilinear.probes.causal.erasing import inlp, leace
from rlbilinear.probes.causal.methods import (
    METHODS,
    add_means,
    add_probe,
    patch_attributed,
    patch_correlated,
    resample_probe,
    zero_probe,
)
from rlbilinear.probes.causal.readings import Features, chance, fit_reading
from rlbilinear.probes.causal.subspaces import outputs_of
from rlbilinear.probes.subject import as_subject


@pytest.fixture(scope="module", params=[in_places, as_class, as_scalar])
def given(request):
    return setting(as_subject(reading(RED)), data_of(request.param(RED, "red")), "mix", 1, seed=0)


@pytest.mark.parametrize(
    ("states", "dimension", "targets"), [(200, 7, 1), (200, 9, 3), (12, 30, 2)]
)
@pytest.mark.parametrize("seed", range(5))
def test_leace_is_its_formula(states, dimension, targets, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(states, dimension)) @ rng.normal(size=(dimension, dimension)) + 3
    z = x[:, :targets] + rng.normal(size=(states, targets))
    erased = leace(torch.from_numpy(x), torch.from_numpy(z))(torch.from_numpy(x)).numpy()
    centred, labels = x - x.mean(0), z - z.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / states)
    kept = values > values.max() * 1e-10
    whitening = vectors[:, kept] / np.sqrt(values[kept]) @ vectors[:, kept].T
    columns = whitening @ (centred.T @ labels / states)
    projector = columns @ np.linalg.pinv(columns)
    expected = x - centred @ (np.linalg.pinv(whitening) @ projector @ whitening).T
    np.testing.assert_allclose(erased, expected, atol=1e-6)
    np.testing.assert_allclose((erased - erased.mean(0)).T @ labels / states, 0, atol=1e-8)
    np.testing.assert_allclose(erased.mean(0), x.mean(0), atol=1e-8)


@pytest.mark.parametrize("make", [in_places, as_class])
def test_inlp_leaves_readings_no_better_than_chance(make):
    data = data_of(make(GREEN, "green"))
    outputs = as_subject(reading(RED)).activations(data.fit.observations, ["mix"])["mix"]
    basis = inlp(outputs, data.fit, data.kind, rounds=30)
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)).double())
    rows = outputs.double().flatten(2).movedim(1, 2) if make is in_places else outputs.flatten(1)
    rows = rows.double().reshape(len(outputs), -1, basis.shape[1])
    left = outputs_of(rows - rows @ basis.T @ basis, tuple(outputs.shape[1:]), data.kind)
    score = np.nanmean(
        fit_reading(Features(left, data.kind), data.fit).score(left, data.fit.labels)
    )
    assert score < np.nanmean(chance(data.kind, data.fit.labels, data.fit.labels)) + 0.01


def changed_channels(given, change):
    change = outputs_of(change, given.shape, given.data.kind)
    return change.abs().amax((0, 2, 3)).nonzero().flatten().tolist(), change


def test_the_patched_channel_is_the_most_correlated_one(given):
    labels = given.data.fit.labels
    values = given.fit_outputs.numpy()  # a position is a cell
    if given.data.kind == "map":
        found = [np.corrcoef(values[:, c].ravel(), labels.ravel())[0, 1] for c in range(40)]
    else:
        flat = values.reshape(len(values), 40, -1)
        found = [
            max(abs(np.corrcoef(flat[:, c, p], labels)[0, 1]) for p in range(36)) for c in range(40)
        ]
    channels, change = changed_channels(given, patch_correlated(given))
    assert channels == [int(np.abs(found).argmax())]
    source = given.here.subject.activations(given.what.pairs.source, ["mix"])["mix"]
    base = given.here.subject.activations(given.what.pairs.base, ["mix"])["mix"]
    torch.testing.assert_close(
        change[:, channels[0]].float(), (source - base)[:, channels[0]], atol=1e-5, rtol=1e-5
    )


def test_attributions_of_a_linear_policy_are_weights_times_changes(given):
    """All fitting pairs are few enough to be attributed."""
    weights = given.here.subject.policy.action_net.weight.detach().double()
    pairs, subject = given.fitting.pairs, given.here.subject
    change = subject.activations(pairs.source, ["mix"])["mix"].double()
    change -= subject.activations(pairs.base, ["mix"])["mix"]
    sides = weights[given.fitting.source] - weights[given.fitting.base]
    by_channel = (change.flatten(1) * sides).reshape(len(change), 40, -1).sum(2).mean(0)
    channels, _ = changed_channels(given, patch_attributed(given))
    assert channels == [int(by_channel.argmax())]


def test_the_difference_of_means_is_put_where_the_concept_goes():
    given = setting(as_subject(reading(RED)), data_of(in_places(RED, "red")), "mix", 1, seed=0)
    labels, values = given.data.fit.labels > 0, given.fit_outputs.double().movedim(1, 3)
    vector = values[labels].mean(0) - values[~labels].mean(0)
    change = outputs_of(add_means(given), given.shape, "map")
    cells = [
        (6 * side).astype(int)
        for side in (given.what.pairs.base_place, given.what.pairs.source_place)
    ]
    for index, (old, new) in enumerate(zip(*cells, strict=True)):
        expected = torch.zeros(40, 6, 6).double()
        expected[:, new[0], new[1]] += vector
        expected[:, old[0], old[1]] -= vector
        torch.testing.assert_close(change[index], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [as_class, as_scalar])
def test_the_difference_of_means_of_values(make):
    given = setting(as_subject(reading(RED)), data_of(make(RED, "red")), "mix", 1, seed=0)
    labels, flat = given.data.fit.labels, given.fit_outputs.double().flatten(1)
    change, pairs = add_means(given)[:, 0], given.what.pairs
    high = labels == 1 if make is as_class else labels > np.median(labels)
    slope = flat[high].mean(0) - flat[~high].mean(0)
    slope /= labels[high].mean() - labels[~high].mean()
    gap = torch.from_numpy((pairs.source_value - pairs.base_value).astype(float))
    torch.testing.assert_close(change, gap[:, None] * slope)
    # Along the probe's weights, readings change as much.
    weights = given.probe
    torch.testing.assert_close(add_probe(given)[:, 0] @ weights.T, change @ weights.T)


def test_ablations_of_the_probe_are_zero_or_another_states(given):
    base, probe = given.here.base, given.probe
    assert (zero_probe(given)(base) @ probe.T).abs().max() < 1e-6 * (base @ probe.T).abs().max()
    resampled = resample_probe(given)(base)
    torch.testing.assert_close(
        resampled - resampled @ probe.T @ probe, base - base @ probe.T @ probe
    )
    drawn, pool = resampled @ probe.T, given.fit_rows @ probe.T
    for row in drawn[:10]:
        assert (pool - row).abs().flatten(1).amax(1).min() < 1e-8


def test_the_table_tells_what_is_used_from_what_is_carried():
    policy = reading(RED)
    used, carried = (
        baselines(policy, data_of(in_places(colour, "a blob")), layer="mix", rank=1, progress=False)
        for colour in (RED, GREEN)
    )
    assert used["method"].tolist() == [*METHODS]
    reach = used.set_index("method")["reach"]
    for name in ("whole layer exchanged", "difference exchanged (ours)", "difference moved (ours)"):
        assert reach[name] == 1
    for name in ("difference held at mean (ours)", "LEACE", "INLP"):
        assert reach[name] > 0.3
    assert used["size"].iloc[0] == pytest.approx(1) and (used["finite"] == 1).all()
    assert used.loc[used["family"] == "moves", "specificity"].iloc[0] == pytest.approx(1)
    # What is carried changes nothing, whichever way: its side is the used blob's by chance.
    moves = carried["family"] == "moves"
    assert carried.loc[moves, "reach"].nunique() == 1 and carried["reach"].iloc[0] < 0.7
    assert (carried.loc[~moves, "reach"] < 0.05).all()
    both = [found.assign(agent="a", concept=name) for found, name in ((used, "r"), (carried, "g"))]
    assert baselines_figure(pd.concat(both)).axes
    assert max(map(len, table_of(used).splitlines())) <= 100


def test_what_the_data_do_not_allow_is_said():
    data = data_of(in_places(RED, "red"))
    pairs = [
        replace(each, base_place=None, source_place=None) for each in (data.fit_pairs, data.pairs)
    ]
    data = replace(data, fit_pairs=pairs[0], pairs=pairs[1])
    found = baselines(reading(RED), data, layer="mix", rank=1, progress=False)
    found = found.set_index("method")
    moved = found["needs"] == "where to"
    assert found.loc[moved, "not_asked"].str.startswith("the pairs do not say where").all()
    assert found.loc[moved, "reach"].isna().all() and found.loc[~moved, "reach"].notna().all()
    assert found.loc[found["family"] == "removes", "specificity"].isna().all()
    with pytest.raises(ValueError, match="layer: choose from auto, mix; got 'nowhere'"):
        baselines(reading(RED), data, layer="nowhere", progress=False)
