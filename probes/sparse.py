"""Sparse probes: how few channels are enough to read a concept, and which ones."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import f_regression, mutual_info_classif, mutual_info_regression
from sklearn.linear_model import lars_path
from tqdm import tqdm

from rlbilinear.agents import Agent
from rlbilinear.probes.concepts import Concept, Kind
from rlbilinear.probes.dataset import ActivationDataset
from rlbilinear.probes.probe import Activations, LinearProbe
from rlbilinear.probes.reading import (
    ALPHAS,
    fit_probe,
    permute_by_level,
    probe_report,
    untrained,
)

Method = Literal["f_test", "mutual_information", "l1", "random"]
METHODS: tuple[Method, ...] = get_args(Method)
Rows = Float[np.ndarray, "rows features"]
Target = Float[np.ndarray, "rows"]
Scores = Float[np.ndarray, "features"]
TRAINED, PERMUTED, UNTRAINED = "trained network", "permuted labels", "untrained network"


class SparseProbe(LinearProbe):
    """A `LinearProbe` that reads ``k`` channels; all other coefficients are 0.

    Channels are ranked on the states that it is fitted to, then a `LinearProbe` is fitted to the
    first ``k``. It stands wherever a `LinearProbe` does: `fit_probe`, `probe_report`, `compare`.

    Rankings, each by scikit-learn:

    - ``f_test``: the F statistic of each channel alone (`f_regression`; of two classes this is the
      analysis of variance, `f_classif`);
    - ``mutual_information`` of each channel alone, estimated from nearest neighbours
      (`mutual_info_classif`, for positions `mutual_info_regression`); about a second for each
      channel and 100,000 cells;
    - ``l1``: the order in which channels enter the lasso's path (`lars_path`) as its penalty
      falls: of channels that say the same, one enters early and the others late;
    - ``random``: a control.

    A channel of a dense probe is read at all its positions; its score is the sum of theirs (for
    ``l1`` the first to enter), and so over several targets.

    Args:
        k: how many channels.
        method: how they are ranked.
        channels: read exactly these, in place of ranking; ``k`` and ``method`` then do not count.
        kind: as for `LinearProbe`.
        spatial: as for `LinearProbe`.
        alphas: as for `LinearProbe`; chosen with the channels fixed.
        folds: as for `LinearProbe`.
        seed: seed of random rankings and of the mutual information's estimate.

    Attributes:
        ranking_: all channels, the best first; the given ones when they were given.
        channels_: those read, in the order of the ranking.
        coef_: as of a `LinearProbe`, zero in all other channels.
        intercept_: as of a `LinearProbe`.
        alpha_: as of a `LinearProbe`.
    """

    def __init__(
        self,
        k: int = 1,
        *,
        method: Method = "f_test",
        channels: Sequence[int] | None = None,
        kind: Kind = "presence",
        spatial: Literal["shared", "dense"] = "shared",
        alphas: Sequence[float] = (1.0,),
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(kind=kind, spatial=spatial, alphas=alphas, folds=folds)
        self.k = k
        self.method = method
        self.channels = channels
        self.seed = seed

    def fit(
        self,
        X: Activations,
        y: Float[np.ndarray, "n *target"],
        groups: Shaped[np.ndarray, "n"] | None = None,
    ) -> "SparseProbe":
        """Choose channels and fit to them; arguments as of `LinearProbe.fit`.

        Raises:
            ValueError: an argument or parameter is not accepted; the message says what is.
        """
        X, y = self._checked(X, y)
        if self.channels is not None:
            self.ranking_ = _given(self.channels, X.shape[1])
            self.channels_ = self.ranking_
        else:
            if self.method not in METHODS:
                raise ValueError(
                    f"unknown method {self.method!r}; choose from {', '.join(METHODS)}"
                )
            if not 1 <= self.k <= X.shape[1]:
                raise ValueError(f"k is from 1 to the {X.shape[1]} channels, got {self.k}")
            self.ranking_ = self._rank(X, y)
            self.channels_ = self.ranking_[: self.k]
        inner = LinearProbe(
            kind=self.kind, spatial=self.spatial, alphas=self.alphas, folds=self.folds
        ).fit(X[:, self.channels_], y, groups)
        axis = 0 if self.spatial == "shared" else np.ndim(inner.intercept_)
        shape = list(inner.coef_.shape)
        shape[axis] = X.shape[1]
        self.coef_ = np.zeros(shape)
        self.coef_[(slice(None),) * axis + (self.channels_,)] = inner.coef_
        self.intercept_, self.alpha_ = inner.intercept_, inner.alpha_
        return self

    def _rank(
        self, X: Activations, y: Float[np.ndarray, "n *target"]
    ) -> Int[np.ndarray, "channels"]:
        channels = X.shape[1]
        if self.method == "random":
            return np.random.default_rng(self.seed).permutation(channels)
        rows = self._rows(X).astype(np.float64)
        mean, scale = rows.mean(0), rows.std(0)
        constant = scale <= 1e-6 * np.abs(mean)  # float32 resolves no less
        rows -= mean
        rows /= np.where(constant, 1.0, scale)
        targets = y.reshape(len(rows), -1).astype(np.float64)
        score, together = _SCORES[self.method]
        scores = np.stack([score(rows, target, self.kind, self.seed) for target in targets.T])
        scores[:, constant] = 0  # not what an estimate from neighbours makes of rounding errors
        scores = together(scores.reshape(len(scores), channels, -1), axis=(0, 2))
        return np.argsort(-scores, kind="stable")


def sparsity_table(
    agent: Agent,
    fit: ActivationDataset,
    held_out: ActivationDataset,
    layer: str,
    concept: Concept,
    *,
    ks: Iterable[int] | None = None,
    methods: Iterable[Method] = ("f_test", "mutual_information", "l1"),
    random_draws: int = 5,
    seed: int = 0,
    n_resamples: int = 300,
    progress: bool = False,
) -> pd.DataFrame:
    """Score sparse probes against the number of channels, on held-out levels, beside controls.

    Channels are ranked and probes fitted on ``fit`` alone. Controls: random channels; and, by the
    first of the methods, the labels of another level and the same layer of a network with initial
    weights, each with channels of its own choice.

    Args:
        agent: whose activations these are; of its architecture is the untrained control.
        fit: states of the levels to fit to.
        held_out: states of other levels.
        layer: one of the datasets' layers.
        concept: one of the datasets' concepts.
        ks: numbers of channels; 1, 2, 4, ... and all of them when None.
        methods: of ranking.
        random_draws: how often channels are drawn at random.
        seed: seed of draws, controls and the bootstrap.
        n_resamples: number of resamples of the bootstrap by level.
        progress: show a bar.

    Returns:
        A row for each number of channels of each ranking: ``features`` (trained network, permuted
        labels, untrained network), ``method``, ``draw`` (of random channels, else 0), ``k``,
        ``channels`` (those read, best first), and the scores of `probe_report`.

    Raises:
        ValueError: the datasets share a level, or lack the layer or concept; no or an unknown
            method; a k that there are not channels for.
    """
    if shared := sorted({*fit.levels.tolist()} & {*held_out.levels.tolist()}):
        raise ValueError(f"levels both fitted to and held out: {shared}")
    chosen = list(dict.fromkeys(methods))
    if not chosen or set(chosen) - set(METHODS):
        raise ValueError(f"methods are one or more of {', '.join(METHODS)}, got {chosen}")
    for what, name, known in (
        ("layer", layer, fit.activations),
        ("concept", concept.name, fit.labels),
    ):
        if name not in known:
            raise ValueError(f"the dataset has no {what} {name!r}; it has {', '.join(known)}")
    channels = fit.activations[layer].shape[1]
    counts = sorted({*(_doubling(channels) if ks is None else ks)})
    if not counts or not 1 <= counts[0] <= counts[-1] <= channels:
        raise ValueError(f"ks are from 1 to the {channels} channels, got {counts}")
    blank = untrained(agent, seed)
    trained = fit, held_out
    permuted = _permuted(fit, concept, seed), _permuted(held_out, concept, seed)
    initial = fit.seen_by(blank, [layer]), held_out.seen_by(blank, [layer])
    Task = tuple[str, Method, int, tuple[ActivationDataset, ActivationDataset]]
    tasks: list[Task] = [(TRAINED, method, 0, trained) for method in chosen if method != "random"]
    tasks += [(TRAINED, "random", draw, trained) for draw in range(random_draws)]
    tasks += [(PERMUTED, chosen[0], 0, permuted), (UNTRAINED, chosen[0], 0, initial)]
    rows = []
    for features, method, draw, (own, other) in tqdm(tasks, "rankings", disable=not progress):
        probe = _probe(concept, method=method, seed=seed + draw)
        ranking = fit_probe(own, layer, concept, probe).ranking_.tolist()
        for k in counts:
            sparse = fit_probe(own, layer, concept, _probe(concept, channels=ranking[:k]))
            scores = probe_report(
                sparse, other, layer, concept, seed=seed, n_resamples=n_resamples
            ).drop(columns="name")
            scores.insert(0, "features", features)
            scores.insert(1, "method", method)
            scores.insert(2, "draw", draw)
            scores.insert(3, "k", k)
            scores.insert(4, "channels", [tuple(ranking[:k])])
            rows.append(scores)
    return pd.concat(rows, ignore_index=True)


def _probe(concept: Concept, **arguments: Any) -> SparseProbe:
    """Return the sparse counterpart of `default_probe`."""
    if concept.kind == "presence":
        return SparseProbe(**arguments)
    return SparseProbe(kind="position", spatial="dense", alphas=ALPHAS, **arguments)


def _permuted(data: ActivationDataset, concept: Concept, seed: int) -> ActivationDataset:
    labels = permute_by_level(data.labels[concept.name], data.levels, seed=seed)
    return replace(data, labels={**data.labels, concept.name: labels})


def _doubling(channels: int) -> list[int]:
    return [*(2**power for power in range(channels.bit_length()) if 2**power < channels), channels]


def _given(channels: Sequence[int], there: int) -> Int[np.ndarray, "k"]:
    given = np.asarray(channels)
    if (
        given.ndim != 1
        or given.dtype.kind not in "iu"
        or not len(given)
        or len(np.unique(given)) != len(given)
        or not 0 <= given.min() <= given.max() < there
    ):
        raise ValueError(
            f"channels are different whole numbers from 0 to {there - 1}, got {channels!r}"
        )
    return given


def _f_test(rows: Rows, target: Target, kind: Kind, seed: int) -> Scores:
    return f_regression(rows, target)[0]


def _mutual_information(rows: Rows, target: Target, kind: Kind, seed: int) -> Scores:
    if kind == "position":
        return mutual_info_regression(rows, target, random_state=seed)
    classes = np.rint(target)
    if (classes != target).any():
        raise ValueError("mutual information needs labels of presence that are 0 or 1, not between")
    return mutual_info_classif(rows, classes.astype(int), random_state=seed)


def _l1(rows: Rows, target: Target, kind: Kind, seed: int) -> Scores:
    """Return the penalty below which each feature has a coefficient, as a share of the largest."""
    with warnings.catch_warnings():
        # Of features that are the same, the path keeps one, and says so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        penalties, _, path = lars_path(rows, target - target.mean(), method="lasso")
    entered = path.any(1)
    first = path[entered].astype(bool).argmax(1)
    scores = np.zeros(rows.shape[1])
    scores[entered] = penalties[first - 1] / penalties[0]
    return scores


_SCORES: dict[str, tuple[Callable[[Rows, Target, Kind, int], Scores], Callable]] = {
    "f_test": (_f_test, np.sum),
    "mutual_information": (_mutual_information, np.sum),
    "l1": (_l1, np.max),
}
"""By method, the score of a feature, and of several that are one channel's."""
