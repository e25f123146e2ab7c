"""Verdicts on policies built by hand: what is read is causal, what is only carried is not."""

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold

from blobs import GREEN, RED, as_class, as_scalar, data_of, in_places, reading, reading_narrowly
from rlbilinear.probes.causal.choosing import choose
from rlbilinear.probes.causal.interventions import Layer, log_behaviour, rows_of
from rlbilinear.probes.causal.protocol import Questions, answer
from rlbilinear.probes.causal.readings import (
    ALPHAS,
    FOLDS,
    Features,
    average_precision,
    fit_reading,
)
from rlbilinear.probes.causal.report import ask
from rlbilinear.probes.causal.subspaces import leading
from rlbilinear.probes.subject import as_subject
from rlbilinear.probes.validation import judge

USED = {"sufficient", "necessary", "steerable"}


@pytest.fixture
def red_policy():
    return reading(RED)


def verdicts(policy, data, **options):
    found = answer(as_subject(policy), data, "mix", 1, controls=3, **options)
    table = judge([*found.claims])
    return found, table.set_index("claim")["verdict"]


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))]
)
@pytest.mark.parametrize("make", [in_places, as_class, as_scalar])
def test_what_is_read_is_causal_and_what_is_carried_is_not(make, seed):
    policy = reading(RED, seed)
    sizes = {"seed": seed, "levels": 30}
    if make is not in_places:
        sizes |= {"states_per_level": 8, "pairs_per_level": 5}
    found, used = verdicts(policy, data_of(make(RED, "red"), **sizes))
    assert {claim for claim in USED if used[f"difference: {claim}"] == "causal"} == USED
    assert found.readable["p"].iloc[0] < 1e-3
    found, carried = verdicts(policy, data_of(make(GREEN, "green"), **sizes))
    assert found.readable["p"].iloc[0] < 1e-3
    assert not (carried == "causal").any()


@pytest.mark.slow
def test_claims_about_what_is_not_used_are_rarely_called_causal():
    """Of 500 policies that carry a concept and do not read it, at most 5 % are found to use it.

    The bound is the nominal level; a correct test is above 8 % of 500 with probability 2e-3.
    """
    false = 0
    for seed in range(500):
        policy = reading(RED, seed)
        _, verdict = verdicts(policy, data_of(in_places(GREEN, "green"), seed=seed), seed=seed)
        false += bool((verdict == "causal").any())
    print(f"{false} of 500 policies")
    assert false <= 25


def test_the_layer_is_chosen_on_fitting_pairs(red_policy):
    data = data_of(in_places(RED, "red"))
    table, layer, rank = choose(as_subject(red_policy), data, ["mix"], (1, 2))
    assert (layer, rank) == ("mix", 1)
    assert table["follow"].iloc[0] == 1.0


def test_a_layer_where_any_direction_does_is_not_chosen():
    """Of one channel, an untrained network's direction is the whole layer too."""
    data, subject = data_of(in_places(RED, "red")), as_subject(reading_narrowly(RED))
    table, layer, rank = choose(subject, data, ["narrow", "mix"], (1,))
    assert table["follow"].tolist() == [1.0, 1.0]
    assert table["control"].iloc[0] == 1.0 and table["control"].iloc[1] < 0.5
    assert (layer, rank) == ("mix", 1)


@pytest.mark.parametrize("kind", ["map", "class"])
def test_interventions_are_those_of_plain_forward_hooks(red_policy, kind):
    data = data_of(in_places(RED, "red") if kind == "map" else as_class(RED, "red"))
    subject, pairs = as_subject(red_policy), data.pairs
    mean = rows_of(subject.activations(data.fit.observations, ["mix"])["mix"], kind).mean(0)
    layer = Layer.of(subject, "mix", kind, None, pairs, mean)
    basis = leading(layer.change, 2)
    source = subject.activations(pairs.source, ["mix"])["mix"]

    def hooked(change):
        handle = red_policy.features_extractor.mix.register_forward_hook(
            lambda module, inputs, output: change(output)
        )
        try:
            with torch.no_grad():
                given = red_policy.get_distribution(torch.as_tensor(pairs.base))
                return given.distribution.logits.double()
        finally:
            handle.remove()

    def project(x):
        if kind == "map":
            return torch.einsum("kc,kd,ndhw->nchw", basis.float(), basis.float(), x)
        flat = x.flatten(1)
        return (flat @ basis.T.float() @ basis.float()).reshape(x.shape)

    centre = mean.float().T.reshape(source.shape[1:]) if kind == "map" else mean[0].float()
    centre = centre.reshape(source.shape[1:])
    for ours, theirs in (
        (layer.exchange(basis), hooked(lambda x: x + project(source - x))),
        (layer.ablate(basis), hooked(lambda x: x - project(x - centre))),
        (layer.behaviour(layer.base + layer.change), hooked(lambda x: source)),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_behaviours_gather_actions_of_the_same_effect():
    logits = torch.tensor([[0.0, 1.0, 2.0], [800.0, 0.0, 0.0]])
    found = log_behaviour(logits, np.array([0, 1, 0]))
    p = logits.double().softmax(1)
    torch.testing.assert_close(found[0].exp(), torch.stack([p[0, 0] + p[0, 2], p[0, 1]]))
    torch.testing.assert_close(found[1], torch.tensor([0.0, -800.0]).double())
    broken = log_behaviour(torch.tensor([[float("nan"), 0.0], [0.0, 0.0]]), None)
    assert broken[0].isnan().all() and broken[1].isfinite().all()
    with pytest.raises(ValueError, match="one for each of the 3 actions, got 2"):
        log_behaviour(logits, np.array([0, 1]))


def test_the_report_opens_with_what_can_be_read_used_and_done(red_policy, tmp_path):
    report = ask(red_policy, data_of(in_places(RED, "red")), controls=2, progress=False)
    first = report.sections[0].text
    assert first.startswith("red can be read at ") and "the difference direction is" in first
    assert "sends the policy after the counterpart in 100% of the pairs" in first
    assert max(map(len, report.table().splitlines())) <= 100
    report.save(tmp_path / "report")
    said = (tmp_path / "report" / "report.md").read_text()
    assert "*specific* was not asked: no states without the concept were given." in said


def test_bad_questions_are_refused_before_work(red_policy):
    data = data_of(in_places(RED, "red"))
    for options, said in (
        ({"layer": "nowhere"}, "layer: choose from auto, mix; got 'nowhere'"),
        ({"rank": 0}, "rank: expected auto or a number from 1 on, got 0"),
        ({"controls": 0}, "controls: expected at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=said):
            ask(red_policy, data, progress=False, **options)


def test_what_has_no_rank_is_asked_once_and_is_the_same_at_all_ranks(red_policy):
    data = data_of(in_places(RED, "red"), 14)
    together = Questions(as_subject(red_policy), data, "mix", controls=2)
    both = [together.answer(rank).effects.set_index(["direction", "claim"]) for rank in (1, 2)]
    alone = answer(as_subject(red_policy), data, "mix", 2, controls=2)
    assert_frame_equal(both[1].reset_index(), alone.effects)
    for name in ("probe", "pattern"):
        assert_frame_equal(both[0].loc[name], both[1].loc[name])
    assert not both[0].loc["difference"].equals(both[1].loc["difference"])


@pytest.mark.parametrize("make", [as_class, as_scalar])
@pytest.mark.parametrize("states", [2, 60])
def test_a_reading_of_whole_outputs_is_scikit_learns_ridge(red_policy, make, states):
    """With fewer numbers than states, and more: then it is solved for the states."""
    examples = data_of(make(RED, "red"), 12, states_per_level=states).fit
    outputs = as_subject(red_policy).activations(examples.observations, ["mix"])["mix"][
        :, :, :4, :4
    ]
    kind = "class" if make is as_class else "scalar"
    features = Features(outputs, kind)
    n, dimension = features.standard.shape
    assert (dimension > n) == (states == 2)
    labels = np.asarray(examples.labels)
    y = labels[:, None] == np.unique(labels) if kind == "class" else labels[:, None]
    y, x = y.astype(float), features.standard
    folds = [*GroupKFold(FOLDS).split(x, groups=examples.groups)]

    def error(alpha):
        parts = [
            Ridge(alpha=alpha).fit(x[train], y[train]).predict(x[test]).reshape(len(test), -1)
            - y[test]
            for train, test in folds
        ]
        return sum(np.square(part).sum() for part in parts)

    model = Ridge(alpha=min(ALPHAS, key=error)).fit(x, y)
    reading = fit_reading(features, examples)
    flat = outputs.double().flatten(1).numpy()
    expected = model.predict(x).reshape(len(x), -1)
    np.testing.assert_allclose(flat @ reading.weights.T + reading.offset, expected, atol=1e-9)


def test_leading_directions_are_singular_vectors_whichever_side_is_longer():
    generator = torch.Generator().manual_seed(0)
    for shape in ((20, 3, 7), (4, 2, 50)):
        rows = torch.randn(*shape, generator=generator, dtype=torch.float64)
        expected = torch.linalg.svd(rows.flatten(0, 1), full_matrices=False).Vh[:3]
        found = leading(rows, 3)
        assert torch.allclose((found @ expected.T).abs(), torch.eye(3).double(), atol=1e-9)
    flat = torch.ones(4, 1, 50, dtype=torch.float64)  # one direction only: the others are any
    assert torch.allclose(leading(flat, 3) @ leading(flat, 3).T, torch.eye(3).double(), atol=1e-9)


def test_average_precision_is_scikit_learns_with_ties_and_without():
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 5, 6)) < 0.2).astype(np.float32)
    labels[0] = 0
    for scores in (rng.standard_normal(labels.shape), rng.integers(0, 4, labels.shape) / 4):
        found = average_precision(scores, labels)
        assert np.isnan(found[0])
        for one, mine, wanted in zip(scores[1:], found[1:], labels[1:], strict=True):
            expected = average_precision_score(wanted.ravel(), one.ravel())
            assert mine == pytest.approx(expected, abs=1e-12)
