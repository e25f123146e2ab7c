"""A concept as data: labelled states, and pairs of states alike but for the concept.

No simulator is needed. States that are values need less writing: see `concepts`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Kind = Literal["map", "class", "scalar"]
LEAST_GROUPS = 5
"""Fewer groups (levels) on a side allow no interval and no test."""

Images = Shaped[np.ndarray, "n channels height width"]


@dataclass(frozen=True, eq=False)
class Examples:
    """States with the concept's labels.

    Attributes:
        observations: as the policy sees them, channels first.
        labels: of a ``map``: ``(n, rows, columns)`` of 0 and 1, row 0 at the *top* as in the
            picture; of a ``class``: ``(n,)`` integers; of a ``scalar``: ``(n,)`` numbers.
        groups: the level of each, or another group: states of one group are not independent
            observations. Intervals and tests count groups.

    Raises:
        TypeError: something else than arrays, or labels that are no numbers.
        ValueError: not one label and group for each observation.
    """

    observations: Images
    labels: Shaped[np.ndarray, "n *label"]
    groups: Shaped[np.ndarray, "n"]

    def __post_init__(self) -> None:
        _check_images("observations", self.observations)
        _check_numbers("labels", self.labels)
        n = len(self.observations)
        if self.labels.ndim not in (1, 3) or len(self.labels) != n:
            raise ValueError(
                f"labels: expected {n} of them as observations, (n,) or (n, rows, columns); "
                f"got shape {self.labels.shape}"
            )
        _check_each("groups", self.groups, (n,))

    def __len__(self) -> int:
        return len(self.observations)

    def select(self, chosen: Bool[np.ndarray, "n"]) -> Examples:
        """Return the states where ``chosen`` is true."""
        return Examples(self.observations[chosen], self.labels[chosen], self.groups[chosen])


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """Counterfactuals of states alike but for the concept.

    Attributes:
        base: what the policy sees.
        source: the counterpart, with another value of the concept.
        groups: the level, or another group, of each pair.
        base_behaviour: what is right in the base: an index of the behaviours; None when it is not
            known. Then what the policy itself does in the source is what should follow.
        source_behaviour: what is right in the source.
        base_place: where in the picture the concept is, ``(y, x)`` from 0 to 1 with 0 at the top
            left, for concepts that are in one place.
        source_place: the same in the source.
        base_value: the concept's value, for classes and scalars.
        source_value: the same in the source.

    Raises:
        TypeError: something else than arrays of numbers; behaviours that are no integers.
        ValueError: not one of each for each pair, places outside 0..1, numbers that are not
            finite, or only one of the two sides given.
    """

    base: Images
    source: Images
    groups: Shaped[np.ndarray, "n"]
    base_behaviour: Int[np.ndarray, "n"] | None = None
    source_behaviour: Int[np.ndarray, "n"] | None = None
    base_place: Float[np.ndarray, "n 2"] | None = None
    source_place: Float[np.ndarray, "n 2"] | None = None
    base_value: Shaped[np.ndarray, "n"] | None = None
    source_value: Shaped[np.ndarray, "n"] | None = None

    def __post_init__(self) -> None:
        for side in ("base", "source"):
            _check_images(side, getattr(self, side))
        n = len(self.base)
        if self.source.shape != self.base.shape:
            raise ValueError(
                f"source: expected the shape of base, {self.base.shape}; got {self.source.shape}"
            )
        _check_each("groups", self.groups, (n,))
        for part, shape in (("behaviour", (n,)), ("place", (n, 2)), ("value", (n,))):
            both = [f"{side}_{part}" for side in ("base", "source")]
            given = [name for name in both if getattr(self, name) is not None]
            if len(given) == 1:
                raise ValueError(f"give {' and '.join(both)}, or neither; got {given[0]} only")
            for name in given:
                values = getattr(self, name)
                _check_numbers(name, values)
                _check_each(name, values, shape)
                if not np.isfinite(values).all():
                    raise ValueError(
                        f"{name}: {int((~np.isfinite(values)).sum())} numbers are not finite"
                    )
                if part == "behaviour" and values.dtype.kind not in "iu":
                    raise TypeError(f"{name}: expected integers, got {values.dtype}")
                if part == "behaviour" and values.min(initial=0) < 0:
                    raise ValueError(f"{name}: behaviours count from 0, got {values.min()}")
                if part == "place" and not ((values >= 0) & (values <= 1)).all():
                    raise ValueError(
                        f"{name}: expected (y, x) from 0 to 1 as shares of the picture, got "
                        f"{values.min():g} to {values.max():g}"
                    )

    def __len__(self) -> int:
        return len(self.groups)

    def select(self, chosen: Bool[np.ndarray, "n"]) -> Counterfactuals:
        """Return the pairs where ``chosen`` is true."""
        own: dict[str, Any] = {
            name: None if each is None else each[chosen] for name, each in vars(self).items()
        }
        return replace(self, **own)


@dataclass(frozen=True, eq=False)
class ConceptData:
    """All that is asked about one concept; fitting and held-out groups are disjoint.

    Attributes:
        name: name of the concept.
        kind: ``map``: it is in places of the picture; ``class`` or ``scalar``: it is one value of
            the whole state.
        fit: states of the fitting groups.
        held_out: states of the others, on which the reading is scored.
        fit_pairs: pairs of the fitting groups.
        pairs: pairs of the others, on which every claim is decided.
        behaviours: which behaviour each action of the policy is, so that actions with the same
            effect count as one; None: each action is its own.
        unrelated: held-out states that the concept has no part in, such as those without it: an
            edit that is specific leaves the policy alone there. Their labels are not looked at.
            None: that claim is left out.
        other: labels of another concept of the fitting states, as a control; of the same kind.
        other_name: name of that concept.

    Raises:
        ValueError: shapes, labels, pairs or groups that allow no answer; it says which.
    """

    name: str
    kind: Kind
    fit: Examples
    held_out: Examples
    fit_pairs: Counterfactuals
    pairs: Counterfactuals
    behaviours: Int[np.ndarray, "actions"] | None = None
    unrelated: Examples | None = None
    other: Shaped[np.ndarray, "n *label"] | None = None
    other_name: str = "another concept"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind: choose from {', '.join(get_args(Kind))}, got {self.kind!r}")
        for name in ("fit", "held_out"):
            _check_examples(name, getattr(self, name), self.kind)
        for name in ("fit_pairs", "pairs"):
            _check_pairs(name, getattr(self, name), self.behaviours)
        if self.unrelated is not None:
            _check_groups("unrelated", self.unrelated.groups)
        pictures = {
            "fit": self.fit.observations,
            "held_out": self.held_out.observations,
            "fit_pairs": self.fit_pairs.base,
            "pairs": self.pairs.base,
        }
        if self.unrelated is not None:
            pictures["unrelated"] = self.unrelated.observations
        kinds = {name: (each.shape[1:], each.dtype) for name, each in pictures.items()}
        other = next((name for name in kinds if kinds[name] != kinds["fit"]), None)
        if other is not None:
            raise ValueError(
                f"{other}: expected pictures {kinds['fit'][0]} of {kinds['fit'][1]} as those of "
                f"fit, got {kinds[other][0]} of {kinds[other][1]}"
            )
        for ours, theirs in (("fit", "held_out"), ("fit_pairs", "pairs"), ("fit", "pairs")):
            one, two = (np.unique(getattr(self, each).groups) for each in (ours, theirs))
            if len(shared := np.intersect1d(one, two)):
                raise ValueError(f"groups in both {ours} and {theirs}: {_some(shared)}")
        if self.other is not None and np.shape(self.other) != np.shape(self.fit.labels):
            raise ValueError(
                f"other: expected labels of shape {np.shape(self.fit.labels)} as those of fit, "
                f"got {np.shape(self.other)}"
            )

    @classmethod
    def split(
        cls,
        name: str,
        kind: Kind,
        examples: Examples,
        pairs: Counterfactuals,
        *,
        fit_share: float = 0.5,
        seed: int = 0,
        unrelated: Examples | None = None,
        behaviours: Int[np.ndarray, "actions"] | None = None,
        other: Shaped[np.ndarray, "n *label"] | None = None,
        other_name: str = "another concept",
    ) -> ConceptData:
        """Split examples and pairs by group into fitting and held-out ones.

        Args:
            name: name of the concept.
            kind: ``map``, ``class`` or ``scalar``.
            examples: labelled states.
            pairs: pairs of states alike but for the concept.
            fit_share: share of the groups that are fitted on.
            seed: seed of the split.
            unrelated: as for the class; only states of held-out groups are kept.
            behaviours: as for the class.
            other: labels of another concept, of ``examples``.
            other_name: name of that concept.

        Raises:
            ValueError: as for the class, or a share outside 0..1.
        """
        if not 0 < fit_share < 1:
            raise ValueError(f"fit_share: expected a share between 0 and 1, got {fit_share}")
        if other is not None and len(other) != len(examples):
            raise ValueError(f"other: expected {len(examples)} labels, got {len(other)}")
        groups = np.unique(np.concatenate([examples.groups, pairs.groups]))
        drawn = np.random.default_rng(seed).permutation(groups)
        fitting = drawn[: round(fit_share * len(drawn))]
        of_examples, of_pairs = (np.isin(each.groups, fitting) for each in (examples, pairs))
        if unrelated is not None:
            unrelated = unrelated.select(~np.isin(unrelated.groups, fitting))
        return cls(
            name,
            kind,
            examples.select(of_examples),
            examples.select(~of_examples),
            pairs.select(of_pairs),
            pairs.select(~of_pairs),
            behaviours,
            unrelated,
            None if other is None else other[of_examples],
            other_name,
        )


def permute_labels(examples: Examples, seed: int) -> Examples:
    """Give each group's states the labels of another group, which no two groups share."""
    names = np.random.default_rng(seed).permutation(np.unique(examples.groups))
    labels = np.empty_like(examples.labels)
    for group, other in zip(names, np.roll(names, 1), strict=True):
        states = np.flatnonzero(examples.groups == group)
        theirs = examples.labels[examples.groups == other]
        labels[states] = np.resize(theirs, (len(states), *labels.shape[1:]))
    return replace(examples, labels=labels)


def _check_images(name: str, given: object) -> None:
    _check_numbers(name, given)
    if np.ndim(given) != 4:  # type: ignore[arg-type]
        raise ValueError(
            f"{name}: expected pictures (n, channels, height, width), got shape {np.shape(given)}"  # type: ignore[arg-type]
        )


def _check_numbers(name: str, given: object) -> None:
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "biuf":
        kind = f"array of {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        raise TypeError(f"{name}: expected an array of numbers, got {kind}")


def _check_each(name: str, given: object, shape: tuple[int, ...]) -> None:
    if not isinstance(given, np.ndarray):
        raise TypeError(f"{name}: expected an array, got {type(given).__name__}")
    if given.shape != shape:
        raise ValueError(f"{name}: expected {shape} for {shape[0]} pictures, got {given.shape}")


def _check_groups(name: str, groups: np.ndarray) -> None:
    if len(np.unique(groups)) < LEAST_GROUPS:
        raise ValueError(
            f"{name}: expected at least {LEAST_GROUPS} groups (levels), "
            f"got {len(np.unique(groups))}"
        )


def _check_examples(name: str, given: Examples, kind: Kind) -> None:
    labels = given.labels
    if labels.ndim != (3 if kind == "map" else 1):
        expected = "(n, rows, columns)" if kind == "map" else "(n,)"
        raise ValueError(f"{name}: expected labels {expected} for a {kind}, got {labels.shape}")
    _check_groups(name, given.groups)
    if not np.isfinite(labels).all():
        raise ValueError(f"{name}: {int((~np.isfinite(labels)).sum())} labels are not finite")
    values = np.unique(labels)
    if len(values) < 2:
        raise ValueError(f"{name}: all labels are {_some(values)}: there is nothing to read")
    if kind == "map" and not np.isin(values, (0, 1)).all():
        raise ValueError(f"{name}: labels of a map are 0 and 1, got {_some(values)}")
    if kind == "class" and not np.array_equal(values, np.round(values)):
        raise ValueError(f"{name}: labels of a class are integers, got {_some(values)}")


def _check_pairs(name: str, given: Counterfactuals, behaviours: np.ndarray | None) -> None:
    n = len(given)
    _check_groups(name, given.groups)
    equal = np.flatnonzero((given.base == given.source).reshape(n, -1).all(1))
    if len(equal):
        raise ValueError(f"{name}: base and source are the same picture in pairs {_some(equal)}")
    if given.base_value is not None and given.source_value is not None:
        same = np.flatnonzero(given.base_value == given.source_value)
        if len(same):
            raise ValueError(
                f"{name}: base and source have the same value in pairs {_some(same)}: there the "
                "concept does not change"
            )
    if given.base_behaviour is None or given.source_behaviour is None:
        return
    same = np.flatnonzero(given.base_behaviour == given.source_behaviour)
    if len(same):
        raise ValueError(
            f"{name}: the same behaviour is right in base and source of pairs {_some(same)}: there "
            "the concept does not matter"
        )
    if behaviours is not None:
        known = np.unique(behaviours)
        asked = np.unique(np.concatenate([given.base_behaviour, given.source_behaviour]))
        if len(unknown := np.setdiff1d(asked, known)):
            raise ValueError(
                f"{name}: no action is of behaviour {_some(unknown)}; there are {_some(known)}"
            )


def _some(values: np.ndarray) -> str:
    """List values, the first few of many."""
    shown = ", ".join(str(value) for value in values[:5].tolist())
    return shown + (f", ... ({len(values)} in all)" if len(values) > 5 else "")
