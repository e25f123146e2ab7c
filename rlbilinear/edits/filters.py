"""Edits of the eigenfilters of an output direction: scaled, written, kept, rotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.edits import functional as editing
from rlbilinear.edits.base import Edit, NotInvertibleError, below_bias
from rlbilinear.edits.functional import PositionBias
from rlbilinear.edits.functional.filters import check_indices, form_and_dual
from rlbilinear.edits.words import say, say_angle, say_factors


@dataclass(frozen=True, repr=False, eq=False)
class ScaleEigenfilters(Edit):
    """Scale eigenfilters of an output direction by their index (`scale_eigenfilters`).

    The indices are those of the layer it is applied to: ``on(layer)`` gives the same edit with the
    eigenfilters themselves, which can be undone.
    """

    direction: Float[Tensor, "outputs"]
    factors: Mapping[int, float]

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        return below_bias(
            target, lambda inner: editing.scale_eigenfilters(inner, self.direction, self.factors)
        )

    def on(self, layer: Any) -> ScaleFilters:
        """Return the edit with the eigenfilters that the indices are of, on this layer.

        Raises:
            TypeError: the layer is not bilinear.
            ValueError: an index beyond the spectrum's rank.
        """
        while isinstance(layer, PositionBias):
            layer = layer.layer
        vectors = form_and_dual(layer, self.direction)[0].eigh().vectors
        indices = check_indices(self.factors, len(vectors))
        factors = tuple(float(self.factors[index]) for index in indices)
        return ScaleFilters(self.direction, vectors[indices], factors)

    def _lost(self) -> str:
        if not all(self.factors.values()):
            return "an ablated eigenfilter is not in the edited layer"
        return (
            "its indices are of the spectrum before the edit; name the eigenfilters themselves "
            "by edit.on(layer), and undo that"
        )

    def __str__(self) -> str:
        return f"eigenfilters of {say(self.direction)} scaled, {say_factors(self.factors)}"


@dataclass(frozen=True, repr=False, eq=False)
class ScaleFilters(Edit):
    """Scale given orthonormal filters of an output direction (`scale_filters`)."""

    direction: Float[Tensor, "outputs"]
    filters: Float[Tensor, "k *inputs"]
    factors: Sequence[float]

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        return below_bias(
            target,
            lambda inner: editing.scale_filters(inner, self.direction, self.filters, self.factors),
        )

    def inverse(self) -> ScaleFilters:
        """Scale back.

        Raises:
            NotInvertibleError: a filter was ablated.
        """
        if not all(self.factors):
            raise NotInvertibleError(
                f"{self} cannot be undone: an ablated filter is not in the edited layer"
            )
        return ScaleFilters(self.direction, self.filters, tuple(1 / f for f in self.factors))

    def __str__(self) -> str:
        factors = say_factors(dict(enumerate(self.factors)))
        return f"{len(self.factors)} given filters of {say(self.direction)} scaled, {factors}"


@dataclass(frozen=True, repr=False, eq=False)
class WriteFilters(Edit):
    """Add ``sum_i values_i (filters_i * x)²`` to an output direction (`write_eigenfilters`)."""

    direction: Float[Tensor, "outputs"]
    values: Float[Tensor, "k"]
    filters: Float[Tensor, "k *inputs"]

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        return below_bias(
            target,
            lambda inner: editing.write_eigenfilters(
                inner, self.direction, self.values, self.filters
            ),
        )

    def inverse(self) -> WriteFilters:
        """Take the filters away again."""
        return WriteFilters(self.direction, -self.values, self.filters)

    def __str__(self) -> str:
        values = ", ".join(f"{float(value):.3g}" for value in self.values[:6])
        more = ", ..." if len(self.values) > 6 else ""
        return f"{len(self.values)} filters of values {values}{more} added to {say(self.direction)}"


@dataclass(frozen=True, repr=False, eq=False)
class KeepEigenfilters(Edit):
    """Keep only some eigenfilters of an output direction, or of several (`keep_eigenfilters`)."""

    direction: Float[Tensor, "*several outputs"]
    keep: int | Sequence[int]

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        return below_bias(
            target, lambda inner: editing.keep_eigenfilters(inner, self.direction, self.keep)
        )

    def __str__(self) -> str:
        which = f"top {self.keep}" if isinstance(self.keep, int) else f"{[*self.keep]}"
        return f"only eigenfilters {which} of {say(self.direction)} kept"


@dataclass(frozen=True, repr=False, eq=False)
class RotateFilters(Edit):
    """Rotate the filters of an output direction in the plane of two (`rotate_filters`)."""

    direction: Float[Tensor, "outputs"]
    source: Float[Tensor, "*inputs"]
    target: Float[Tensor, "*inputs"]
    angle: float | None = None

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        return below_bias(
            target,
            lambda inner: editing.rotate_filters(
                inner, self.direction, self.source, self.target, self.angle
            ),
        )

    def inverse(self) -> RotateFilters:
        """Rotate back."""
        return RotateFilters(self.direction, self.target, self.source, self.angle)

    def __str__(self) -> str:
        turn = say_angle(self.source, self.target, self.angle)
        return f"filters of {say(self.direction)} rotated {turn} in the plane of two"
