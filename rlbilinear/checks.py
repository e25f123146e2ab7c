"""Checks of arguments and scores; messages say what was given and what is accepted."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def is_whole(value: object) -> bool:
    """Return whether this is an integer, Python's or numpy's; a bool is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_whole(least: int = 1, **numbers: object) -> None:
    """Raise a ValueError that names the first that is not a whole number, ``least`` or more."""
    for name, number in numbers.items():
        if not is_whole(number) or number < least:  # type: ignore[operator]
            raise ValueError(f"{name} must be a whole number, {least} or more; got {number!r}")


def check_whole_each(least: int = 1, **several: object) -> None:
    """Raise a ValueError that names the first that is not a sequence of whole numbers."""
    for name, numbers in several.items():
        if not isinstance(numbers, Sequence | np.ndarray) or isinstance(numbers, str | bytes):
            raise ValueError(f"{name} must be a sequence of whole numbers; got {numbers!r}")
        for index, number in enumerate(numbers):
            check_whole(least, **{f"{name}[{index}]": number})


def check_pair(least: int = 1, **sizes: object) -> None:
    """Raise a ValueError that names the first that is neither a whole number nor two of them."""
    for name, size in sizes.items():
        two = size if isinstance(size, tuple | list) and len(size) == 2 else (size,)
        if not all(is_whole(number) and number >= least for number in two):  # type: ignore[operator]
            raise ValueError(
                f"{name} must be a whole number or a pair of them, {least} or more; got {size!r}"
            )


def check_finite(**numbers: object) -> None:
    """Raise a ValueError that names the first that is not one finite number."""
    for name, number in numbers.items():
        try:
            fits = not isinstance(number, str | bytes) and abs(float(number)) < float("inf")  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError):
            fits = False
        if not fits:
            raise ValueError(f"{name} must be a finite number, got {number!r}")


def as_numbers(given: object, what: str) -> Tensor:
    """Return numbers as a tensor.

    Raises:
        ValueError: ``given``, called ``what`` in the message, is neither a tensor, nor an array,
            nor numbers in sequence.
    """
    if isinstance(given, np.ndarray) and min(given.strides, default=0) < 0:
        given = given.copy()  # a flipped view, which torch does not take
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected numbers for {what}, got {given!r}") from error


def undecided(scores: Float[Tensor, "n choices"]) -> Bool[Tensor, "n"]:
    """Say which rows name no choice: one with NaN or infinity, or minus infinity for all.

    Minus infinity for some is how a row says never. ``argmax`` would call NaN the largest, and all
    that is infinite the first.
    """
    return scores.isnan().any(1) | (scores == torch.inf).any(1) | (scores == -torch.inf).all(1)


def likeliest(scores: Float[Tensor, "n choices"]) -> Int[Tensor, "n"]:
    """Return the choice of the largest score in each row.

    Raises:
        FloatingPointError: rows that name none, see `undecided`.
    """
    broken = undecided(scores)
    if broken.any():
        raise FloatingPointError(
            f"scores are not finite in {int(broken.sum())} of {len(scores)} rows "
            f"(the first is row {int(broken.int().argmax())}): the largest cannot be chosen"
        )
    return scores.argmax(1)
