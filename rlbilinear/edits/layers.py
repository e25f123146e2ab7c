"""Edits of all that a layer reads or writes: scaled, rotated, biased, transplanted, compressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.edits import functional as editing
from rlbilinear.edits.base import Edit, Edits, NotInvertibleError, below_bias
from rlbilinear.edits.functional import PositionBias
from rlbilinear.edits.words import say, say_angle, say_factor
from rlbilinear.quadratic import to_double


@dataclass(frozen=True, repr=False, eq=False)
class ScaleOutput(Edit):
    """Scale what the layer writes along a direction, or in the span of several (`scale_output`).

    What a position-dependent bias adds is scaled as well.
    """

    direction: Float[Tensor, "*several outputs"]
    factor: float

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        return _map_output(target, editing.scaling_matrix(self.direction, self.factor))

    def inverse(self) -> ScaleOutput:
        """Scale back.

        Raises:
            NotInvertibleError: the direction was ablated.
        """
        return ScaleOutput(self.direction, _reciprocal(self, self.factor, "written"))

    def __str__(self) -> str:
        return f"what is written along {say(self.direction)} {say_factor(self.factor)}"


@dataclass(frozen=True, repr=False, eq=False)
class ScaleInput(Edit):
    """Scale what the layer reads along a direction, or in the span of several (`project_input`)."""

    direction: Float[Tensor, "*several inputs"]
    factor: float

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        return below_bias(
            target, lambda inner: editing.project_input(inner, self.direction, self.factor)
        )

    def inverse(self) -> ScaleInput:
        """Scale back.

        Raises:
            NotInvertibleError: the layer was made blind to the direction.
        """
        return ScaleInput(self.direction, _reciprocal(self, self.factor, "read"))

    def __str__(self) -> str:
        return f"what is read along {say(self.direction)} {say_factor(self.factor)}"


@dataclass(frozen=True, repr=False, eq=False)
class RotateOutput(Edit):
    """Write along ``target`` what was written along ``source`` (`rotation_matrix`).

    All that is written in the plane of the two is rotated by the angle in radians, from source to
    target when None; a position-dependent bias as well.
    """

    source: Float[Tensor, "outputs"]
    target: Float[Tensor, "outputs"]
    angle: float | None = None

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        return _map_output(target, editing.rotation_matrix(self.source, self.target, self.angle))

    def inverse(self) -> RotateOutput:
        """Rotate back."""
        return RotateOutput(self.target, self.source, self.angle)

    def __str__(self) -> str:
        ends = f"{say(self.source)} to {say(self.target)}"
        return (
            f"what is written rotated {say_angle(self.source, self.target, self.angle)} from {ends}"
        )


@dataclass(frozen=True, repr=False, eq=False)
class RotateInput(Edit):
    """Read along ``target`` what was read along ``source``; otherwise as `RotateOutput`."""

    source: Float[Tensor, "inputs"]
    target: Float[Tensor, "inputs"]
    angle: float | None = None

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        rotation = editing.rotation_matrix(self.source, self.target, self.angle)
        return below_bias(target, lambda inner: editing.map_input(inner, rotation.T))

    def inverse(self) -> RotateInput:
        """Rotate back."""
        return RotateInput(self.target, self.source, self.angle)

    def __str__(self) -> str:
        ends = f"{say(self.source)} to {say(self.target)}"
        return f"what is read rotated {say_angle(self.source, self.target, self.angle)} from {ends}"


@dataclass(frozen=True, repr=False, eq=False)
class AddBias(Edit):
    """Add a position-dependent bias to the layer's output (`add_bias_map`)."""

    bias: Float[Tensor, "channels height width"]

    def __call__(self, target: nn.Module) -> PositionBias:
        """Apply the edit."""
        return editing.add_bias_map(target, self.bias)

    def inverse(self) -> AddBias:
        """Take the bias away again."""
        return AddBias(-self.bias)

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.bias.shape))
        return f"bias map of norm {float(self.bias.norm()):.4g} ({shape}) added"


@dataclass(frozen=True, repr=False, eq=False)
class Transplant(Edit):
    """Take what another layer writes along a direction, or all it writes (`transplant`).

    ``name`` says in words where the donor is from.
    """

    donor: nn.Module
    direction: Float[Tensor, "*several outputs"] | None = None
    name: str = "another layer"

    def __call__(self, target: Any) -> nn.Module:
        """Apply the edit."""
        return editing.transplant(target, self.donor, self.direction)

    def _lost(self) -> str:
        return "what was there before is not in the edited layer"

    def __str__(self) -> str:
        part = "" if self.direction is None else f"what is written along {say(self.direction)} "
        return f"{part}taken from {self.name} ({type(self.donor).__name__})"


@dataclass(frozen=True, repr=False)
class Compress(Edit):
    """Write the layer with as few hidden units as its directions need (`compress`)."""

    tolerance: float | None = None

    def __call__(self, target: nn.Module) -> nn.Module:
        """Apply the edit."""
        return below_bias(target, lambda inner: editing.compress(inner, self.tolerance).layer)

    def inverse(self) -> Edits:
        """Do nothing: the function is the same."""
        return Edits(())

    def __str__(self) -> str:
        return "hidden units compressed"


def _map_output(layer: Any, matrix: Float[Tensor, "d d"]) -> Any:
    if isinstance(layer, PositionBias):
        bias = torch.einsum("pc,c...->p...", matrix, to_double(layer.bias)).to(layer.bias)
        return PositionBias(_map_output(layer.layer, matrix), bias)
    return editing.map_output(layer, matrix)


def _reciprocal(edit: Edit, factor: float, verb: str) -> float:
    if factor == 0:
        raise NotInvertibleError(
            f"{edit} cannot be undone: what was {verb} along it is not in the edited layer"
        )
    return 1 / factor
