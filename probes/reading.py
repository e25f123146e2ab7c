"""Scores of probes on held-out levels, beside the controls that they must beat."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.metrics import r2_score

from rlbilinear.agents import Agent
from rlbilinear.probes import concepts
from rlbilinear.probes.concepts import Concept, ConceptLike, overlap, to_cells
from rlbilinear.probes.dataset import ActivationDataset
from rlbilinear.probes.named import AgentLike, as_agent
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.statistics import bootstrap_interval

ALPHAS = (1e1, 1e2, 1e3, 1e4)
"""Penalties tried for probes of positions, which have more coefficients than states."""


def default_probe(concept: ConceptLike) -> LinearProbe:
    """Return the usual probe: shared for presence, dense for positions."""
    if concepts.concept(concept).kind == "presence":
        return LinearProbe()
    return LinearProbe(kind="position", spatial="dense", alphas=ALPHAS)


def fit_probe(
    data: ActivationDataset, layer: str, concept: ConceptLike, probe: LinearProbe | None = None
) -> LinearProbe:
    """Fit a probe to a layer's activations.

    For presence, the feature maps are averaged over each cell (`to_cells`), so that every cell
    is one example with a hard label, and probabilities are of cells. The coefficients apply to the
    feature maps themselves as well: averaging and reading commute. For positions, states without
    the concept are left out.

    Args:
        data: states of the levels to fit to.
        layer: one of the dataset's layers.
        concept: one of the dataset's concepts, or its name.
        probe: an unfitted probe, which is left as it is; `default_probe` when None.

    Returns:
        A fitted probe, which knows its layer (``layer_``).

    Raises:
        ValueError: the dataset lacks the layer or concept; the message lists those it has.
    """
    concept = concepts.concept(concept)
    maps, labels = _of(data, layer, concept)
    fitted = _fit(probe or default_probe(concept), concept, maps, labels, data.levels)
    fitted.layer_ = layer
    return fitted


def probe_report(
    probe: LinearProbe,
    data: ActivationDataset,
    layer: str,
    concept: ConceptLike,
    *,
    name: str = "probe",
    seed: int = 0,
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """Score a probe on held-out levels, in a table of one row.

    Every score has its interval (``_low``, ``_high``) from the bootstrap by level.

    Presence, over cells: ``base_rate`` of positive cells, which is the average precision of
    chance; ``average_precision``; ``f1`` at probability 1/2; ``brier``, the mean squared error
    of the probability; ``top1``, how often the most likely cell is right, over states with the
    concept (ties share the credit).

    Positions: ``r2`` over both coordinates; ``distance``, mean Euclidean error in cells; ``top1``,
    how often the rounded position is right.

    Args:
        probe: a fitted probe.
        data: states of the levels held out.
        layer: the layer it reads.
        concept: what it reads.
        name: name of the row.
        seed: seed of the bootstrap.
        n_resamples: number of resamples of the bootstrap.

    Raises:
        ValueError: the dataset lacks the layer or concept, or the probe does not fit them.
    """
    concept = concepts.concept(concept)
    maps, labels = _of(data, layer, concept)
    predicted = _predict(probe, concept, maps, labels)
    scores = _scores(concept, predicted, labels, data.levels, seed, n_resamples)
    return pd.DataFrame([{"name": name, "layer": layer, "concept": concept.name} | scores])


def compare_probes(
    agent: AgentLike,
    fit: ActivationDataset,
    held_out: ActivationDataset,
    layer: str,
    concept: ConceptLike,
    *,
    probe: LinearProbe | None = None,
    seed: int = 0,
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """Fit a probe and its controls on the same states, and score all on the same held-out levels.

    Rows (scores as in `probe_report`):

    - ``probe``: the layer's activations of the agent;
    - ``permuted``: the same, with the labels of another level, in fitting and scoring: the
      control task of Hewitt and Liang (2019);
    - ``untrained``: the same layer of a network of the same architecture with initial weights;
    - ``pixels``: in place of the feature map, the pixels themselves: each position of the map has
      the colours of its patch of the picture as channels;
    - ``ceiling``, for presence: a map that is the concept itself, at the layer's resolution. Where
      several cells share a position, no shared probe can do much better;
    - ``base rate``: the same answer always: the rate of positive cells, or the mean position.

    Raises:
        ValueError: the datasets share a level, or lack the layer or concept.
    """
    agent, concept = as_agent(agent), concepts.concept(concept)
    if shared := sorted({*fit.levels.tolist()} & {*held_out.levels.tolist()}):
        raise ValueError(f"levels both fitted to and held out: {shared}")
    probe = probe or default_probe(concept)
    blank = untrained(agent, seed)
    maps, labels = _of(fit, layer, concept)
    test_maps, test_labels = _of(held_out, layer, concept)
    height, width = maps.shape[2:] if maps.ndim == 4 else (1, 1)
    initial = [each.seen_by(blank, [layer]).activations[layer] for each in (fit, held_out)]
    pixels = [patches(each.observations, (height, width)) for each in (fit, held_out)]
    permuted = [
        permute_by_level(values, each.levels, seed=seed)
        for values, each in ((labels, fit), (test_labels, held_out))
    ]
    truth = labels, test_labels
    tasks = [
        ("probe", (maps, test_maps), truth),
        ("permuted", (maps, test_maps), permuted),
        ("untrained", initial, truth),
        ("pixels", pixels, truth),
    ]
    if concept.kind == "presence":
        tasks.append(("ceiling", [overlap(y, (height, width))[:, None] for y in truth], truth))
    rows = []
    for name, (x, test_x), (y, test_y) in tasks:
        predicted = _predict(_fit(probe, concept, x, y, fit.levels), concept, test_x, test_y)
        rows.append((name, predicted, test_y))
    rows.append(("base rate", _constant(concept, labels, test_labels.shape), test_labels))
    return pd.DataFrame(
        {"name": name, "layer": layer, "concept": concept.name}
        | _scores(concept, predicted, y, held_out.levels, seed, n_resamples)
        for name, predicted, y in rows
    )


def untrained(agent: Agent, seed: int = 0) -> Agent:
    """Return a network of the agent's architecture with initial weights: a control.

    With the next seed, so that the same seed does not give the weights the agent began with, which
    still show in it.
    """
    config = agent.config
    return Agent.new(
        config.architecture,
        game=config.game,
        seed=seed + 1,
        device=agent.device,
        **config.architecture_kwargs,
    )


def permute_by_level(
    labels: Float[np.ndarray, "n *shape"], levels: Int[np.ndarray, "n"], *, seed: int = 0
) -> Float[np.ndarray, "n *shape"]:
    """Give each level's states the labels of another level's, which no two levels share.

    Raises:
        ValueError: there are fewer than two levels.
    """
    names = np.random.default_rng(seed).permutation(np.unique(levels))
    if len(names) < 2:
        raise ValueError("permuting labels by level needs at least 2 levels")
    permuted = np.empty_like(labels)
    for level, other in zip(names, np.roll(names, 1), strict=True):
        states = np.flatnonzero(levels == level)
        permuted[states] = np.resize(labels[levels == other], (len(states), *labels.shape[1:]))
    return permuted


def patches(
    observations: UInt8[np.ndarray, "n 3 64 64"], feature_shape: tuple[int, int]
) -> Float[np.ndarray, "n channels height width"]:
    """Cut observations into a patch for each position of a feature map.

    Raises:
        ValueError: the picture does not divide into equal patches.
    """
    n, colours, *size = observations.shape
    (height, y_rest), (width, x_rest) = map(divmod, size, feature_shape)
    if y_rest or x_rest:
        raise ValueError(f"a picture of {size} does not divide into {feature_shape} patches")
    cut = observations.reshape(n, colours, feature_shape[0], height, feature_shape[1], width)
    return cut.transpose(0, 1, 3, 5, 2, 4).reshape(n, -1, *feature_shape).astype(np.float32) / 255


def _of(
    data: ActivationDataset, layer: str, concept: Concept
) -> tuple[Float[np.ndarray, "n *shape"], Float[np.ndarray, "n *label"]]:
    for what, name, known in (
        ("layer", layer, data.activations),
        ("concept", concept.name, data.labels),
    ):
        if name not in known:
            raise ValueError(f"the dataset has no {what} {name!r}; it has {', '.join(known)}")
    maps = data.activations[layer]
    if concept.kind == "presence" and maps.ndim != 4:
        raise ValueError(
            f"{concept.name} is read from feature maps, {layer} gives {maps.shape[1:]} a state"
        )
    return maps, data.labels[concept.name]


def _fit(
    probe: LinearProbe,
    concept: Concept,
    maps: np.ndarray,
    labels: np.ndarray,
    levels: Int[np.ndarray, "n"],
) -> LinearProbe:
    if concept.kind == "presence":
        return clone(probe).fit(to_cells(maps, labels.shape[-1]), labels, levels)
    there = np.isfinite(labels).all(1)
    return clone(probe).fit(maps[there], labels[there], levels[there])


def _predict(
    probe: LinearProbe, concept: Concept, maps: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Return logits of cells (n, rows, columns), or positions (n, 2)."""
    presence = concept.kind == "presence"
    return probe.decision_function(to_cells(maps, labels.shape[-1]) if presence else maps)


def _constant(concept: Concept, labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if concept.kind == "presence":
        return np.full(shape, logit(labels.mean()))
    return np.broadcast_to(np.nanmean(labels, 0), shape)


def _scores(
    concept: Concept,
    predicted: np.ndarray,
    labels: np.ndarray,
    levels: Int[np.ndarray, "n"],
    seed: int,
    n_resamples: int,
) -> dict[str, float]:
    statistics = _presence if concept.kind == "presence" else _position
    row: dict[str, float] = {"states": len(levels), "levels": len(np.unique(levels))}
    for name, (states, statistic) in statistics(predicted, labels).items():
        interval = bootstrap_interval(
            states, levels[states], statistic, seed=seed, n_resamples=n_resamples
        )
        row |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


Scores = dict[str, tuple[Int[np.ndarray, "states"], Callable[[np.ndarray], float]]]
"""By name: the states a score is of, and its value over any of them (with repeats)."""


def _presence(logits: np.ndarray, labels: np.ndarray) -> Scores:
    states = np.arange(len(labels))
    logits, labels = (each.reshape(len(labels), -1) for each in (logits, labels))
    probability, guess = expit(logits), logits > 0
    brier = ((probability - labels) ** 2).mean(1)
    right, wrong = (guess * labels).sum(1), (guess != labels).sum(1)
    best = logits == logits.max(1, keepdims=True)
    top1 = (best * labels).sum(1) / best.sum(1)

    def f1(rows: np.ndarray) -> float:
        return 2 * right[rows].sum() / max(2 * right[rows].sum() + wrong[rows].sum(), 1)

    return {
        "base_rate": (states, lambda rows: labels[rows].mean()),
        "average_precision": (states, _average_precision(logits, labels)),
        "f1": (states, f1),
        "brier": (states, lambda rows: brier[rows].mean()),
        "top1": (np.flatnonzero(labels.any(1)), lambda rows: top1[rows].mean()),
    }


def _position(predicted: np.ndarray, labels: np.ndarray) -> Scores:
    states = np.flatnonzero(np.isfinite(labels).all(1))
    distance = np.linalg.norm(predicted - labels, axis=1)
    top1 = (np.rint(predicted) == labels).all(1)
    return {
        "r2": (states, lambda rows: r2_score(labels[rows], predicted[rows])),
        "distance": (states, lambda rows: distance[rows].mean()),
        "top1": (states, lambda rows: top1[rows].mean()),
    }


def _average_precision(
    scores: Float[np.ndarray, "states cells"], labels: Float[np.ndarray, "states cells"]
) -> Callable[[np.ndarray], float]:
    """Average precision of all cells of some states, ranked once for all resamples."""
    n, cells = scores.shape
    order = np.argsort(-scores, axis=None, kind="stable")
    ranked, positive = -scores.ravel()[order], labels.ravel()[order] > 0
    where = np.flatnonzero(positive)
    ends = np.searchsorted(ranked, ranked[where], side="right")  # equal scores count together
    used = ends.max(initial=0)
    states, positive = order[:used] // cells, positive[:used]

    def of(rows: np.ndarray) -> float:
        weights = np.bincount(rows, minlength=n)[states]
        selected = np.cumsum(weights)[ends - 1]
        found = np.cumsum(weights * positive)[ends - 1]
        return float(np.average(found / np.maximum(selected, 1), weights=weights[where]))

    return of
