"""Linear probes: a concept read from activations by a weight for each channel, or each unit."""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import expit
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, r2_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.utils.validation import check_is_fitted

from rlbilinear.probes.concepts import Kind

Activations = Float[np.ndarray, "n channels *positions"]


class LinearProbe(BaseEstimator):
    """Reads a concept from activations by a linear map, as a scikit-learn estimator.

    ``presence`` is a logistic regression, ``position`` a ridge regression. A *shared* probe has
    one weight for each channel, the same at all positions (a 1x1 convolution): it says of each
    position whether the concept is there. A *dense* probe has one weight for each channel and
    position: it says one thing, or one vector, of the whole map.

    Channels are standardised inside, so that the penalty means the same for all of them, and
    the coefficients are mapped back: they multiply the activations as they are.

    Args:
        kind: ``presence`` or ``position``.
        spatial: ``shared`` or ``dense``; positions need ``dense``.
        alphas: strength of the penalty ``alpha / 2 |w|²`` against the sum of the losses (for a
            ridge, half the sum of squares). Of several, the best score in cross-validation by
            group is taken.
        folds: of the cross-validation, stratified for presence; a fold that has labels of one
            kind only is left out.

    Attributes:
        coef_: shape (channels,) when shared; the activations' shape when dense, after the number
            of targets if there are several.
        intercept_: a number, or one for each target.
        alpha_: the penalty taken.
        layer_: the layer that it reads, if `rlbilinear.probes.reading.fit_probe` fitted it.
    """

    def __init__(
        self,
        *,
        kind: Kind = "presence",
        spatial: Literal["shared", "dense"] = "shared",
        alphas: Sequence[float] = (1.0,),
        folds: int = 5,
    ) -> None:
        self.kind = kind
        self.spatial = spatial
        self.alphas = alphas
        self.folds = folds

    def fit(
        self,
        X: Activations,
        y: Float[np.ndarray, "n *target"],
        groups: Shaped[np.ndarray, "n"] | None = None,
    ) -> "LinearProbe":
        """Fit to activations and labels.

        Args:
            X: activations; (n, channels, height, width) for a shared probe.
            y: shared: (n, height, width) in [0, 1]: a position of label p counts p times as
                positive and 1 - p times as negative. Dense presence: (n,) in [0, 1]. Position:
                (n,) or (n, targets).
            groups: the level of each state; needed to choose among several ``alphas``.

        Raises:
            ValueError: an argument or parameter is not accepted; the message says what is.
        """
        X, y = self._checked(X, y)
        self.alpha_ = self._choose_alpha(X, y, groups)
        self.layer_: str | None = None
        rows, targets = self._rows(X), y.reshape(-1) if self.kind == "presence" else y
        mean, scale = _standard(X)
        if self.spatial == "dense":
            mean, scale = (_spread(each, X.shape[1:]) for each in (mean, scale))
        fit = _fit_logistic if self.kind == "presence" else _fit_ridge
        weights, intercept = fit((rows - mean) / scale, targets, self.alpha_)
        weights = weights / scale
        self.intercept_ = intercept - weights @ mean
        shape = X.shape[1:2] if self.spatial == "shared" else X.shape[1:]
        self.coef_ = weights.reshape(*weights.shape[:-1], *shape)
        return self

    @property
    def direction(self) -> Float[np.ndarray, "*shape"]:
        """The coefficients: (channels,) when shared, (channels, height, width) when dense."""
        check_is_fitted(self)
        return self.coef_

    def decision_function(self, X: Activations) -> Float[np.ndarray, "n *target"]:
        """Return logits of presence, (n, height, width) or (n,), or predicted positions.

        Raises:
            ValueError: activations of another shape than the probe was fitted to.
        """
        check_is_fitted(self)
        X = np.asarray(X)
        channels = X.shape[1:2] if self.spatial == "shared" else X.shape[1:]
        fitted = self.coef_.shape[len(self.coef_.shape) - len(channels) :]
        if X.ndim < 2 or channels != fitted or (self.spatial == "shared" and X.ndim != 4):
            raise ValueError(f"the probe was fitted to channels {fitted}, got shape {X.shape}")
        if self.spatial == "shared":
            return np.einsum("nchw,c->nhw", X, self.coef_, optimize=True) + self.intercept_
        rows, flat = X.reshape(len(X), -1), self.coef_.reshape(*np.shape(self.intercept_), -1)
        return rows @ flat.T + self.intercept_

    def predict_proba(self, X: Activations) -> Float[np.ndarray, "n *target"]:
        """Return the probability of presence at each position (or of the state).

        Raises:
            ValueError: the probe is of positions, or activations of another shape.
        """
        if self.kind != "presence":
            raise ValueError("a probe of positions has no probabilities")
        return expit(self.decision_function(X))

    def predict(self, X: Activations) -> Float[np.ndarray, "n *target"] | Int[np.ndarray, "..."]:
        """Return presence as 0 or 1 (probability above 1/2), or positions."""
        decision = self.decision_function(X)
        return (decision > 0).astype(int) if self.kind == "presence" else decision

    def score(self, X: Activations, y: Float[np.ndarray, "n *target"]) -> float:
        """Return the average precision of presence over all positions, or R² of positions.

        A soft label p counts p times as positive and 1 - p times as negative, so that even a
        perfect probe of soft labels scores below 1.
        """
        X, y = self._checked(X, y)
        decision = self.decision_function(X)
        if self.kind == "position":
            return r2_score(y, decision)
        rows, signs, weights = _soft(y.ravel())
        return average_precision_score(signs, decision.ravel()[rows], sample_weight=weights)

    def _checked(self, X: Activations, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        accepted = {
            ("presence", "shared"): "(n, channels, height, width) and (n, height, width)",
            ("presence", "dense"): "(n, channels, ...) and (n,)",
            ("position", "dense"): "(n, channels, ...) and (n,) or (n, targets)",
        }
        if (self.kind, self.spatial) not in accepted:
            choices = ", ".join("/".join(pair) for pair in accepted)
            raise ValueError(
                f"no probe of kind/spatial {self.kind}/{self.spatial}; choose from {choices}"
            )
        X, y = np.asarray(X), np.asarray(y, float)
        fits = len(X) == len(y) > 0 and X.ndim >= 2
        if self.spatial == "shared":
            fits = fits and X.ndim == 4 and y.shape == (len(X), *X.shape[2:])
        else:
            fits = fits and y.ndim in ((1,) if self.kind == "presence" else (1, 2))
        if not fits:
            raise ValueError(
                f"expected activations and labels {accepted[self.kind, self.spatial]}, "
                f"got {X.shape} and {y.shape}"
            )
        if not np.isfinite(X).all() or not np.isfinite(y).all():
            raise ValueError(
                "activations and labels must be finite; leave out states without the concept"
            )
        if self.kind == "presence" and not (0 <= y.min() < y.max() <= 1):
            raise ValueError(
                f"labels of presence are in 0..1, and not all alike; got {y.min()}..{y.max()}"
            )
        return X, y

    def _choose_alpha(
        self, X: np.ndarray, y: np.ndarray, groups: Shaped[np.ndarray, "n"] | None
    ) -> float:
        alphas = list(self.alphas)
        if not alphas or min(alphas) <= 0:
            raise ValueError(f"alphas must be positive numbers, got {self.alphas!r}")
        if len(alphas) == 1:
            return alphas[0]
        if groups is None:
            raise ValueError("choosing among several alphas needs the level of each state: groups")

        folds = self._folds(X, y, np.asarray(groups))

        def held_out(alpha: float) -> float:
            one = clone(self).set_params(alphas=(alpha,))
            return np.mean([one.fit(X[a], y[a]).score(X[b], y[b]) for a, b in folds])

        return max(alphas, key=held_out)

    def _folds(
        self, X: np.ndarray, y: np.ndarray, groups: Shaped[np.ndarray, "n"]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Split by group; for presence stratified, and without folds that lack one of the two."""
        if (given := len(np.unique(groups))) < self.folds:
            raise ValueError(
                f"cross-validation in {self.folds} folds needs as many levels, got {given}: give "
                "one alpha, or fewer folds"
            )
        if self.kind == "position":
            return list(GroupKFold(self.folds).split(X, groups=groups))
        if len(X) < 2 * self.folds:  # so that at least one kind is in every fold
            raise ValueError(
                f"cross-validation in {self.folds} folds needs at least {2 * self.folds} states, "
                f"got {len(X)}: give one alpha, or fewer folds"
            )
        positive = y.reshape(len(y), -1).max(1) > y.mean()
        with warnings.catch_warnings():  # fewer positive states than folds: those without are left
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            folds = list(StratifiedGroupKFold(self.folds).split(X, positive, groups))
        usable = [fold for fold in folds if all(_both_kinds(y[part]) for part in fold)]
        if not usable:
            raise ValueError(
                f"presence has too few positive or negative levels for cross-validation: in each "
                f"of {self.folds} folds all labels fitted to, or all held out, are alike; give one "
                "alpha, or more levels"
            )
        return usable

    def _rows(self, X: np.ndarray) -> Float[np.ndarray, "rows features"]:
        if self.spatial == "dense":
            return X.reshape(len(X), -1)
        return np.moveaxis(X, 1, -1).reshape(-1, X.shape[1])


def _both_kinds(labels: Float[np.ndarray, "n *target"]) -> bool:
    return labels.size > 0 and labels.min() < labels.max()


def _standard(X: Activations) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of each channel over states and positions; a constant has scale 1."""
    axes = (0, *range(2, X.ndim))
    mean, scale = X.mean(axes, dtype=np.float64), X.std(axes, dtype=np.float64)
    return mean, np.where(scale > 1e-6 * np.abs(mean), scale, 1.0)  # float32 resolves no less


def _spread(per_channel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.repeat(per_channel, int(np.prod(shape[1:])))


def _soft(y: Float[np.ndarray, "n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, signs and weights: each row once for each side on which its label has weight."""
    positive, negative = np.flatnonzero(y > 0), np.flatnonzero(y < 1)
    return (
        np.concatenate([positive, negative]),
        np.repeat([1, 0], [len(positive), len(negative)]),
        np.concatenate([y[positive], 1 - y[negative]]),
    )


def _fit_logistic(rows: np.ndarray, y: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
    index, signs, weights = _soft(y)
    # Newton's steps are cheap while their matrix, features squared, is small.
    solver = "newton-cholesky" if rows.shape[1] <= 512 else "lbfgs"
    model = LogisticRegression(C=1 / alpha, solver=solver, max_iter=1000)
    model.fit(rows[index], signs, sample_weight=weights)
    return model.coef_[0], model.intercept_[0]


def _fit_ridge(rows: np.ndarray, y: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    model = Ridge(alpha=alpha).fit(rows, y)
    return model.coef_, model.intercept_
