"""A game as the causal questions need it: states drawn from a level, pictures, and concepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from rlbilinear.envs.grid import Cell
from rlbilinear.envs.render import top_row_first
from rlbilinear.probes.causal.concepts import CausalConcept
from rlbilinear.probes.causal.data import Images

State = TypeVar("State")
T = TypeVar("T")
Sample = Callable[[int, np.random.Generator], State]


DRAWS, LEAST = 20, 2
"""Of so many states drawn, so many must have a counterpart, or a level is left out."""


@dataclass(frozen=True, eq=False)
class World(Generic[State]):
    """A game.

    Attributes:
        game: its name.
        sample: draws a state of a level.
        observe: draws pictures of states.
        behaviours: which behaviour each action is.
        concepts: what can be asked about.
        samples: draws states for a concept that needs others, by the concept's name.
        left_out: concepts that one would look for here, and why there is none.
    """

    game: str
    sample: Sample[State]
    observe: Callable[[Sequence[State]], Images]
    behaviours: Int[np.ndarray, "actions"]
    concepts: Mapping[str, CausalConcept[State]]
    samples: Mapping[str, Sample[State]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def sample_of(self, name: str) -> Sample[State]:
        """Return what draws states for a concept."""
        return self.samples.get(name, self.sample)

    def suits(self, level: int, name: str) -> bool:
        """Return whether the concept matters on a level: `LEAST` of `DRAWS` states have a pair.

        Without it concept, behaviour or both are the same in all that can be drawn there.
        """
        concept, sample = self.concepts[name], self.sample_of(name)
        rng, found = np.random.default_rng(level), 0
        for _ in range(DRAWS):
            base = sample(level, rng)
            source = concept.counterfactual(base, rng)
            if source is None:
                continue
            right = concept.behaviour
            if right is None:
                found += 1
            else:
                ours, theirs = right(base), right(source)
                found += None not in (ours, theirs) and ours != theirs
            if found == LEAST:
                return True
        return False

    def other(self, name: str) -> CausalConcept[State] | None:
        """Return the first other concept of the same kind, as a control; None if there is none."""
        kind = self.concepts[name].kind
        others = (each for key, each in self.concepts.items() if key != name and each.kind == kind)
        return next(others, None)


def presence(shape: tuple[int, ...], cells: Iterable[Cell]) -> Float[np.ndarray, "rows columns"]:
    """Return a label with 1 in these cells, the top row first."""
    return as_label(_marked(shape, cells))


def as_label(mask: Bool[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Return a mask over cells (row 0 at the bottom) as a label, the top row first."""
    return top_row_first(mask).astype(np.float32)


def pick(choices: Sequence[T], rng: np.random.Generator) -> T | None:
    """Draw one of the choices; None if there are none."""
    return choices[rng.integers(len(choices))] if len(choices) else None


def shuffled(choices: Sequence[T], rng: np.random.Generator) -> list[T]:
    """Return the choices in a random order."""
    return [choices[index] for index in rng.permutation(len(choices))]


def _marked(shape: tuple[int, ...], cells: Iterable[Cell]) -> Bool[np.ndarray, "rows columns"]:
    mask = np.zeros(shape, bool)
    for cell in cells:
        mask[cell] = True
    return mask
