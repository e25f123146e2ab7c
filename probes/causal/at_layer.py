"""What all questions about a concept at one layer have in common, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.probes.causal.choosing import Asked, asked, candidate_layers
from rlbilinear.probes.causal.data import ConceptData, Counterfactuals, Examples, permute_labels
from rlbilinear.probes.causal.interventions import Layer, LogBehaviour, Shift, log_behaviour, shifts
from rlbilinear.probes.causal.readings import (
    Features,
    Reading,
    chance,
    fit_reading,
    read_directions,
)
from rlbilinear.probes.causal.subspaces import (
    Basis,
    Rows,
    difference_subspace,
    orthonormal,
    principal_subspace,
    rows_of,
)
from rlbilinear.probes.subject import Subject
from rlbilinear.statistics import against_all, bootstrap_interval

REFITTED = 3
"""Permuted labellings and untrained networks of a control: one alone may hit upon the concept."""
CONTROLS = {
    "random": "random directions",
    "principal": "the directions in which the layer varies most, apart from the tested one",
    "permuted probe": "a probe for the labels of other groups",
    "other probe": "a probe for another concept",
    "untrained network": "the difference directions of the same network with initial weights",
}
"""What every effect must exceed; each is scaled to change the output as much."""


@dataclass(frozen=True, eq=False)
class AtLayer:
    """A concept at a layer of a policy.

    Attributes:
        subject: the policy.
        data: the concept.
        name: the layer.
        controls: how many random subspaces.
        seed: seed of everything random.

    Raises:
        ValueError: a layer at which the concept cannot be asked about.
    """

    subject: Subject
    data: ConceptData
    name: str
    controls: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = candidate_layers(self.subject, self.data)
        if self.name not in allowed:
            raise ValueError(
                f"{self.data.name}: unknown layer {self.name!r}; choose from {', '.join(allowed)}"
            )

    @cached_property
    def features(self) -> Features:
        """The layer's outputs on the fitting states."""
        return Features(self._outputs(self.data.fit.observations), self.data.kind)

    @cached_property
    def fit_rows(self) -> Rows:
        """The same as rows."""
        return rows_of(self.features.outputs, self.data.kind)

    @cached_property
    def mean(self) -> Float[Tensor, "positions dimension"]:
        """Over the fitting states, of one output's rows."""
        return self.fit_rows.mean(0)

    @cached_property
    def fitting(self) -> Counterfactuals:
        """The fitting pairs in which the behaviour should change."""
        return asked(self.subject, self.data, self.data.fit_pairs).pairs

    @cached_property
    def what(self) -> Asked:
        """The held-out pairs, and what is right in them."""
        return asked(self.subject, self.data, self.data.pairs)

    @cached_property
    def at_fit(self) -> Layer:
        """The layer on the fitting pairs."""
        return self._layer(self.fitting)

    @cached_property
    def here(self) -> Layer:
        """The layer on the held-out pairs."""
        return self._layer(self.what.pairs)

    @cached_property
    def own(self) -> LogBehaviour:
        """What the policy does in the bases of the held-out pairs."""
        return log_behaviour(self.subject.logits(self.what.pairs.base), self.data.behaviours)

    @cached_property
    def unrelated(self) -> Rows | None:
        """Rows of the layer where the concept is not, if such states were given."""
        given = self.data.unrelated
        return None if given is None else rows_of(self._outputs(given.observations), self.data.kind)

    @cached_property
    def unrelated_own(self) -> LogBehaviour | None:
        """What the policy does there."""
        return None if self.unrelated is None else self.here.behaviour(self.unrelated)

    @cached_property
    def shift(self) -> Shift | None:
        """How to move the concept along a subspace."""
        return shifts(self.at_fit, self.fitting, self.what.pairs)

    @cached_property
    def reading(self) -> Reading:
        """Of the concept, fitted to the fitting states."""
        return fit_reading(self.features, self.data.fit)

    @cached_property
    def permuted(self) -> list[Reading]:
        """Of the labels of other groups."""
        return [
            fit_reading(self.features, permute_labels(self.data.fit, self.seed + each))
            for each in range(min(self.controls, REFITTED))
        ]

    @cached_property
    def directions(self) -> dict[str, Basis]:
        """The subspaces put to the test that do not depend on a rank."""
        return read_directions(self.features, self.reading)

    def difference(self, rank: int) -> Basis:
        """Return the subspace that changes most when only the concept does.

        Raises:
            ValueError: a rank that the layer has not.
        """
        most = self.fit_rows.shape[2]
        if not 1 <= rank <= most:
            raise ValueError(f"rank: expected 1 to {most} at {self.name}, got {rank}")
        return difference_subspace(self.at_fit.change, self.fitting, self.data.kind, rank)

    def controls_of(self, basis: Basis) -> Mapping[str, list[Basis]]:
        """Return the subspaces that should do nothing, by kind; see `CONTROLS`.

        Random, principal and untrained ones have as many directions as the tested one. A control
        that the data do not allow (no other concept's labels) is left out.
        """
        rank, dimension = basis.shape
        generator = torch.Generator().manual_seed(self.seed)
        random = [
            torch.linalg.qr(
                torch.randn(dimension, rank, generator=generator, dtype=torch.float64)
            ).Q.T
            for _ in range(self.controls)
        ]
        return {
            "random": random,
            **self._other_readings,
            "untrained network": [
                difference_subspace(change, self.data.fit_pairs, self.data.kind, rank)
                for change in self._untrained_changes
            ],
            "principal": [principal_subspace(self.fit_rows, basis)],
        }

    @cached_property
    def readable(self) -> pd.DataFrame:
        """How well the concept is read on held-out states, beside what a reading must beat.

        A row each for ``probe``, ``permuted labels``, ``untrained network`` and ``base rate``:
        ``score`` with ``low`` and ``high``; and for the first, ``p`` of exceeding the base rate and
        permuted labels. (A network need not be trained to pass a concept on.)
        """
        data, seed = self.data, self.seed
        labels = np.asarray(data.held_out.labels)
        outputs = self._outputs(data.held_out.observations)
        blank = self.subject.untrained(seed + 1)
        blank_fit, blank_outputs = (
            blank.activations(each.observations, [self.name])[self.name]
            for each in (data.fit, data.held_out)
        )
        untrained = fit_reading(Features(blank_fit, data.kind), data.fit)
        scores = {
            "probe": self.reading.score(outputs, labels),
            "permuted labels": self.permuted[0].score(outputs, labels),
            "untrained network": untrained.score(blank_outputs, labels),
            "base rate": chance(data.kind, np.asarray(data.fit.labels), labels),
        }
        known = np.isfinite(scores["probe"])
        groups = data.held_out.groups[known]
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

    @cached_property
    def _other_readings(self) -> dict[str, list[Basis]]:
        found = {"permuted probe": [_weights(each) for each in self.permuted]}
        if self.data.other is not None:
            fit = self.data.fit
            other = Examples(fit.observations, self.data.other, fit.groups)
            found["other probe"] = [_weights(fit_reading(self.features, other))]
        return found

    @cached_property
    def _untrained_changes(self) -> list[Rows]:
        pairs, changes = self.data.fit_pairs, []
        for each in range(min(self.controls, REFITTED)):
            blank = self.subject.untrained(self.seed + 1 + each)
            base, source = (
                rows_of(blank.activations(side, [self.name])[self.name], self.data.kind)
                for side in (pairs.base, pairs.source)
            )
            changes.append(source - base)
        return changes

    def _outputs(self, observations: np.ndarray) -> Float[Tensor, "n *output"]:
        return self.subject.activations(observations, [self.name])[self.name]

    def _layer(self, pairs: Counterfactuals) -> Layer:
        return Layer.of(
            self.subject, self.name, self.data.kind, self.data.behaviours, pairs, self.mean
        )


def _weights(reading: Reading) -> Basis:
    return orthonormal(torch.from_numpy(np.atleast_2d(reading.weights)).double())
