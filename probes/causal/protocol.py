"""The causal questions about one concept at one layer of a policy: by which directions it is used.

Directions are fitted on the fitting groups, every claim is decided on the others. Each effect
stands beside controls of equal size, and must exceed all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from rlbilinear.probes.causal.at_layer import AtLayer
from rlbilinear.probes.causal.data import ConceptData
from rlbilinear.probes.causal.measuring import Measured
from rlbilinear.probes.steps.result import Claim
from rlbilinear.probes.subject import Subject


@dataclass(frozen=True, eq=False)
class Answer:
    """What was measured at one layer.

    Attributes:
        layer: where.
        rank: rank of the difference subspace.
        readable: how well the concept is read there; see `AtLayer.readable`.
        claims: what is claimed of each subspace, with its effect and controls.
        effects: a row a claim: ``direction``, ``claim``, ``effect``, ``low``, ``high``,
            ``control`` with ``control_low`` and ``control_high``, ``strongest`` (which control it
            is), ``p``, ``groups``, ``smallest`` (the difference from that control that so many
            groups show with probability 0.8).
        left_out: claims that could not be asked, with the reason.
        weights: whether the ablation was made in the weights, and how far it is from the same in
            the activations: the largest difference of a probability.
        not_finite: share of the pairs that some edit drove out of the finite range.
    """

    layer: str
    rank: int
    readable: pd.DataFrame
    claims: tuple[Claim, ...]
    effects: pd.DataFrame
    left_out: Mapping[str, str]
    weights: Mapping[str, float | None]
    not_finite: float


class Questions:
    """Every causal question at one layer, for any rank of the difference subspace.

    The probe and its pattern have no rank to choose: what is asked of them is asked once.

    Args:
        subject: the policy.
        data: the concept.
        layer: where.
        controls: how many random subspaces.
        seed: seed of everything random.

    Raises:
        ValueError: a layer at which the concept cannot be asked about.
    """

    def __init__(
        self,
        subject: Subject,
        data: ConceptData,
        layer: str,
        *,
        controls: int = 5,
        seed: int = 0,
    ) -> None:
        self._at = AtLayer(subject, data, layer, controls, seed)

    def answer(self, rank: int) -> Answer:
        """Ask with so many difference directions.

        Raises:
            ValueError: a rank that the layer has not.
        """
        at, difference = self._at, self._at.difference(rank)
        measured = [*self._without_rank, Measured(at, "difference", difference)]
        left_out = {}
        if at.unrelated is None:
            left_out["specific"] = "no states without the concept were given"
        if at.shift is None:
            left_out["steerable"] = (
                "the pairs do not say where the concept is"
                if at.data.kind == "map"
                else "the pairs do not say the concept's values"
            )
        return Answer(
            at.name,
            rank,
            at.readable,
            tuple(claim for each in measured for claim in each.claims),
            pd.DataFrame([row for each in measured for row in each.rows]),
            left_out,
            {each.name: each.weights for each in measured},
            max(each.not_finite for each in measured),
        )

    @cached_property
    def _without_rank(self) -> list[Measured]:
        return [Measured(self._at, name, basis) for name, basis in self._at.directions.items()]


def answer(
    subject: Subject,
    data: ConceptData,
    layer: str,
    rank: int,
    *,
    controls: int = 5,
    seed: int = 0,
) -> Answer:
    """Ask every causal question at one layer; see `Questions`.

    Raises:
        ValueError: a layer at which the concept cannot be asked about, or a rank that it has not.
    """
    return Questions(subject, data, layer, controls=controls, seed=seed).answer(rank)
