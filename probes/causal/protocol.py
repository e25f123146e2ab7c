"""The causal questions about one concept at one layer of a policy: by which directions it is used.

Directions are fitted on the fitting groups, every claim is decided on the others. Each effect
stands beside controls of equal size, and must exceed all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from rlbilinear.probes.causal.choosing import Asked, asked, candidate_layers
from rlbilinear.probes.causal.data import ConceptData, Counterfactuals, permute_labels
from rlbilinear.probes.causal.interventions import (
    Layer,
    LogBehaviour,
    ablated_in_weights,
    follows,
    log_behaviour,
    moved,
    shifts,
    spread,
)
from rlbilinear.probes.causal.subspaces import (
    Basis,
    Reading,
    chance,
    control_subspaces,
    fit_reading,
    principal_subspace,
    rows_of,
    tested,
)
from rlbilinear.probes.steps.result import Claim
from rlbilinear.probes.subject import Subject
from rlbilinear.statistics import (
    against_all,
    bootstrap_interval,
    level_means,
    smallest_effect,
)

FOLLOW = (0.5, 0.1)
LOSS = (0.1, 0.02)
SPECIFIC = (0.05, 0.05)
"""Bounds of a claim: shown beyond the first, contradicted beyond the second."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What was measured at one layer.

    Attributes:
        layer: where.
        rank: rank of the difference subspace.
        readable: how well the concept is read there; see `readability`.
        claims: what is claimed of each subspace, with its effect and controls.
        effects: a row a claim: ``direction``, ``claim``, ``effect``, ``low``, ``high``,
            ``control`` with ``control_low`` and ``control_high``, ``strongest`` (which control it
            is), ``p``, ``groups``, ``smallest`` (the difference from that control that so many
            groups show with probability 0.8).
        left_out: claims that could not be asked, with the reason.
        weights: whether the ablation was made in the weights, and how far it is from the same in
            the activations: the largest difference of a log-probability.
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


def readability(
    subject: Subject,
    data: ConceptData,
    layer: str,
    reading: Reading,
    fit_outputs: Tensor,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Score the reading on held-out states, beside what it must beat.

    Returns:
        A row each for ``probe``, ``permuted labels``, ``untrained network`` and ``base rate``:
        ``score`` with ``low`` and ``high``; and for the first, ``p`` of exceeding the base rate and
        permuted labels. (A network need not be trained to pass a concept on.)
    """
    held_out, labels = data.held_out, np.asarray(data.held_out.labels)
    outputs = subject.activations(held_out.observations, [layer])[layer]
    blank = subject.untrained(seed + 1)
    blank_fit, blank_outputs = (
        blank.activations(each.observations, [layer])[layer] for each in (data.fit, held_out)
    )
    permuted = fit_reading(fit_outputs, permute_labels(data.fit, seed), data.kind)
    scores = {
        "probe": reading.score(outputs, labels),
        "permuted labels": permuted.score(outputs, labels),
        "untrained network": fit_reading(blank_fit, data.fit, data.kind).score(
            blank_outputs, labels
        ),
        "base rate": chance(data.kind, np.asarray(data.fit.labels), labels),
    }
    known = np.isfinite(scores["probe"])
    groups = held_out.groups[known]
    scores = {name: values[known] for name, values in scores.items()}
    rows = []
    for name, values in scores.items():
        value = bootstrap_interval(values, groups, seed=seed)
        row = {"name": name, "score": value.estimate, "low": value.low, "high": value.high}
        if name == "probe":
            others = {key: scores[key] for key in ("permuted labels", "base rate")}
            row["p"] = against_all(values, others, groups, seed=seed).p_value
        rows.append(row)
    return pd.DataFrame(rows)


def answer(
    subject: Subject,
    data: ConceptData,
    layer: str,
    rank: int,
    *,
    controls: int = 5,
    seed: int = 0,
) -> Answer:
    """Ask every causal question at one layer.

    Args:
        subject: the policy.
        data: the concept.
        layer: where.
        rank: rank of the difference subspace.
        controls: how many random subspaces.
        seed: seed of everything random.

    Raises:
        ValueError: a layer at which the concept cannot be asked about, or a rank that it has not.
    """
    allowed = candidate_layers(subject, data)
    if layer not in allowed:
        raise ValueError(f"{data.name}: unknown layer {layer!r}; choose from {', '.join(allowed)}")
    fit_outputs = subject.activations(data.fit.observations, [layer])[layer]
    fit_rows = rows_of(fit_outputs, data.kind)
    if not 1 <= rank <= fit_rows.shape[2]:
        raise ValueError(f"rank: expected 1 to {fit_rows.shape[2]} at {layer}, got {rank}")
    mean = fit_rows.mean(0)
    fitting = asked(subject, data, data.fit_pairs).pairs
    what = asked(subject, data, data.pairs)
    at_fit, here = (
        Layer.of(subject, layer, data.kind, data.behaviours, pairs, mean)
        for pairs in (fitting, what.pairs)
    )
    subspaces, reading = tested(data, fit_outputs, at_fit.change, fitting, rank)
    shared = control_subspaces(data, subject, layer, fit_outputs, rank, count=controls, seed=seed)
    measured = _Measured(subject, data, what, here, seed)
    unrelated = None
    if data.unrelated is not None:
        outputs = subject.activations(data.unrelated.observations, [layer])[layer]
        unrelated = rows_of(outputs, data.kind)
    template = shifts(at_fit, fitting, what.pairs)
    weights: dict[str, float | None] = {}
    for name, basis in subspaces.items():
        others = {**shared, "principal": [principal_subspace(fit_rows, basis)]}
        size = spread(fit_rows, mean, basis)
        measured.sufficient(name, basis, others)
        measured.necessary(
            name,
            basis,
            {
                kind: [(b, 1 - size / spread(fit_rows, mean, b)) for b in bases]
                for kind, bases in others.items()
            },
        )
        if unrelated is not None and data.unrelated is not None:
            measured.specific(name, basis, unrelated, data.unrelated.groups)
        if template is not None:
            measured.steerable(name, basis, template(basis), others)
        weights[name] = _weights_check(subject, layer, data, here, what.pairs, basis)
    left_out = {}
    if unrelated is None:
        left_out["specific"] = "no states without the concept were given"
    if template is None:
        left_out["steerable"] = (
            "the pairs do not say where the concept is"
            if data.kind == "map"
            else "the pairs do not say the concept's values"
        )
    return Answer(
        layer,
        rank,
        readability(subject, data, layer, reading, fit_outputs, seed=seed),
        tuple(measured.claims),
        pd.DataFrame(measured.rows),
        left_out,
        weights,
        measured.not_finite,
    )


class _Measured:
    """Gathers claims on the same pairs."""

    def __init__(
        self, subject: Subject, data: ConceptData, what: Asked, layer: Layer, seed: int
    ) -> None:
        self.data, self.what, self.layer, self.seed = data, what, layer, seed
        self.own = log_behaviour(subject.logits(what.pairs.base), data.behaviours)
        self.claims: list[Claim] = []
        self.rows: list[dict[str, object]] = []
        self.not_finite = 0.0

    def sufficient(self, name: str, basis: Basis, controls: Mapping[str, Sequence[Basis]]) -> None:
        """Exchange the subspace alone, and see whether what is right in the source is done."""
        own = follows(self.layer.exchange(basis), self.what.source)
        others = {
            kind: _mean(
                follows(self.layer.exchange(b, like=basis), self.what.source) for b in bases
            )
            for kind, bases in controls.items()
        }
        self._add(name, "sufficient", own, others, FOLLOW)

    def necessary(
        self,
        name: str,
        basis: Basis,
        controls: Mapping[str, Sequence[tuple[Basis, float]]],
    ) -> None:
        """Hold the subspace at its mean, and see what the right behaviour loses."""
        own = self._loss(self.layer.ablate(basis))
        others = {
            kind: _mean(self._loss(self.layer.ablate(b, factor=factor)) for b, factor in bases)
            for kind, bases in controls.items()
        }
        self._add(name, "necessary", own, others, LOSS)

    def specific(self, name: str, basis: Basis, unrelated: Tensor, groups: np.ndarray) -> None:
        """Hold it at its mean where the concept is not, and see how far the policy moves."""
        before, after = self.layer.behaviour(unrelated), self.layer.ablate(basis, unrelated)
        away = moved(before, after)
        there = moved(self.own, self.layer.ablate(basis))
        both = np.intersect1d(groups, self.what.pairs.groups)
        without, with_it = (
            _by_group(values, of, both)
            for values, of in ((away, groups), (there, self.what.pairs.groups))
        )
        self._add(
            name, "specific", without, {"with the concept": with_it}, SPECIFIC, both, smaller=True
        )

    def steerable(
        self,
        name: str,
        basis: Basis,
        along: Float[Tensor, "n positions rank"],
        controls: Mapping[str, Sequence[Basis]],
    ) -> None:
        """Move the concept along the subspace by what fitting pairs tell.

        The controls write the same amounts along their own directions.
        """
        own = follows(self.layer.add(along @ basis), self.what.source)
        others = {}
        for kind, bases in controls.items():
            ranks = [min(len(b), along.shape[2]) for b in bases]
            others[kind] = _mean(
                follows(self.layer.add(along[..., :rank] @ b[:rank]), self.what.source)
                for b, rank in zip(bases, ranks, strict=True)
            )
        self._add(name, "steerable", own, others, FOLLOW)

    def _loss(self, after: LogBehaviour) -> Float[np.ndarray, "n"]:
        states = np.arange(len(self.what.base))
        before, now = (each[states, self.what.base].exp() for each in (self.own, after))
        return (before - now).numpy()

    def _add(
        self,
        name: str,
        claim: str,
        own: Float[np.ndarray, "n"],
        controls: Mapping[str, Float[np.ndarray, "n"]],
        bounds: tuple[float, float],
        groups: np.ndarray | None = None,
        *,
        smaller: bool = False,
    ) -> None:
        groups = self.what.pairs.groups if groups is None else groups
        finite: Bool[np.ndarray, "n"] = np.isfinite(own)
        for values in controls.values():
            finite = finite & np.isfinite(values)
        self.not_finite = max(self.not_finite, float(1 - finite.mean()))
        own, groups = own[finite], groups[finite]
        others = {kind: values[finite] for kind, values in controls.items()}
        value = bootstrap_interval(own, groups, seed=self.seed)
        versus = against_all(own, others, groups, seed=self.seed)
        control = bootstrap_interval(others[versus.strongest], groups, seed=self.seed)
        apart = level_means(own - others[versus.strongest], groups)
        self.claims.append(
            Claim(
                f"{name}: {claim}",
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
                "direction": name,
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


def _weights_check(
    subject: Subject,
    layer: str,
    data: ConceptData,
    here: Layer,
    pairs: Counterfactuals,
    basis: Basis,
) -> float | None:
    """Compare ablation in weights with that in activations; None where it is not an edit."""
    edited = ablated_in_weights(subject, layer, basis, here.mean)
    if edited is None:
        return None
    in_weights = log_behaviour(edited.logits(pairs.base), data.behaviours)
    return float((in_weights.exp() - here.ablate(basis).exp()).abs().max())


def _mean(values: Iterable[Float[np.ndarray, "n"]]) -> Float[np.ndarray, "n"]:
    return np.mean([*values], 0)


def _by_group(
    values: Float[np.ndarray, "n"], groups: np.ndarray, wanted: np.ndarray
) -> Float[np.ndarray, "groups"]:
    return np.array([values[groups == group].mean() for group in wanted])
