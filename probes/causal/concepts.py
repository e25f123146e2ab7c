"""A concept of states that are values: what is true of them, and the same situation otherwise.

`concept_data` draws the examples and counterfactuals of one: no arrays need be made by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Int, Shaped

from rlbilinear.probes.causal.data import ConceptData, Counterfactuals, Examples, Images, Kind

State = TypeVar("State")


@dataclass(frozen=True)
class CausalConcept(Generic[State]):
    """A concept of states that are values: what is true of them, and the same situation otherwise.

    Attributes:
        name: in tables.
        kind: ``map``, ``class`` or ``scalar``.
        label: a state's label, as `Examples.labels` has them.
        counterfactual: the same situation with another value of the concept, drawn at random;
            None when this state allows none.
        behaviour: what is right in a state, an index of the behaviours; None: not known, in which
            case the pair is left out. Without this function the policy's own behaviour counts.
        place: where in the picture the concept is, as `Counterfactuals.base_place` has it.
        without: the same situation without the concept, for `ConceptData.unrelated`.
    """

    name: str
    kind: Kind
    label: Callable[[State], Shaped[np.ndarray, "*label"] | float]
    counterfactual: Callable[[State, np.random.Generator], State | None]
    behaviour: Callable[[State], int | None] | None = None
    place: Callable[[State], tuple[float, float]] | None = None
    without: Callable[[State], State | None] | None = None


def concept_data(
    concept: CausalConcept[State],
    sample: Callable[[int, np.random.Generator], State],
    observe: Callable[[Sequence[State]], Images],
    fit_levels: Iterable[int],
    levels: Iterable[int],
    *,
    states_per_level: int = 8,
    pairs_per_level: int = 3,
    behaviours: Int[np.ndarray, "actions"] | None = None,
    other: CausalConcept[State] | None = None,
    seed: int = 0,
    tries: int = 50,
) -> ConceptData:
    """Draw the states and pairs of a concept from states that are values.

    Pairs whose behaviours are the same are drawn again: there the concept does not matter.

    Args:
        concept: what is asked about.
        sample: draws a state of a level.
        observe: draws pictures of states, as the policy sees them.
        fit_levels: levels to fit on.
        levels: held-out levels, disjoint from these.
        states_per_level: labelled states of each level.
        pairs_per_level: pairs of each level.
        behaviours: which behaviour each action is.
        other: another concept of the same kind, as a control.
        seed: seed of all that is drawn.
        tries: states drawn for a pair, before a level is found to have too few.

    Raises:
        ValueError: a level allows no pairs, or the data allow no answer.
    """
    rng = np.random.default_rng(seed)
    drawn = {
        name: [(level, sample(level, rng)) for level in numbers for _ in range(states_per_level)]
        for name, numbers in (("fit", [*fit_levels]), ("held_out", [*levels]))
    }
    pairs = {
        name: [
            (level, *_pair(concept, sample, level, rng, tries))
            for level in dict.fromkeys(level for level, _ in states)
            for _ in range(pairs_per_level)
        ]
        for name, states in drawn.items()
    }

    def examples(states: Sequence[tuple[int, State]]) -> Examples:
        values = [state for _, state in states]
        labels = np.stack([np.asarray(concept.label(state)) for state in values])
        return Examples(observe(values), labels, np.array([level for level, _ in states]))

    unrelated = None
    if concept.without is not None:
        rest = [(level, concept.without(base)) for level, base, _ in pairs["held_out"]]
        there = [(level, state) for level, state in rest if state is not None]
        if there:
            # Without the concept a state may have no label; nobody reads it there.
            pictures = observe([state for _, state in there])
            groups = np.array([level for level, _ in there])
            unrelated = Examples(pictures, np.zeros(len(there)), groups)
    return ConceptData(
        concept.name,
        concept.kind,
        examples(drawn["fit"]),
        examples(drawn["held_out"]),
        _as_pairs(concept, pairs["fit"], observe),
        _as_pairs(concept, pairs["held_out"], observe),
        behaviours,
        unrelated,
        None
        if other is None
        else np.stack([np.asarray(other.label(state)) for _, state in drawn["fit"]]),
        "another concept" if other is None else other.name,
    )


def _pair(
    concept: CausalConcept[State],
    sample: Callable[[int, np.random.Generator], State],
    level: int,
    rng: np.random.Generator,
    tries: int,
) -> tuple[State, State]:
    for _ in range(tries):
        base = sample(level, rng)
        source = concept.counterfactual(base, rng)
        if source is None:
            continue
        if concept.behaviour is not None:
            ours, theirs = concept.behaviour(base), concept.behaviour(source)
            if ours is None or theirs is None or ours == theirs:
                continue
        return base, source
    raise ValueError(
        f"{concept.name}: none of {tries} states of level {level} has a counterpart in which "
        "another behaviour is right; leave the level out"
    )


def _as_pairs(
    concept: CausalConcept[State],
    pairs: Sequence[tuple[int, State, State]],
    observe: Callable[[Sequence[State]], Images],
) -> Counterfactuals:
    levels, base, source = zip(*pairs, strict=True)
    sides: dict[str, np.ndarray] = {}
    for name, states in (("base", base), ("source", source)):
        sides[name] = observe(states)
        if concept.behaviour is not None:
            sides[f"{name}_behaviour"] = np.array([concept.behaviour(state) for state in states])
        if concept.place is not None:
            sides[f"{name}_place"] = np.array([concept.place(state) for state in states], float)
        if concept.kind != "map":
            sides[f"{name}_value"] = np.array([concept.label(state) for state in states])
    return Counterfactuals(groups=np.array(levels), **sides)
