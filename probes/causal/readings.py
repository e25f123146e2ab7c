"""Readings of a concept from a layer's outputs: how well it can be read, and by which weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import KernelCenterer
from torch import Tensor

from rlbilinear.probes.causal.data import Examples, Kind
from rlbilinear.probes.causal.subspaces import Basis, orthonormal, rows_of
from rlbilinear.probes.concepts import area_weights
from rlbilinear.probes.probe import LinearProbe

ALPHAS = (1e1, 1e2, 1e3, 1e4)
"""Penalties tried for readings of the whole output, which has more numbers than states."""
FOLDS = 4


@dataclass(frozen=True, eq=False)
class Reading:
    """A linear reading of the concept, fitted to examples.

    Attributes:
        weights: one row a target, over the dimension of `rows_of`.
        offset: of each target.
        values: for a class, the label that each target stands for.
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
    """Return each state's average precision over its cells; NaN where no cell has the concept.

    As scikit-learn's `average_precision_score`, for all states at once.
    """
    flat, wanted = scores.reshape(len(scores), -1), labels.reshape(len(labels), -1) > 0
    order = np.argsort(-flat, 1, kind="stable")
    ranked, wanted = (np.take_along_axis(each, order, 1) for each in (flat, wanted))
    places = np.arange(ranked.shape[1])
    # Equal scores count together: each stands at the last place of its equals.
    last = np.ones(ranked.shape, bool)
    last[:, :-1] = ranked[:, :-1] != ranked[:, 1:]
    ends = np.where(last, places, places[-1])[:, ::-1]
    ends = np.minimum.accumulate(ends, 1)[:, ::-1]
    found = np.take_along_axis(wanted.cumsum(1), ends, 1)
    number = wanted.sum(1)
    total = (wanted * found / (ends + 1)).sum(1)
    return np.divide(total, number, out=np.full(len(flat), np.nan), where=number > 0)


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


@dataclass(frozen=True, eq=False)
class Features:
    """A layer's outputs as readings are fitted to them; what they share is computed once.

    Attributes:
        outputs: on the fitting states.
        kind: of the concept that is read.
    """

    outputs: Float[Tensor, "n *output"]
    kind: Kind

    @cached_property
    def cells(self) -> dict[tuple[int, ...], Float[np.ndarray, "n channels rows columns"]]:
        """Maps averaged over the cells of labels, by the labels' shape, as far as asked for."""
        return {}

    @cached_property
    def mean(self) -> Float[np.ndarray, "dimension"]:
        """Of the whole output."""
        return self._flat.mean(0)

    @cached_property
    def scale(self) -> Float[np.ndarray, "dimension"]:
        """Standard deviation of each number of the output; 1 of a constant."""
        spread = self._flat.std(0)
        return np.where(spread > 0, spread, 1)

    @cached_property
    def standard(self) -> Float[np.ndarray, "n dimension"]:
        """The whole outputs, standardised."""
        return (self._flat - self.mean) / self.scale

    @cached_property
    def products(self) -> Float[np.ndarray, "n n"]:
        """Of all standardised outputs with each other."""
        return self.standard @ self.standard.T

    @property
    def _flat(self) -> Float[np.ndarray, "n dimension"]:
        return rows_of(self.outputs, self.kind)[:, 0].numpy()


def fit_reading(features: Features, examples: Examples) -> Reading:
    """Fit a reading: logistic for places; ridge for classes (one target each) and scalars.

    A ridge's penalty is chosen in cross-validation by group.
    """
    labels, kind = np.asarray(examples.labels), features.kind
    if kind == "map":
        if labels.shape[1:] not in features.cells:
            maps = per_label(features.outputs.cpu().numpy(), labels)
            features.cells[labels.shape[1:]] = maps
        probe = LinearProbe().fit(features.cells[labels.shape[1:]], labels, None)
        return Reading(probe.direction[None], np.array([probe.intercept_]), kind)
    values = np.unique(labels) if kind == "class" else None
    y = labels[:, None].astype(float) if values is None else (labels[:, None] == values) * 1.0
    errors = dict.fromkeys(ALPHAS, 0.0)
    folds = GroupKFold(min(FOLDS, len(np.unique(examples.groups))))
    for train, test in folds.split(y, groups=examples.groups):
        ridge = _Ridge.of(features, y, train)
        for alpha in ALPHAS:
            errors[alpha] += float(np.square(ridge.predict(alpha, test) - y[test]).sum())
    ridge = _Ridge.of(features, y, np.arange(len(y)))
    weights, offset = ridge.weights(min(errors, key=lambda alpha: errors[alpha]))
    weights = weights / features.scale
    return Reading(weights, offset - weights @ features.mean, kind, values)


@dataclass(frozen=True, eq=False)
class _Ridge:
    """A ridge regression on some states, of any penalty.

    With more numbers than states it is solved for the states, by the products of outputs that all
    fits share; that is the same function.
    """

    features: Features
    rows: Int[np.ndarray, "m"]
    wanted: Float[np.ndarray, "m targets"]
    centring: KernelCenterer | None
    """of the products; None where the numbers are fewer"""

    @classmethod
    def of(
        cls, features: Features, y: Float[np.ndarray, "n targets"], rows: Int[np.ndarray, "m"]
    ) -> _Ridge:
        n, dimension = features.standard.shape
        if dimension <= n:
            return cls(features, rows, y[rows], None)
        among = features.products[np.ix_(rows, rows)]
        return cls(features, rows, y[rows], KernelCenterer().fit(among))

    def predict(self, alpha: float, states: Int[np.ndarray, "k"]) -> Float[np.ndarray, "k targets"]:
        """Return what the regression on the rows says of other states."""
        if self.centring is None:
            weights, offset = self.weights(alpha)
            return self.features.standard[states] @ weights.T + offset
        across = self.centring.transform(self.features.products[np.ix_(states, self.rows)])
        return across @ self._dual(alpha) + self.wanted.mean(0)

    def weights(
        self, alpha: float
    ) -> tuple[Float[np.ndarray, "targets dimension"], Float[np.ndarray, "targets"]]:
        """Return its weights of the standardised outputs, and its offsets."""
        x = self.features.standard[self.rows]
        if self.centring is None:
            model = Ridge(alpha=alpha).fit(x, self.wanted)
            return model.coef_.reshape(-1, x.shape[1]), np.reshape(model.intercept_, -1)
        centre = x.mean(0)
        weights = self._dual(alpha).T @ (x - centre)
        return weights, self.wanted.mean(0) - weights @ centre

    def _dual(self, alpha: float) -> Float[np.ndarray, "m targets"]:
        assert self.centring is not None
        among = self.centring.transform(self.features.products[np.ix_(self.rows, self.rows)])
        model = KernelRidge(alpha=alpha, kernel="precomputed")
        return model.fit(among, self.wanted - self.wanted.mean(0)).dual_coef_


def read_directions(features: Features, reading: Reading) -> dict[str, Basis]:
    """Return two subspaces of a reading, by name.

    ``probe``: its weights. ``pattern``: how the outputs change when the reading does (Haufe et al.
    2014).
    """
    weights = torch.from_numpy(np.atleast_2d(reading.weights)).double()
    rows = rows_of(features.outputs, features.kind).flatten(0, 1)
    centred = rows - rows.mean(0)
    pattern = (centred.T @ (centred @ weights.T)).T
    return {"probe": orthonormal(weights), "pattern": orthonormal(pattern)}


def per_label(maps: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average maps over the areas of the labels' cells; both have y = 0 at the top."""
    (height, width), (rows, columns) = maps.shape[-2:], labels.shape[-2:]
    return area_weights(height, rows) @ maps @ area_weights(width, columns).T
