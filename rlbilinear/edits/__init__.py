"""Edits as values: they say what they change, print, compose, and are undone where it is possible.

An edit is applied by calling it, and gives a new layer; the given one does not change:

    edit = ScaleEigenfilters(u, {0: 0.0}) | RotateOutput(u, w)  # the left one first
    edited = edit(layer)

With a place, it applies to anything with named layers that can be replaced, such as an agent:

    edited = edit.at("block2.bilinear")(agent)

All edits are exact and change weights only: the result is a layer (or agent) like any other.
"""

from rlbilinear.edits.base import Edit, Edits, NotInvertibleError, Placed
from rlbilinear.edits.filters import (
    KeepEigenfilters,
    RotateFilters,
    ScaleEigenfilters,
    ScaleFilters,
    WriteFilters,
)
from rlbilinear.edits.layers import (
    AddBias,
    Compress,
    RotateInput,
    RotateOutput,
    ScaleInput,
    ScaleOutput,
    Transplant,
)

__all__ = [
    "AddBias",
    "Compress",
    "Edit",
    "Edits",
    "KeepEigenfilters",
    "NotInvertibleError",
    "Placed",
    "RotateFilters",
    "RotateInput",
    "RotateOutput",
    "ScaleEigenfilters",
    "ScaleFilters",
    "ScaleInput",
    "ScaleOutput",
    "Transplant",
    "WriteFilters",
]
