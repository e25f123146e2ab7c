"""The directions put to the test at a layer, and those set beside them.

A *map* concept is in places, so its directions are of channels, the same at every position. A
*class* or *scalar* is one value of the whole state: its directions are of the whole output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold
from torch import Tensor

from rlbilinear.probes.causal.data import (
    ConceptData,
    Counterfactuals,
    Examples,
    Kind,
    permute_labels,
)
from rlbilinear.probes.concepts import area_weights
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.subject import Subject

Rows = Float[Tensor, "n positions dimension"]
Basis = Float[Tensor, "rank dimension"]

ALPHAS = (1e1, 1e2, 1e3, 1e4)
"""Penalties tried for readings of the whole output, which has more numbers than states."""
FOLDS = 4
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


def rows_of(outputs: Float[Tensor, "n *output"], kind: Kind) -> Rows:
    """Return outputs as rows: of channels at every position for a map, else of the whole output.

    In float64, on the processor.
    """
    flat = outputs.double().cpu()
    if kind == "map":
        return flat.flatten(2).movedim(1, 2)
    return flat.flatten(1)[:, None]


def outputs_of(rows: Rows, shape: tuple[int, ...], kind: Kind) -> Float[Tensor, "n *output"]:
    """Return rows as the outputs that they are of: the inverse of `rows_of`."""
    if kind == "map":
        rows = rows.movedim(2, 1)
    return rows.reshape(len(rows), *shape)


def part_along(rows: Rows, basis: Basis) -> Rows:
    """Return the component of rows in a subspace, given by an orthonormal basis."""
    return (rows @ basis.T) @ basis


@dataclass(frozen=True, eq=False)
class Reading:
    """A linear reading of the concept, fitted to examples.

    Attributes:
        weights: one row a target, over the dimension of `rows_of`.
        offset: of each target.
        values: of a class, the label that each target stands for.
    """

    weights: Float[np.ndarray, "targets dimension"]
    offset: Float[np.ndarray, "targets"]
    kind: Kind
    values: np.ndarray | None = None

    def score(
        self, outputs: Float[Tensor, "n *output"], labels: Shaped[np.ndarray, "n *label"]
    ) -> Float[np.ndarray, "n"]:
        """Score the reading of each state; NaN where a map's state has the concept nowhere.

        Of a map: the average precision of its cells. Of a class: 1 when it is right, else 0. Of a
        scalar: 1 - squared error / variance of the labels, whose mean is R².
        """
        rows = rows_of(outputs, self.kind).numpy()
        read = rows @ self.weights.T + self.offset
        if self.kind == "map":
            maps = read[..., 0].reshape(len(outputs), *outputs.shape[2:])
            return average_precision(per_label(maps, labels), labels)
        if self.kind == "class":
            assert self.values is not None
            return (self.values[read[:, 0].argmax(1)] == labels).astype(float)
        return 1 - (read[:, 0, 0] - labels) ** 2 / labels.var()


def average_precision(
    scores: Float[np.ndarray, "n rows columns"], labels: Float[np.ndarray, "n rows columns"]
) -> Float[np.ndarray, "n"]:
    """Return each state's average precision over its cells; NaN where no cell has the concept."""
    return np.array(
        [
            average_precision_score(wanted.ravel(), found.ravel()) if wanted.any() else np.nan
            for found, wanted in zip(scores, labels, strict=True)
        ]
    )


def chance(kind: Kind, fit: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, "n"]:
    """Score the best answer that is the same for all states, learned from the fitting labels."""
    if kind == "map":
        often = fit.mean(0) if fit.shape[1:] == labels.shape[1:] else 0.0
        always = np.broadcast_to(often, labels.shape)
        return average_precision(always, labels)
    if kind == "class":
        values, counts = np.unique(fit, return_counts=True)
        return (labels == values[counts.argmax()]).astype(float)
    return 1 - (fit.mean() - labels) ** 2 / labels.var()


def fit_reading(outputs: Float[Tensor, "n *output"], examples: Examples, kind: Kind) -> Reading:
    """Fit a reading: logistic for places; ridge for classes (one target each) and scalars.

    A ridge's penalty is chosen in cross-validation by group.
    """
    labels = np.asarray(examples.labels)
    if kind == "map":
        probe = LinearProbe().fit(per_label(outputs.cpu().numpy(), labels), labels, None)
        return Reading(probe.direction[None], np.array([probe.intercept_]), kind)
    x = rows_of(outputs, kind)[:, 0].numpy()
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1)
    values = np.unique(labels) if kind == "class" else None
    y = labels[:, None].astype(float) if values is None else (labels[:, None] == values) * 1.0
    standard = (x - mean) / scale
    errors = dict.fromkeys(ALPHAS, 0.0)
    folds = GroupKFold(min(FOLDS, len(np.unique(examples.groups))))
    for train, test in folds.split(standard, y, examples.groups):
        for alpha in ALPHAS:
            fitted = Ridge(alpha=alpha).fit(standard[train], y[train])
            predicted = fitted.predict(standard[test]).reshape(len(test), -1)
            errors[alpha] += float(np.square(predicted - y[test]).sum())
    model = Ridge(alpha=min(errors, key=lambda alpha: errors[alpha])).fit(standard, y)
    weights = np.reshape(model.coef_, (y.shape[1], -1)) / scale
    return Reading(weights, np.ravel(model.intercept_) - weights @ mean, kind, values)


def leading(rows: Rows, rank: int) -> Basis:
    """Return the leading right singular vectors of rows, positions counted as samples."""
    flat = rows.flatten(0, 1)
    dimension = flat.shape[1]
    if len(flat) < dimension:
        return torch.linalg.svd(flat, full_matrices=False).Vh[:rank]
    values = torch.linalg.eigh(flat.T @ flat)
    return values.eigenvectors.flip(1)[:, :rank].T.contiguous()


def difference_subspace(change: Rows, pairs: Counterfactuals, kind: Kind, rank: int) -> Basis:
    """Return the directions that change most when only the concept does.

    Of a concept in places, or where the pairs do not say its values: the leading singular vectors
    of all changes. Of a class: of the mean changes between each two values, so that what changes
    without regard to the values averages out. Of a scalar: of the slope of the change on the value
    (one direction), then of what is left.
    """
    base, source = pairs.base_value, pairs.source_value
    if kind == "map" or base is None or source is None:
        return leading(change, rank)
    if kind == "scalar":
        gap = torch.from_numpy(np.asarray(source - base, float))
        slope = torch.einsum("n,npd->pd", gap, change)
        first = slope / slope.norm().clamp(min=torch.finfo(slope.dtype).tiny)
        rest = leading(change - part_along(change, first), rank - 1) if rank > 1 else first[:0]
        return torch.cat([first, rest])
    moves, index = np.unique(np.stack([base, source], 1), axis=0, return_inverse=True)
    index = torch.from_numpy(index.reshape(-1))
    means = torch.stack([change[index == each].mean(0) for each in range(len(moves))])
    found = leading(means, rank)
    if len(found) < rank:
        rest = leading(change - part_along(change, found), rank - len(found))
        found = torch.cat([found, rest])
    return found


def orthonormal(directions: Float[Tensor, "n dimension"]) -> Basis:
    """Return an orthonormal basis of what directions span."""
    _, sizes, basis = torch.linalg.svd(directions, full_matrices=False)
    return basis[sizes > sizes.amax() * 1e-9]


def tested(
    data: ConceptData,
    fit_outputs: Float[Tensor, "n *output"],
    changes: Rows,
    pairs: Counterfactuals,
    rank: int,
) -> tuple[dict[str, Basis], Reading]:
    """Return the subspaces put to the test, and the reading that two of them are of.

    ``probe``: the reading's weights. ``pattern``: how the outputs change when the reading does
    (Haufe et al. 2014). ``difference``: what changes most when only the concept does; of ``rank``.
    """
    reading = fit_reading(fit_outputs, data.fit, data.kind)
    weights = torch.from_numpy(np.atleast_2d(reading.weights)).double()
    rows = rows_of(fit_outputs, data.kind).flatten(0, 1)
    centred = rows - rows.mean(0)
    pattern = (centred.T @ (centred @ weights.T)).T
    return {
        "probe": orthonormal(weights),
        "pattern": orthonormal(pattern),
        "difference": difference_subspace(changes, pairs, data.kind, rank),
    }, reading


def control_subspaces(
    data: ConceptData,
    subject: Subject,
    layer: str,
    fit_outputs: Float[Tensor, "n *output"],
    rank: int,
    *,
    count: int,
    seed: int,
) -> Mapping[str, list[Basis]]:
    """Return the subspaces that should do nothing, by kind, but for the principal ones.

    See `CONTROLS` and `principal_subspace`. A control that the data do not allow (no other
    concept's labels) is left out.
    """
    dimension = rows_of(fit_outputs[:1], data.kind).shape[2]
    generator = torch.Generator().manual_seed(seed)
    found = {
        "random": [
            torch.linalg.qr(
                torch.randn(dimension, rank, generator=generator, dtype=torch.float64)
            ).Q.T
            for _ in range(count)
        ],
        "permuted probe": [
            _weights(fit_reading(fit_outputs, permute_labels(data.fit, seed + each), data.kind))
            for each in range(min(count, REFITTED))
        ],
    }
    if data.other is not None:
        other = Examples(data.fit.observations, data.other, data.fit.groups)
        found["other probe"] = [_weights(fit_reading(fit_outputs, other, data.kind))]
    found["untrained network"] = []
    for each in range(min(count, REFITTED)):
        blank = subject.untrained(seed + 1 + each)
        base, source = (
            rows_of(blank.activations(side, [layer])[layer], data.kind)
            for side in (data.fit_pairs.base, data.fit_pairs.source)
        )
        found["untrained network"].append(
            difference_subspace(source - base, data.fit_pairs, data.kind, rank)
        )
    return found


def principal_subspace(rows: Rows, basis: Basis) -> Basis:
    """Return the directions in which rows vary most, apart from those of a subspace; as many."""
    centred = rows - rows.mean((0, 1))
    return leading(centred - part_along(centred, basis), len(basis))


def _weights(reading: Reading) -> Basis:
    return orthonormal(torch.from_numpy(np.atleast_2d(reading.weights)).double())


def per_label(maps: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average maps over the areas of the labels' cells; both have y = 0 at the top."""
    (height, width), (rows, columns) = maps.shape[-2:], labels.shape[-2:]
    return area_weights(height, rows) @ maps @ area_weights(width, columns).T
