"""Dataclasses with arrays as values: nothing changes one, nor a copy of it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

Self = TypeVar("Self", bound="Value")


class Value:
    """A frozen dataclass that is its own copy, and is read from pickles by its own constructor.

    Otherwise arrays would come out of copies and pickles writeable. The class freezes its arrays in
    `__post_init__`, see `frozen`.
    """

    __slots__ = ()

    def __copy__(self: Self) -> Self:
        return self

    def __deepcopy__(self: Self, _: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]  # a dataclass


def frozen(array: np.ndarray) -> np.ndarray:
    """Return the array if it is read-only, else a read-only copy."""
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array
