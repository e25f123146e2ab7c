import numpy as np
import pytest

from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.interventions import Interchange, Intervention, run
from rlbilinear.probes.moves import move_distribution
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.reading import fit_probe, probe_report
from rlbilinear.probes.steps.finding import locate, read_concept, trace
from rlbilinear.probes.study import LEAST, Sizes, prepare

TINY = Sizes(**LEAST)


@pytest.mark.parametrize("layer", ["pool1", "block1", "relu1"])
def test_without_bilinear_blocks_the_text_says_so(relu_agent, layer):
    study = prepare(relu_agent, layer, cheese_presence, sizes=TINY, progress=False)
    part = trace(study)
    assert "No bilinear layer writes at this layer" in part.section.text
    assert "No bilinear layer reads this layer's output" in part.section.text
    assert part.tables["readers"].empty and part.tables["partners"].empty
    assert part.tables["writers"]["writer"].unique().tolist() == [layer]
    assert not any("eigenfilters" in name for name in (*part.tables, *part.figures))


def test_sufficiency_is_the_interchange_of_one_direction(study):
    part = locate(study)
    base, source = study.pairs.base, study.pairs.source
    for claim in part.claims:
        direction = study.directions[claim.claim.split(":")[0]]
        change = Intervention("block2", Interchange(source.observations), direction[None])
        moves = move_distribution(run(study.agent, base.observations, [change]))
        assert claim.effect == pytest.approx((moves.argmax(1) == source.moves).mean())
    followed = {}
    for kind, directions in study.controls.items():
        changes = [
            Intervention("block2", Interchange(source.observations), direction[None])
            for direction in directions
        ]
        moves = [
            move_distribution(run(study.agent, base.observations, [change])) for change in changes
        ]
        followed[kind] = np.mean([each.argmax(1) == source.moves for each in moves])
    cosines = part.tables["controls"].set_index("control")["cosine with probe"]
    for kind, directions in study.controls.items():
        by_hand = [abs(float(each @ study.directions["probe"])) for each in directions]
        assert cosines[[kind]].tolist() == pytest.approx(by_hand)
    strongest = max(followed.values())
    assert [claim.control for claim in part.claims] == pytest.approx([strongest] * 3)


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
