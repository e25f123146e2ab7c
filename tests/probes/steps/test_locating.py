import numpy as np
import pytest

from rlbilinear.probes.interventions import Interchange, Intervention, logits_under
from rlbilinear.probes.moves import move_distribution
from rlbilinear.probes.steps.locating import locate_concept


def test_sufficiency_is_the_interchange_of_one_direction(study):
    part = locate_concept(study)
    base, source = study.pairs.base, study.pairs.source
    for claim in part.claims:
        direction = study.directions[claim.claim.split(":")[0]]
        change = Intervention("block2", Interchange(source.observations), direction[None])
        moves = move_distribution(logits_under(study.agent, base.observations, [change]))
        assert claim.effect == pytest.approx((moves.argmax(1) == source.moves).mean())
    followed = {}
    for kind, directions in study.controls.items():
        changes = [
            Intervention("block2", Interchange(source.observations), direction[None])
            for direction in directions
        ]
        moves = [
            move_distribution(logits_under(study.agent, base.observations, [change]))
            for change in changes
        ]
        followed[kind] = np.mean([each.argmax(1) == source.moves for each in moves])
    cosines = part.tables["controls"].set_index("control")["cosine with probe"]
    for kind, directions in study.controls.items():
        by_hand = [abs(float(each @ study.directions["probe"])) for each in directions]
        assert cosines[[kind]].tolist() == pytest.approx(by_hand)
    strongest = max(followed.values())
    assert [claim.control for claim in part.claims] == pytest.approx([strongest] * 3)
