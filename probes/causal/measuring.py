"""What is claimed of one subspace of a layer, each effect beside controls of equal size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float

from rlbilinear.probes.causal.at_layer import AtLayer
from rlbilinear.probes.causal.interventions import (
    LogBehaviour,
    ablated_in_weights,
    follows,
    log_behaviour,
    moved,
    spread,
)
from rlbilinear.probes.causal.subspaces import Basis
from rlbilinear.probes.steps.result import Claim
from rlbilinear.statistics import against_all, bootstrap_interval, level_means, smallest_effect

FOLLOW = (0.5, 0.1)
LOSS = (0.1, 0.02)
SPECIFIC = (0.05, 0.05)
"""Bounds of a claim: shown beyond the first, contradicted beyond the second."""


class Measured:
    """What is claimed of one subspace, all on the same pairs.

    Args:
        at: the concept at a layer.
        name: of the subspace.
        basis: of the subspace.

    Attributes:
        claims: in the order sufficient, necessary, specific, steerable; those that the data do not
            allow are left out.
        rows: a row a claim, as in `Answer.effects`.
        weights: the largest difference of a probability between the ablation in the weights and in
            the activations; None where it is no edit of weights.
        not_finite: share of the pairs that some edit drove out of the finite range.
    """

    def __init__(self, at: AtLayer, name: str, basis: Basis) -> None:
        self.at, self.name, self.basis = at, name, basis
        self.claims: list[Claim] = []
        self.rows: list[dict[str, object]] = []
        self.not_finite = 0.0
        self._controls = at.controls_of(basis)
        self._ablated = at.here.ablate(basis)
        self._sufficient()
        self._necessary()
        self._specific()
        self._steerable()
        self.weights = self._in_weights()

    def _sufficient(self) -> None:
        """Exchange the subspace alone, and see whether what is right in the source is done."""
        here, wanted = self.at.here, self.at.what.source
        own = follows(here.exchange(self.basis), wanted)
        others = {
            kind: _mean(follows(here.exchange(each, like=self.basis), wanted) for each in bases)
            for kind, bases in self._controls.items()
        }
        self._add("sufficient", own, others, FOLLOW)

    def _necessary(self) -> None:
        """Hold the subspace at its mean, and see what the right behaviour loses."""
        at = self.at
        size = spread(at.fit_rows, at.mean, self.basis)

        def control(basis: Basis) -> LogBehaviour:
            factor = 1 - size / spread(at.fit_rows, at.mean, basis)
            return at.here.ablate(basis, factor=factor)

        others = {
            kind: _mean(self._loss(control(each)) for each in bases)
            for kind, bases in self._controls.items()
        }
        self._add("necessary", self._loss(self._ablated), others, LOSS)

    def _specific(self) -> None:
        """Hold it at its mean where the concept is not, and see how far the policy moves."""
        at = self.at
        if at.unrelated is None or at.unrelated_own is None or at.data.unrelated is None:
            return
        groups, pairs = at.data.unrelated.groups, at.what.pairs
        away = moved(at.unrelated_own, at.here.ablate(self.basis, at.unrelated))
        there = moved(at.own, self._ablated)
        both = np.intersect1d(groups, pairs.groups)
        without, with_it = (
            _by_group(values, of, both) for values, of in ((away, groups), (there, pairs.groups))
        )
        others = {"with the concept": with_it}
        self._add("specific", without, others, SPECIFIC, both, smaller=True)

    def _steerable(self) -> None:
        """Move the concept along the subspace by what fitting pairs tell.

        The controls write the same amounts along their own directions.
        """
        if self.at.shift is None:
            return
        here, wanted, along = self.at.here, self.at.what.source, self.at.shift(self.basis)

        def control(basis: Basis) -> LogBehaviour:
            rank = min(len(basis), along.shape[2])
            return here.add(along[..., :rank] @ basis[:rank])

        others = {
            kind: _mean(follows(control(each), wanted) for each in bases)
            for kind, bases in self._controls.items()
        }
        self._add("steerable", follows(here.add(along @ self.basis), wanted), others, FOLLOW)

    def _in_weights(self) -> float | None:
        """Compare ablation in the weights with that in the activations."""
        at = self.at
        edited = ablated_in_weights(at.subject, at.name, self.basis, at.mean)
        if edited is None:
            return None
        in_weights = log_behaviour(edited.logits(at.what.pairs.base), at.data.behaviours)
        return float((in_weights.exp() - self._ablated.exp()).abs().max())

    def _loss(self, after: LogBehaviour) -> Float[np.ndarray, "n"]:
        right = self.at.what.base
        before, now = (each[np.arange(len(right)), right].exp() for each in (self.at.own, after))
        return (before - now).numpy()

    def _add(
        self,
        claim: str,
        own: Float[np.ndarray, "n"],
        controls: Mapping[str, Float[np.ndarray, "n"]],
        bounds: tuple[float, float],
        groups: np.ndarray | None = None,
        *,
        smaller: bool = False,
    ) -> None:
        groups = self.at.what.pairs.groups if groups is None else groups
        finite: Bool[np.ndarray, "n"] = np.isfinite(own)
        for values in controls.values():
            finite = finite & np.isfinite(values)
        self.not_finite = max(self.not_finite, float(1 - finite.mean()))
        own, groups = own[finite], groups[finite]
        others = {kind: values[finite] for kind, values in controls.items()}
        value = bootstrap_interval(own, groups, seed=self.at.seed)
        versus = against_all(own, others, groups, seed=self.at.seed)
        control = bootstrap_interval(others[versus.strongest], groups, seed=self.at.seed)
        apart = level_means(own - others[versus.strongest], groups)
        self.claims.append(
            Claim(
                f"{self.name}: {claim}",
                *value,
                control=versus.control,
                p=versus.p_value,
                shown=bounds[0],
                negligible=bounds[1],
                decided_by="effects",
                smaller=smaller,
            )
        )
        self.rows.append(
            {
                "direction": self.name,
                "claim": claim,
                "effect": value.estimate,
                "low": value.low,
                "high": value.high,
                "control": control.estimate,
                "control_low": control.low,
                "control_high": control.high,
                "strongest": versus.strongest,
                "p": versus.p_value,
                "groups": len(apart),
                "smallest": smallest_effect(len(apart), float(apart.std(ddof=1))),
            }
        )


def _mean(values: Iterable[Float[np.ndarray, "n"]]) -> Float[np.ndarray, "n"]:
    return np.mean([*values], 0)


def _by_group(
    values: Float[np.ndarray, "n"], groups: np.ndarray, wanted: np.ndarray
) -> Float[np.ndarray, "groups"]:
    return np.array([values[groups == group].mean() for group in wanted])
