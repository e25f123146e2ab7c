"""Arrays that allow no answer are refused at once, by the name of the argument."""

from dataclasses import replace

import numpy as np
import pytest

from blobs import RED, SIDE, as_class, as_scalar, data_of, in_places, reading
from rlbilinear.probes.causal.data import ConceptData, Counterfactuals, Examples
from rlbilinear.probes.causal.report import ask


@pytest.fixture(scope="module")
def places():
    return data_of(in_places(RED, "red"), 14)


@pytest.fixture(scope="module")
def scalar():
    return data_of(as_scalar(RED, "red"), 14)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"labels": 0}, r"fit: all labels are 0\.0: there is nothing to read"),
        ({"labels": np.nan}, r"fit: \d+ labels are not finite"),
        ({"labels": 0.5}, r"fit: labels of a map are 0 and 1, got 0\.0, 0\.5"),
        ({"groups": 3}, r"fit: expected at least 5 groups \(levels\), got 1"),
    ],
)
def test_examples_with_nothing_to_read(places, changed, said):
    ((part, value),) = changed.items()
    now = getattr(places.fit, part)
    fit = replace(places.fit, **{part: now * value if part == "labels" else now * 0 + value})
    with pytest.raises(ValueError, match=said):
        replace(places, fit=fit)


@pytest.mark.parametrize("side", ["fit", "held_out"])
def test_a_class_with_one_value_on_a_side(side):
    data = data_of(as_class(RED, "red"), 14)
    one = getattr(data, side)
    with pytest.raises(ValueError, match=f"{side}: all labels are 1: there is nothing to read"):
        replace(data, **{side: replace(one, labels=np.ones_like(one.labels))})
    with pytest.raises(ValueError, match=f"{side}: labels of a class are integers"):
        replace(data, **{side: replace(one, labels=one.labels + 0.5)})


def test_arrays_of_other_numbers_shapes_and_types(places):
    fit = places.fit
    for part, value, error, said in (
        ("labels", fit.labels[:3], ValueError, r"labels: expected \d+ of them as observations"),
        ("labels", fit.labels.tolist(), TypeError, "labels: expected an array of numbers, got lis"),
        ("labels", fit.labels.astype(str), TypeError, "labels: .* of numbers, got array of <U"),
        ("groups", fit.groups[:3], ValueError, r"groups: expected \(\d+,\) for \d+ pictures"),
        ("observations", fit.observations[0], ValueError, "observations: expected pictures"),
        ("observations", "pictures", TypeError, "observations: expected an array of numbers, got"),
    ):
        with pytest.raises(error, match=said):
            replace(fit, **{part: value})
    with pytest.raises(ValueError, match=r"fit: expected labels \(n,\) for a scalar, got \("):
        replace(places, kind="scalar")
    with pytest.raises(ValueError, match="kind: choose from map, class, scalar, got 'places'"):
        replace(places, kind="places")
    smaller = replace(places.held_out, observations=places.held_out.observations[..., :-1])
    with pytest.raises(ValueError, match=r"held_out: expected pictures \(40, 6, 6\) of uint8 as"):
        replace(places, held_out=smaller)


def test_pairs_without_a_change(places, scalar):
    pairs = places.pairs
    with pytest.raises(
        ValueError, match=r"pairs: base and source are the same picture in pairs 1$"
    ):
        source = pairs.source.copy()
        source[1] = pairs.base[1]
        replace(places, pairs=replace(pairs, source=source))
    with pytest.raises(ValueError, match="the same behaviour is right in base and source of pairs"):
        replace(places, pairs=replace(pairs, source_behaviour=pairs.base_behaviour))
    with pytest.raises(ValueError, match="base and source have the same value in pairs 0, 1"):
        same = replace(scalar.pairs, source_value=scalar.pairs.base_value)
        replace(scalar, pairs=same)


def test_pairs_of_other_numbers_shapes_and_types(places, scalar):
    pairs = places.pairs
    n = len(pairs)
    for changed, error, said in (
        ({"source": pairs.source[:-1]}, ValueError, "source: expected the shape of base"),
        ({"source": pairs.source[..., :-1]}, ValueError, "source: expected the shape of base"),
        ({"groups": pairs.groups[:-1]}, ValueError, rf"groups: expected \({n},\)"),
        ({"base_behaviour": None}, ValueError, "give base_behaviour and source_behaviour, or"),
        ({"base_behaviour": np.full(n, 0.0)}, TypeError, "base_behaviour: expected integers"),
        ({"base_behaviour": np.full(n, -1)}, ValueError, "base_behaviour: .* from 0, got -1"),
        ({"base_behaviour": np.full(n, np.nan)}, ValueError, f"base_behaviour: {n} numbers are"),
        ({"base_place": pairs.base_place[:, :1]}, ValueError, rf"base_place: expected \({n}, 2\)"),
        ({"base_place": SIDE * pairs.base_place}, ValueError, "base_place: .* from 0 to 1 as"),
    ):
        with pytest.raises(error, match=said):
            replace(pairs, **changed)
    with pytest.raises(ValueError, match="source_value: 1 numbers are not finite"):
        values = scalar.pairs.source_value.astype(float)
        values[2] = np.nan
        replace(scalar.pairs, source_value=values)


def test_what_does_not_fit_the_policy_is_refused_before_work(places):
    policy = reading(RED)
    beyond = replace(places.pairs, source_behaviour=places.pairs.source_behaviour + 50)
    fitting = replace(places.fit_pairs, source_behaviour=places.fit_pairs.source_behaviour + 50)
    with pytest.raises(ValueError, match=r"red: behaviour 5\d is right in some pairs, but the pol"):
        ask(policy, replace(places, pairs=beyond, fit_pairs=fitting), progress=False)
    with pytest.raises(ValueError, match="rank: 1000 is more than mix and so many pairs allow: at"):
        ask(policy, places, rank=1000, progress=False)
    fine = {
        side: replace(part, labels=np.kron(part.labels, np.ones((1, 8, 8), np.float32)))
        for side, part in (("fit", places.fit), ("held_out", places.held_out))
    }
    with pytest.raises(ValueError, match="no layer of the policy has maps with a position for"):
        ask(policy, replace(places, other=None, **fine), progress=False)
    with pytest.raises(TypeError, match="data: expected ConceptData or a name, got list"):
        ask(policy, [places], progress=False)


def test_splits_of_other_numbers(places):
    examples, pairs = places.fit, places.fit_pairs
    with pytest.raises(ValueError, match="fit_share: expected a share between 0 and 1, got 2"):
        ConceptData.split("red", "map", examples, pairs, fit_share=2)
    with pytest.raises(ValueError, match=r"other: expected \d+ labels, got 3"):
        ConceptData.split("red", "map", examples, pairs, other=examples.labels[:3])
    few = Examples(examples.observations[:8], examples.labels[:8], np.arange(8) % 4)
    less = Counterfactuals(pairs.base[:4], pairs.source[:4], np.arange(4))
    with pytest.raises(ValueError, match="expected at least 5 groups"):
        ConceptData.split("red", "map", few, less)
