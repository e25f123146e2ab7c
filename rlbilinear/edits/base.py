"""The base of all edits: sequences of them, and edits placed in a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from rlbilinear.edits.functional import PositionBias


class NotInvertibleError(ValueError):
    """The edit cannot be undone from the edited layer alone; the message says why."""


class Edit(ABC):
    """A change of weights: ``edit(layer)`` is the changed layer, ``edit_a | edit_b`` a sequence."""

    @abstractmethod
    def __call__(self, target: Any) -> Any:
        """Apply the edit; what is given stays as it is."""

    def inverse(self) -> Edit:
        """Return the edit that undoes this one.

        Raises:
            NotInvertibleError: nothing does; the message says why.
        """
        raise NotInvertibleError(f"{self} cannot be undone: {self._lost()}")

    def at(self, layer: str) -> Placed:
        """Say on which layer of a network the edit is to be made."""
        return Placed(layer, self)

    def __or__(self, other: Edit) -> Edits:
        """Make this edit first, then the other."""
        return Edits((self, other))

    def __repr__(self) -> str:
        return str(self)

    def _lost(self) -> str:
        return "what it takes away is not in the edited layer"


@dataclass(frozen=True, repr=False)
class Edits(Edit):
    """Edits made one after another, each on the result of those before it."""

    edits: tuple[Edit, ...]

    def __init__(self, edits: Iterable[Edit]) -> None:
        flat = (each.edits if isinstance(each, Edits) else (each,) for each in edits)
        object.__setattr__(self, "edits", tuple(edit for part in flat for edit in part))

    def __call__(self, target: Any) -> Any:
        """Apply the edits in order."""
        for edit in self.edits:
            target = edit(target)
        return target

    def inverse(self) -> Edits:
        """Undo the edits, the last one first."""
        return Edits(edit.inverse() for edit in reversed(self.edits))

    def __iter__(self) -> Iterator[Edit]:
        return iter(self.edits)

    def __len__(self) -> int:
        return len(self.edits)

    def __str__(self) -> str:
        return "; then ".join(map(str, self.edits)) or "nothing"


class Network(Protocol):
    """What has named layers that can be replaced in a copy, such as an agent."""

    def layer(self, name: str) -> nn.Module:
        """Return a layer."""

    def with_layer(self, name: str, module: nn.Module, *, edit: str | None = None) -> Any:
        """Return a copy with the layer replaced; ``edit`` says what was changed."""


@dataclass(frozen=True, repr=False)
class Placed(Edit):
    """An edit of one layer of a network: applied to the network, it gives a new network."""

    layer: str
    edit: Edit

    def __call__(self, target: Network) -> Any:
        """Apply the edit to the network's layer.

        Raises:
            TypeError: a layer instead of a network.
        """
        if not hasattr(target, "with_layer"):
            raise TypeError(
                f"this edit is for the layer {self.layer} of a network, such as an agent; "
                f"got {type(target).__name__}"
            )
        edited = self.edit(target.layer(self.layer))
        return target.with_layer(self.layer, edited, edit=str(self))

    def inverse(self) -> Placed:
        """Undo the edit at the same place."""
        return Placed(self.layer, self.edit.inverse())

    def at(self, layer: str) -> Placed:
        """Refuse a second place."""
        raise ValueError(f"this edit has its place already: {self.layer}")

    def __str__(self) -> str:
        return f"{self.layer}: {self.edit}"


def below_bias(layer: nn.Module, edit: Callable[[Any], nn.Module]) -> nn.Module:
    """Edit a layer that may have position-dependent biases around it; they stay."""
    if isinstance(layer, PositionBias):
        return PositionBias(below_bias(layer.layer, edit), layer.bias.clone())
    return edit(layer)
