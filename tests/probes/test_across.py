import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlbilinear.probes.across import between_kinds, over_agents

EFFECTS = st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=6).filter(
    lambda values: max(values) > min(values)
)


def verdict(effects, words="causal", control=0.1):
    claims = [f"difference: {name}" for name in ("sufficient", "necessary")[: len(effects)]]
    return pd.DataFrame({"claim": claims, "verdict": words, "effect": effects, "control": control})


@given(first=EFFECTS, second=EFFECTS)
def test_agents_are_the_unit(first, second):
    """Means, shares and intervals against SciPy's own tests."""
    verdicts = {f"b{place}": verdict([value]) for place, value in enumerate(first)}
    verdicts |= {f"r{place}": verdict([value], "not shown") for place, value in enumerate(second)}
    kinds = {name: "bilinear" if name[0] == "b" else "relu" for name in verdicts}
    found = over_agents(verdicts, kinds).set_index("kind")
    for kind, values, causal in (("bilinear", first, len(first)), ("relu", second, 0)):
        row = found.loc[kind]
        assert (row.agents, row.causal, row.contradicted) == (len(values), causal, 0)
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        np.testing.assert_allclose(
            [row.effect, row.effect_low, row.effect_high, row.smallest, row.largest],
            [np.mean(values), *interval, min(values), max(values)],
            atol=1e-9,
        )
        # All or none of n: the exact interval has a closed form.
        bound = 0.025 ** (1 / len(values))
        ends = (bound, 1) if causal else (0, 1 - bound)
        np.testing.assert_allclose([row.share_low, row.share_high], ends, atol=1e-9)
    (row,) = between_kinds(verdicts, kinds, "bilinear", "relu").itertuples()
    welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    expected = [np.mean(first) - np.mean(second), *welch]
    np.testing.assert_allclose([row.difference, row.low, row.high], expected, atol=1e-9)


def test_one_agent_has_no_interval():
    (row,) = over_agents({"a": verdict([0.5], "contradicted")}, {"a": "x"}).itertuples()
    assert np.isnan(row.effect_low) and np.isnan(row.effect_high) and row.contradicted == 1
    assert row.share == 0 and row.share_high == pytest.approx(0.975)


def test_claims_that_only_some_have():
    verdicts = {"a": verdict([0.5, 0.2]), "b": verdict([0.7])}
    found = over_agents(verdicts, {"a": "x", "b": "x"}).set_index("claim")
    assert found.agents.to_dict() == {"difference: sufficient": 2, "difference: necessary": 1}


@pytest.mark.parametrize(
    ("verdicts", "kinds", "why"),
    [
        ({}, {}, "expected those of at least one agent"),
        ({"a": verdict([1.0])}, {}, "kinds: none is given for a"),
        ({"a": verdict([1.0]).drop(columns="effect")}, {"a": "x"}, "verdict of a lacks effect"),
        ({"a": pd.concat([verdict([1.0])] * 2)}, {"a": "x"}, "has a claim twice: difference"),
    ],
)
def test_bad_input(verdicts, kinds, why):
    with pytest.raises(ValueError, match=why):
        over_agents(verdicts, kinds)
    with pytest.raises(ValueError, match=r"no agent is of kind 'y'; choose from x"):
        between_kinds({"a": verdict([1.0])}, {"a": "x"}, "x", "y")
