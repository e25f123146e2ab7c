import pytest

from rlbilinear.probes.steps.result import Claim


def verdict(effect, low, high, control=0.0, p=0.001, **kwargs):
    claim = Claim("d: does", effect, low, high, control, p, 0.5, 0.1, "figure", **kwargs)
    return claim.verdict(claim.p)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ((0.7, 0.6, 0.8), "causal"),
        ((0.6, 0.5, 0.7), "not shown"),  # the interval reaches the bound
        ((0.55, 0.4, 0.7), "not shown"),
        ((0.7, 0.6, 0.8, 0.0, 0.05), "not shown"),  # p must be below
        ((0.7, 0.6, 0.8, 0.0, 0.049), "causal"),
        ((0.7, 0.6, 0.8, 0.9), "not shown"),  # the control does more
        ((0.7, 0.6, 0.8, 0.7), "not shown"),
        ((0.05, 0.0, 0.09), "contradicted"),
        ((0.05, 0.0, 0.09, 0.0, 1.0), "contradicted"),  # negligible, and like its control
        ((0.05, 0.0, 0.1), "not shown"),
        ((0.3, 0.2, 0.4), "not shown"),
        ((-0.3, -0.4, -0.2), "contradicted"),
        ((float("nan"), float("nan"), float("nan")), "not shown"),
    ],
)
def test_verdicts_of_effects_that_should_be_large(measured, expected):
    assert verdict(*measured) == expected


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ((0.02, 0.01, 0.04), "causal"),
        ((0.02, 0.01, 0.05), "not shown"),
        ((0.02, 0.01, 0.04, 0.01), "not shown"),  # it does as little with a cheese
        ((0.02, 0.01, 0.04, 0.3, 0.2), "not shown"),
        ((0.2, 0.1, 0.3), "contradicted"),
        ((0.2, 0.05, 0.3), "not shown"),
    ],
)
def test_verdicts_of_effects_that_should_be_small(measured, expected):
    defaults = (0.0, 0.0, 0.0, 0.3, 0.001)
    effect, low, high, control, p = measured + defaults[len(measured) :]
    claim = Claim("d: is", effect, low, high, control, p, 0.05, 0.05, "table", smaller=True)
    assert claim.verdict(p) == expected
