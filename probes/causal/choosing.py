"""Where to ask: which behaviour should follow in pairs, at which layers, and the best of them.

Layer and rank are chosen on the fitting pairs alone; the claims are decided on the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int

from rlbilinear.probes.causal.data import LEAST_GROUPS, ConceptData, Counterfactuals
from rlbilinear.probes.causal.interventions import Layer, follows, log_behaviour
from rlbilinear.probes.causal.subspaces import difference_subspace, rows_of
from rlbilinear.probes.subject import Subject

RANKS = (1, 2, 4, 8)
NEAR = 0.02
"""Of layers and ranks within this share of pairs of the best, the smallest rank is chosen."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Counterfactuals with what should follow in them.

    Attributes:
        pairs: in which the behaviour should change.
        base: the behaviour that is right in the base.
        source: in the source.
    """

    pairs: Counterfactuals
    base: Int[np.ndarray, "n"]
    source: Int[np.ndarray, "n"]


def asked(subject: Subject, data: ConceptData, pairs: Counterfactuals) -> Asked:
    """Say what should follow in pairs: what is right, or else what the policy itself does.

    Raises:
        ValueError: too few groups have pairs in which the policy's own behaviour differs; or the
            behaviours that are right are not the policy's.
    """
    if pairs.base_behaviour is not None and pairs.source_behaviour is not None:
        wanted = max(pairs.base_behaviour.max(), pairs.source_behaviour.max())
        if data.behaviours is None and wanted >= subject.actions:
            raise ValueError(
                f"{data.name}: behaviour {wanted} is right in some pairs, but the policy has the "
                f"actions 0 to {subject.actions - 1}; behaviours= says which action is which"
            )
        return Asked(pairs, pairs.base_behaviour, pairs.source_behaviour)
    ours, theirs = (
        log_behaviour(subject.logits(side), data.behaviours).argmax(1).numpy()
        for side in (pairs.base, pairs.source)
    )
    differ = ours != theirs
    groups = len(np.unique(pairs.groups[differ]))
    if groups < LEAST_GROUPS:
        raise ValueError(
            f"{data.name}: the policy's most likely behaviour changes with the concept in pairs of "
            f"{groups} groups only, at least {LEAST_GROUPS} are needed: give more pairs, or the "
            "behaviours that are right"
        )
    return Asked(pairs.select(differ), ours[differ], theirs[differ])


def candidate_layers(subject: Subject, data: ConceptData) -> tuple[str, ...]:
    """Return the layers at which a concept can be asked about.

    For a concept in places: maps with at least a position for every two cells, on either side.
    """
    if data.kind != "map":
        return tuple(subject.layers)
    rows, columns = data.fit.labels.shape[1:]
    sizes = {name: subject.layers[name][1:] for name in subject.maps}
    return tuple(name for name, (h, w) in sizes.items() if 2 * h >= rows and 2 * w >= columns)


def where_to_ask(
    subject: Subject, data: ConceptData, layer: str, rank: int | Literal["auto"]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the layers and ranks that `choose` has to choose among.

    Raises:
        ValueError: a layer or rank that cannot be; the message says what can.
    """
    allowed = candidate_layers(subject, data)
    if not allowed:
        rows, columns = data.fit.labels.shape[1:]
        raise ValueError(
            f"{data.name}: no layer of {subject.name} has maps with a position for every two of "
            f"the {rows} x {columns} cells of the labels; give labels of fewer cells"
        )
    if layer != "auto" and layer not in allowed:
        raise ValueError(f"layer: choose from auto, {', '.join(allowed)}; got {layer!r}")
    if rank != "auto" and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise ValueError(f"rank: expected auto or a number from 1 on, got {rank!r}")
    return allowed if layer == "auto" else (layer,), RANKS if rank == "auto" else (rank,)


def choose(
    subject: Subject,
    data: ConceptData,
    layers: Iterable[str],
    ranks: Iterable[int] = RANKS,
    *,
    seed: int = 0,
) -> tuple[pd.DataFrame, str, int]:
    """Choose layer and rank on the fitting pairs, cross-fitted in two halves of the groups.

    What counts is how often exchanging the leading difference directions makes the policy do what
    is right in the source, beyond how often those of the same network before training do: near
    the pixels almost any direction may. Of all within `NEAR` of the best, the smallest rank is
    taken, and of that rank the best layer.

    Returns:
        A row for each layer and rank: ``layer``, ``rank``, ``follow``, ``control``, shares of the
        fitting pairs along its own directions and along those before training; the layer; the
        rank.

    Raises:
        ValueError: all ranks are larger than the layers and pairs allow.
    """
    layers, ranks = [*layers], [*ranks]
    what = asked(subject, data, data.fit_pairs)
    groups = np.random.default_rng(seed).permutation(np.unique(what.pairs.groups))
    first = np.isin(what.pairs.groups, groups[: len(groups) // 2])
    blank = subject.untrained(seed + 1)
    rows = []
    for name in layers:
        layer = Layer.of(
            subject, name, data.kind, data.behaviours, what.pairs, torch.zeros(1, 1).double()
        )
        base, source = (
            rows_of(blank.activations(side, [name])[name], data.kind)
            for side in (what.pairs.base, what.pairs.source)
        )
        changes = {"follow": layer.change, "control": source - base}
        most = min(layer.base.shape[2], int(min(first.sum(), (~first).sum())))
        for rank in sorted({*ranks}):
            if rank > most:
                continue
            row = {"layer": name, "rank": rank}
            for column, change in changes.items():
                followed = np.empty(len(first))
                for half in (first, ~first):
                    basis = difference_subspace(
                        change[torch.from_numpy(~half)], what.pairs.select(~half), data.kind, rank
                    )
                    followed[half] = follows(layer.exchange(basis), what.source)[half]
                row[column] = followed.mean()
            rows.append(row)
    if not rows:
        raise ValueError(
            f"rank: {min(ranks)} is more than {', '.join(layers)} and so many pairs allow: at most "
            f"{most}"
        )
    table = pd.DataFrame(rows)
    beyond = table["follow"] - table["control"]
    near = table[beyond >= beyond.max() - NEAR]
    best = table.loc[beyond[near.index[near["rank"] == near["rank"].min()]].idxmax()]
    return table, str(best["layer"]), int(best["rank"])
