"""A policy that runs once on each set of pictures, and remembers the outputs of many layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor

from rlbilinear.probes.subject import Observations, Subject


@dataclass(frozen=True, eq=False)
class Remembering(Subject):
    """A subject for questions about many layers: made by `remembering`.

    What it remembers goes with it. Arrays are known by identity: they must not be changed.

    Attributes:
        remembered: the layers whose outputs are kept, all from one pass.
    """

    remembered: tuple[str, ...] = ()
    _kept: dict[int, tuple[Observations, dict[str, Tensor]]] = field(default_factory=dict)
    _blanks: dict[int, Subject] = field(default_factory=dict)

    def activations(
        self, observations: Observations, layers: Iterable[str], **options: Any
    ) -> dict[str, Float[Tensor, "n *output"]]:
        """Return the outputs of layers, as `Subject.activations` does, on the processor."""
        names = tuple(layers)
        if not {*names} <= {*self.remembered}:
            return super().activations(observations, names, **options)
        if id(observations) not in self._kept:
            found = super().activations(observations, self.remembered, **options)
            # The array is kept too: while it is there, no other has its identity.
            self._kept[id(observations)] = (
                observations,
                {name: outputs.cpu() for name, outputs in found.items()},
            )
        outputs = self._kept[id(observations)][1]
        return {name: outputs[name] for name in names}

    def untrained(self, seed: int) -> Subject:
        """Return the same policy with initial weights, which remembers as well."""
        if seed not in self._blanks:
            self._blanks[seed] = remembering(super().untrained(seed), self.remembered)
        return self._blanks[seed]


def remembering(subject: Subject, layers: Iterable[str]) -> Remembering:
    """Return a subject that remembers the outputs of layers.

    Raises:
        ValueError: unknown layer.
    """
    layers = tuple(layers)
    for layer in layers:
        subject.check_layer(layer)
    own = {each.name: getattr(subject, each.name) for each in fields(Subject)}
    return Remembering(**own, remembered=layers)
