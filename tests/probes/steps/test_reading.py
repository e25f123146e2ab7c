import pytest

from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.reading import fit_probe, probe_report
from rlbilinear.probes.steps.reading import read_concept
from rlbilinear.probes.study import LEAST, Sizes, prepare

TINY = Sizes(**LEAST)


def test_a_given_probe_is_the_one_that_is_scored(bilinear_agent, study):
    given = fit_probe(study.fit, "block2", cheese_presence, LinearProbe(alphas=(1e6,)))
    own = prepare(
        bilinear_agent, "block2", cheese_presence, probe=given, sizes=TINY, progress=False
    )
    part = read_concept(own)
    expected = probe_report(given, own.held_out, "block2", cheese_presence, n_resamples=300)
    found = part.tables["probe-by-layer"].set_index("layer").loc["block2"]
    for score in ("average_precision", "average_precision_low", "brier"):
        assert found[score] == pytest.approx(expected[score].item())
    assert f"precision {found['average_precision']:.3f} " in part.section.text
