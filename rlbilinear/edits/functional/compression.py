"""Compressing a bilinear layer: the same function with fewer hidden units.

Hidden units whose columns of ``down`` are parallel write one output direction: together they are
one quadratic form of ``(x, 1)``. A form with p positive and n negative eigenvalues needs
``max(p, n)`` units, no fewer (a single unit has at most one of either sign), and a positive and a
negative term share one: ``s a² - t b² = (√s a + √t b)(√s a - √t b)``.
"""

from dataclasses import dataclass
from typing import Generic, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlbilinear.edits.functional.parts import (
    Bilinear,
    bias_or_zeros,
    check_bilinear,
    explicit_down,
    matrix_of,
    with_units,
)
from rlbilinear.quadratic import QuadraticForm
from rlbilinear.spectrum import fix_signs


class Units(NamedTuple):
    """Hidden units of ``(x, 1)``: ``sum_r columns_r (left_r . (x, 1)) (right_r . (x, 1))``."""

    left: Float[Tensor, "units inputs"]
    right: Float[Tensor, "units inputs"]
    columns: Float[Tensor, "units outputs"]


class Merged(NamedTuple):
    """An output direction that several hidden units wrote."""

    units: int
    """how many they were"""
    positive: int
    """positive eigenvalues of their form of (x, 1)"""
    negative: int
    """negative ones"""


@dataclass(frozen=True, eq=False)
class Compression(Generic[Bilinear]):
    """A layer with as few hidden units as its output directions need, and what became of them.

    Attributes:
        layer: the same function, in the given layer's dtype.
        before: hidden units before.
        after: hidden units now.
        merged: each direction that several units wrote.
        error: what was dropped as rounding, as a share of the layer's norm: in the Frobenius norm
            of its tensor, relative to the root of the sum of its units' squared norms.
    """

    layer: Bilinear
    before: int
    after: int
    merged: tuple[Merged, ...]
    error: float

    def __str__(self) -> str:
        ranks = ", ".join(f"{m.units} units of rank {m.positive}+{m.negative}" for m in self.merged)
        return (
            f"{self.before} hidden units compressed to {self.after}; merged: {ranks or 'none'}; "
            f"relative error {self.error:.1g}"
        )


def compress(layer: Bilinear, tolerance: float | None = None) -> Compression[Bilinear]:
    """Write a bilinear layer with as few hidden units as its output directions need.

    Units that add nothing are left out, and units with parallel columns of ``down`` are merged by
    QR and eigh of their common form (biases included), so that edits of one direction do not make
    the layer grow. Where the forms are many and small, every direction of an orthonormal output
    basis is written anew instead. The layer never gets more units, and at least one is left. (The
    fewest units over all bases is a tensor rank, which nobody can compute in general.)

    Args:
        layer: the layer.
        tolerance: relative size of what counts as rounding; of the layer's dtype when None.

    Raises:
        TypeError: the layer is not bilinear.
        ValueError: a tolerance that is not in [0, 1).
    """
    check_bilinear(layer)
    if tolerance is None:
        largest = max(100, layer.left.weight[0].numel(), len(layer.left.weight))
        tolerance = largest * torch.finfo(layer.left.weight.dtype).eps
    if not 0 <= tolerance < 1:
        raise ValueError(f"expected a tolerance in [0, 1), got {tolerance}")
    left, right = (
        torch.cat([matrix_of(part), bias_or_zeros(part)[:, None]], dim=1)
        for part in (layer.left, layer.right)
    )
    units = Units(left, right, matrix_of(explicit_down(layer)).T)
    size = _sizes(units).norm()
    negligible = _sizes(units) <= tolerance * size / len(left)
    lost = _sizes(units)[negligible].norm()
    units = Units(*(each[~negligible] for each in units))
    found = [
        _merge(Units(*(t[group] for t in units)), tolerance) for group in _groups(units, tolerance)
    ]
    outputs, inputs = units.columns.shape[1], left.shape[1]
    if 2 * sum(len(each.units.left) for each in found) > outputs * inputs:
        found = min(found, _by_basis(units, tolerance), key=_count)
    parts = [each.units for each in found]
    if not _count(found):
        parts = [Units(*(t.new_zeros(1, t.shape[1]) for t in units))]
    kept = Units(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
    dropped = torch.tensor([lost, *(each.dropped for each in found)]).norm()
    return Compression(
        with_units(
            layer,
            kept.left[:, :-1],
            kept.right[:, :-1],
            kept.columns.T,
            (kept.left[:, -1], kept.right[:, -1]),
        ),
        len(left),
        len(kept.left),
        tuple(each.merged for each in found if each.merged.units > 1),
        float(dropped / size) if size else 0.0,
    )


class _Part(NamedTuple):
    """The units that write one output direction."""

    units: Units
    merged: Merged
    dropped: float


def _merge(units: Units, tolerance: float) -> _Part:
    """Write units with parallel columns as few units."""
    count = len(units.left)
    sizes = _sizes(units)
    if count == 1 and sizes[0] > 0:
        return _Part(units, Merged(1, 0, 0), 0.0)
    column = fix_signs(units.columns[sizes.argmax()][None])[0]
    return _along(units, column / column.norm(), tolerance)


def _along(units: Units, direction: Float[Tensor, "outputs"], tolerance: float) -> _Part:
    """Write what units add along a direction of norm 1 as few units."""
    weight = units.columns @ direction
    form = QuadraticForm(units.left, units.right, weight, 0 * units.left[0], weight.new_zeros(()))
    values, vectors = form.eigh()
    scale = (weight * units.left.norm(dim=1) * units.right.norm(dim=1)).norm()
    kept = values.abs() > tolerance * scale
    dropped = float(values[~kept].norm())
    scaled = vectors[kept] * values[kept].abs().sqrt()[:, None]
    plus, minus = scaled[values[kept] > 0], scaled[values[kept] < 0]
    size = max(len(plus), len(minus))
    first, second = scaled.new_zeros(2, size, scaled.shape[1])
    first[: len(plus)], second[: len(minus)] = plus, minus
    return _Part(
        Units(first + second, first - second, direction.expand(size, -1)),
        Merged(len(units.left), len(plus), len(minus)),
        dropped,
    )


def _by_basis(units: Units, tolerance: float) -> list[_Part]:
    """Write all units anew along an orthonormal basis of what their columns span."""
    left, sizes, _ = torch.linalg.svd(units.columns.T, full_matrices=False)
    basis = left.T[sizes > tolerance * sizes.amax()]
    return [_along(units, direction, tolerance) for direction in basis]


def _groups(units: Units, tolerance: float) -> list[Int[Tensor, "group"]]:
    """Return the indices of units with parallel columns; of units that add nothing, none."""
    used = _sizes(units).nonzero()[:, 0]
    columns = units.columns[used] / units.columns[used].norm(dim=1, keepdim=True)
    # Parallel columns have products of equal size with any vector: only those are compared.
    probe = torch.randn(columns.shape[1], generator=torch.Generator().manual_seed(0)).to(columns)
    keys, order = (columns @ probe).abs().sort()
    cuts = (keys.diff() > 4 * tolerance * probe.norm()).nonzero()[:, 0] + 1
    groups = []
    for run in order.tensor_split(cuts.cpu()):
        rest = run
        while len(rest):
            first = columns[rest[0]]
            apart = columns[rest] - torch.outer(columns[rest] @ first, first)
            same = apart.norm(dim=1) <= tolerance
            same[0] = True
            groups.append(used[rest[same]])
            rest = rest[~same]
    return sorted(groups, key=lambda group: int(group.min()))


def _sizes(units: Units) -> Float[Tensor, "units"]:
    return units.left.norm(dim=1) * units.right.norm(dim=1) * units.columns.norm(dim=1)


def _count(parts: list[_Part]) -> int:
    return sum(len(each.units.left) for each in parts)
